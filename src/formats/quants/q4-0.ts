/**
 * q4_0: blocks of 32 weights in 18 bytes: d (f16), 16 bytes of nibbles (low: weights 0–15, high: 16–31).
 * Value `d·(q − 8)`.
 *
 * Order of operations: integer q − 8, then one product, exact in f32.
 * Encoding as ggml does: d = m / −8 for the m of largest magnitude (the first of equals), its inverse in f32, code
 * `min(15, ⌊x·inverse + 8.5⌋)`. A d that rounds to zero makes the whole block zero, so that encoding again gives the
 * same bytes; as in ggml the zero of such a block is negative.
 */
import { f32ToF16, readF16 } from './half.ts';
import { blockFormat, notEncodable } from './row.ts';

export const q4_0 = blockFormat({
  name: 'q4_0',
  blockSize: 32,
  blockBytes: 18,
  ggml: { id: 2, name: 'Q4_0' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 2 + i];
      out[at + i] = d * ((pair & 15) - 8);
      out[at + 16 + i] = d * ((pair >> 4) - 8);
    }
  },
  encodeBlock(values, at, out, offset) {
    let largest = 0;
    let signed = 0;
    for (let i = 0; i < 32; i++) {
      const magnitude = Math.abs(values[at + i]);
      if (magnitude > largest) {
        largest = magnitude;
        signed = values[at + i];
      }
      if (Number.isNaN(magnitude)) throw notEncodable('q4_0', at);
    }
    const d = Math.fround(signed / -8);
    const rounded = f32ToF16(d);
    if ((rounded & 0x7fff) >= 0x7c00) throw notEncodable('q4_0', at);
    const zero = (rounded & 0x7fff) === 0;
    const half = zero ? 0x8000 : rounded;
    const inverse = zero ? 0 : Math.fround(1 / d);
    out[offset] = half;
    out[offset + 1] = half >> 8;
    for (let i = 0; i < 16; i++) {
      out[offset + 2 + i] = code(values[at + i], inverse) | (code(values[at + 16 + i], inverse) << 4);
    }
  },
});

function code(value: number, inverse: number): number {
  return Math.min(15, Math.trunc(Math.fround(Math.fround(value * inverse) + 8.5)));
}
