/**
 * iq4_xs: blocks of 256 weights in 136 bytes: d (f16), u16 of high scale bits, 4 bytes of low scale nibbles, 128 bytes
 * of nibbles. Eight sub-blocks of 32, each 16 bytes (low: weights 0–15, high: 16–31), with a six-bit scale minus 32.
 * Value `(d·scale)·level[q]`.
 *
 * Order of operations: d·scale, then times the level; both exact in f32 (11 + 5 + 7 significant bits).
 */
import { readF16 } from './half.ts';
import { IQ4_LEVELS } from './iq4-table.ts';
import { blockFormat } from './row.ts';

export const iq4Xs = blockFormat({
  name: 'iq4_xs',
  blockSize: 256,
  blockBytes: 136,
  ggml: { id: 23, name: 'IQ4_XS' },
  decodeBlock(source, offset, out, at) {
    const levels = IQ4_LEVELS;
    const d = readF16(source, offset);
    const highScales = source[offset + 2] | (source[offset + 3] << 8);
    for (let s = 0; s < 8; s++) {
      const low = (source[offset + 4 + (s >> 1)] >> (4 * (s & 1))) & 15;
      const scale = d * ((low | (((highScales >> (2 * s)) & 3) << 4)) - 32);
      const codes = offset + 8 + 16 * s;
      const to = at + 32 * s;
      for (let i = 0; i < 16; i++) {
        out[to + i] = scale * levels[source[codes + i] & 15];
        out[to + 16 + i] = scale * levels[source[codes + i] >> 4];
      }
    }
  },
});
