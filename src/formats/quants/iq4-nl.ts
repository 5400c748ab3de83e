/**
 * iq4_nl: blocks of 32 weights in 18 bytes: d (f16), 16 bytes of nibbles (low: weights 0–15, high: 16–31).
 * Value `d·level[q]`.
 *
 * Order of operations: one product, exact in f32.
 */
import { readF16 } from './half.ts';
import { IQ4_LEVELS } from './iq4-table.ts';
import { blockFormat } from './row.ts';

export const iq4Nl = blockFormat({
  name: 'iq4_nl',
  blockSize: 32,
  blockBytes: 18,
  ggml: { id: 20, name: 'IQ4_NL' },
  decodeBlock(source, offset, out, at) {
    const levels = IQ4_LEVELS;
    const d = readF16(source, offset);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 2 + i];
      out[at + i] = d * levels[pair & 15];
      out[at + 16 + i] = d * levels[pair >> 4];
    }
  },
});
