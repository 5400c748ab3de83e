/**
 * iq2_xxs: blocks of 256 weights in 66 bytes: d (f16), then for each of eight sub-blocks of 32 four bytes, rows of the
 * code book for eight weights each, and a u32 with four 7-bit signs (`evenSigns`) from the low end and a 4-bit scale on
 * top. Value `(d·(0.5 + scale)/4)·level`, with its sign.
 *
 * Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32 (11 + 5 + 6 significant bits).
 */
import { decodeSigned, evenSigns, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq2Xxs = blockFormat({
  name: 'iq2_xxs',
  blockSize: 256,
  blockBytes: 66,
  ggml: { id: 16, name: 'IQ2_XXS' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq2_xxs');
    const d = readF16(source, offset);
    for (let s = 0; s < 8; s++) {
      const rows = offset + 2 + 8 * s;
      const packed = source[rows + 4] | (source[rows + 5] << 8) | (source[rows + 6] << 16) | (source[rows + 7] << 24);
      const scale = d * ((2 * (packed >>> 28) + 1) / 8);
      for (let l = 0; l < 4; l++) {
        const signs = evenSigns((packed >> (7 * l)) & 127);
        decodeSigned(levels, source[rows + l], 8, signs, scale, out, at + 32 * s + 8 * l);
      }
    }
  },
});
