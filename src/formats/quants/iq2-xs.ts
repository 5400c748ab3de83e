/**
 * iq2_xs: blocks of 256 weights in 74 bytes: d (f16), 32 × u16 for eight weights each (nine bits row of the code book,
 * seven bits signs, see `evenSigns`), 16 scale nibbles of sub-blocks of 16, low first.
 * Value `(d·(0.5 + scale)/4)·level`, with its sign.
 *
 * Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32 (11 + 5 + 6 significant bits).
 */
import { decodeSigned, evenSigns, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq2Xs = blockFormat({
  name: 'iq2_xs',
  blockSize: 256,
  blockBytes: 74,
  ggml: { id: 17, name: 'IQ2_XS' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq2_xs');
    const d = readF16(source, offset);
    for (let l = 0; l < 32; l++) {
      const code = source[offset + 2 + 2 * l] | (source[offset + 3 + 2 * l] << 8);
      const nibble = (source[offset + 66 + (l >> 2)] >> (2 * (l & 2))) & 15;
      const scale = d * ((2 * nibble + 1) / 8);
      decodeSigned(levels, code & 511, 8, evenSigns(code >> 9), scale, out, at + 8 * l);
    }
  },
});
