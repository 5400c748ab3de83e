/**
 * q5_0: blocks of 32 weights in 22 bytes: d (f16), u32 of fifth bits (bit i is weight i's), 16 bytes of nibbles
 * (low: weights 0–15, high: 16–31). Value `d·(q − 16)`.
 *
 * Order of operations: integer q − 16, then one product, exact in f32.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q5_0 = blockFormat({
  name: 'q5_0',
  blockSize: 32,
  blockBytes: 22,
  ggml: { id: 6, name: 'Q5_0' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    const highLow = source[offset + 2] | (source[offset + 3] << 8);
    const highHigh = source[offset + 4] | (source[offset + 5] << 8);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 6 + i];
      out[at + i] = d * (((pair & 15) | (((highLow >> i) & 1) << 4)) - 16);
      out[at + 16 + i] = d * (((pair >> 4) | (((highHigh >> i) & 1) << 4)) - 16);
    }
  },
});
