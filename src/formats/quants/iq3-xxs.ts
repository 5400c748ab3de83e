/**
 * iq3_xxs: blocks of 256 weights in 98 bytes: d (f16), 64 bytes (rows of the code book, four weights each), then for each
 * of eight sub-blocks of 32 a u32 with four 7-bit signs of eight weights (`evenSigns`) from the low end and a 4-bit scale
 * on top. Value `(d·(0.5 + scale)/2)·level`, with its sign.
 *
 * Order of operations: d·((2·scale + 1)/4), then times the signed level; both exact in f32 (11 + 5 + 5 significant bits).
 */
import { decodeSigned, evenSigns, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq3Xxs = blockFormat({
  name: 'iq3_xxs',
  blockSize: 256,
  blockBytes: 98,
  ggml: { id: 18, name: 'IQ3_XXS' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq3_xxs');
    const d = readF16(source, offset);
    for (let s = 0; s < 8; s++) {
      const word = offset + 66 + 4 * s;
      const packed = source[word] | (source[word + 1] << 8) | (source[word + 2] << 16) | (source[word + 3] << 24);
      const scale = d * ((2 * (packed >>> 28) + 1) / 4);
      for (let l = 0; l < 4; l++) {
        const signs = evenSigns((packed >> (7 * l)) & 127);
        const rows = offset + 2 + 8 * s + 2 * l;
        const to = at + 32 * s + 8 * l;
        decodeSigned(levels, source[rows], 4, signs, scale, out, to);
        decodeSigned(levels, source[rows + 1], 4, signs >> 4, scale, out, to + 4);
      }
    }
  },
});
