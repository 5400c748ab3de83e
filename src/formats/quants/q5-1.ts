/**
 * q5_1: blocks of 32 weights in 24 bytes: d, m (f16), u32 of fifth bits (bit i is weight i's), 16 bytes of nibbles
 * (low: weights 0–15, high: 16–31). Value `d·q + m`.
 *
 * Order of operations: the product (exact in f32), then the sum, one rounding.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q5_1 = blockFormat({
  name: 'q5_1',
  blockSize: 32,
  blockBytes: 24,
  ggml: { id: 7, name: 'Q5_1' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    const m = readF16(source, offset + 2);
    const highLow = source[offset + 4] | (source[offset + 5] << 8);
    const highHigh = source[offset + 6] | (source[offset + 7] << 8);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 8 + i];
      out[at + i] = d * ((pair & 15) | (((highLow >> i) & 1) << 4)) + m;
      out[at + 16 + i] = d * ((pair >> 4) | (((highHigh >> i) & 1) << 4)) + m;
    }
  },
});
