/**
 * iq3_s: blocks of 256 weights in 110 bytes: d (f16), 64 bytes (low eight bits of a row of the code book, for four
 * weights), 8 bytes of ninth bits, 32 bytes of sign bits, 8 scale nibbles of sub-blocks of 32, low first.
 * Value `(d·(2·scale + 1))·level`, with its sign.
 *
 * Order of operations: d·(2·scale + 1), then times the signed level; both exact in f32 (11 + 5 + 4 significant bits).
 */
import { decodeSigned, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq3S = blockFormat({
  name: 'iq3_s',
  blockSize: 256,
  blockBytes: 110,
  ggml: { id: 21, name: 'IQ3_S' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq3_s');
    const d = readF16(source, offset);
    for (let r = 0; r < 64; r++) {
      const high = (source[offset + 66 + (r >> 3)] >> (r & 7)) & 1;
      const signs = source[offset + 74 + (r >> 1)] >> (4 * (r & 1));
      const nibble = (source[offset + 106 + (r >> 4)] >> ((r >> 1) & 4)) & 15;
      decodeSigned(levels, source[offset + 2 + r] | (high << 8), 4, signs, d * (2 * nibble + 1), out, at + 4 * r);
    }
  },
});
