/**
 * q4_1: blocks of 32 weights in 20 bytes: d, m (f16), 16 bytes of nibbles (low: weights 0–15, high: 16–31).
 * Value `d·q + m`.
 *
 * Order of operations: the product (exact in f32), then the sum, one rounding.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q4_1 = blockFormat({
  name: 'q4_1',
  blockSize: 32,
  blockBytes: 20,
  ggml: { id: 3, name: 'Q4_1' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    const m = readF16(source, offset + 2);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 4 + i];
      out[at + i] = d * (pair & 15) + m;
      out[at + 16 + i] = d * (pair >> 4) + m;
    }
  },
});
