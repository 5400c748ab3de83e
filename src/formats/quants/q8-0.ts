/**
 * q8_0: blocks of 32 weights in 34 bytes: d (f16), 32 × i8. Value `d·q`.
 *
 * Order of operations: one product, exact in f32 (11 × 7 significant bits).
 * Encoding as ggml does: d = max|x| / 127 and its inverse in f32, codes rounded half away from zero, then d rounded to
 * f16. A d that rounds to zero makes the whole block zero, so that encoding again gives the same bytes.
 */
import { f32ToF16, readF16 } from './half.ts';
import { blockFormat, notEncodable } from './row.ts';

export const q8_0 = blockFormat({
  name: 'q8_0',
  blockSize: 32,
  blockBytes: 34,
  ggml: { id: 8, name: 'Q8_0' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    for (let i = 0; i < 32; i++) out[at + i] = d * ((source[offset + 2 + i] << 24) >> 24);
  },
  encodeBlock(values, at, out, offset) {
    let largest = 0;
    for (let i = 0; i < 32; i++) {
      const magnitude = Math.abs(values[at + i]);
      if (magnitude > largest) largest = magnitude;
      if (Number.isNaN(magnitude)) throw notEncodable('q8_0', at);
    }
    const d = Math.fround(largest / 127);
    const half = f32ToF16(d);
    if (half >= 0x7c00) throw notEncodable('q8_0', at);
    const inverse = half === 0 ? 0 : Math.fround(1 / d);
    out[offset] = half;
    out[offset + 1] = half >> 8;
    for (let i = 0; i < 32; i++) {
      const scaled = Math.fround(values[at + i] * inverse);
      out[offset + 2 + i] = scaled < 0 ? -Math.floor(0.5 - scaled) : Math.floor(scaled + 0.5);
    }
  },
});
