/**
 * iq2_s: blocks of 256 weights in 82 bytes: d (f16), 32 bytes (low eight bits of a row of the code book, for eight
 * weights), 32 bytes of sign bits, 8 bytes of high row bits (two for each row), 16 scale nibbles of sub-blocks of 16,
 * low first. Value `(d·(0.5 + scale)/4)·level`, with its sign.
 *
 * Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32 (11 + 5 + 6 significant bits).
 */
import { decodeSigned, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq2S = blockFormat({
  name: 'iq2_s',
  blockSize: 256,
  blockBytes: 82,
  ggml: { id: 22, name: 'IQ2_S' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq2_s');
    const d = readF16(source, offset);
    for (let l = 0; l < 32; l++) {
      const high = (source[offset + 66 + (l >> 2)] >> (2 * (l & 3))) & 3;
      const nibble = (source[offset + 74 + (l >> 2)] >> (2 * (l & 2))) & 15;
      const scale = d * ((2 * nibble + 1) / 8);
      const signs = source[offset + 34 + l];
      decodeSigned(levels, source[offset + 2 + l] | (high << 8), 8, signs, scale, out, at + 8 * l);
    }
  },
});
