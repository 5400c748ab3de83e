/**
 * iq1_s: blocks of 256 weights in 50 bytes: d (f16), 32 bytes (low eight bits of a row of the code book, for eight
 * weights), then for each of eight sub-blocks of 32 a u16: three high bits of its four rows from the low end, a 3-bit
 * scale at bit 12, at bit 15 the sign of delta (set: −1/8, else 1/8). Value `(d·(2·scale + 1))·(level + delta)`, the
 * level is −1, 0 or 1.
 *
 * Order of operations: d·(2·scale + 1) and level + delta, then their product; all exact in f32 (11 + 4 + 4 significant bits).
 */
import { decodeShifted, grid } from './grids.ts';
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const iq1S = blockFormat({
  name: 'iq1_s',
  blockSize: 256,
  blockBytes: 50,
  ggml: { id: 19, name: 'IQ1_S' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq1_s');
    const d = readF16(source, offset);
    for (let l = 0; l < 32; l++) {
      const word = offset + 34 + 2 * (l >> 2);
      const packed = source[word] | (source[word + 1] << 8);
      const high = (packed >> (3 * (l & 3))) & 7;
      const delta = packed & 0x8000 ? -0.125 : 0.125;
      const scale = d * (2 * ((packed >> 12) & 7) + 1);
      decodeShifted(levels, source[offset + 2 + l] | (high << 8), delta, scale, out, at + 8 * l);
    }
  },
});
