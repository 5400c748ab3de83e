/**
 * iq1_m: blocks of 256 weights in 56 bytes: 32 bytes (low eight bits of a row of the code book of iq1_s, for eight
 * weights), 32 nibbles (three high bits of the row, then the sign of its delta: set −1/8, else 1/8), 4 × u16 with four
 * 3-bit scales of sub-blocks of 16 each. The top nibbles of the four u16 are d (f16), the first one its lowest.
 * Value `(d·(2·scale + 1))·(level + delta)`, the level is −1, 0 or 1.
 *
 * Order of operations: d·(2·scale + 1) and level + delta, then their product; all exact in f32 (11 + 4 + 4 significant bits).
 */
import { decodeShifted, grid } from './grids.ts';
import { F16_VALUES } from './half.ts';
import { blockFormat } from './row.ts';

export const iq1M = blockFormat({
  name: 'iq1_m',
  blockSize: 256,
  blockBytes: 56,
  ggml: { id: 29, name: 'IQ1_M' },
  decodeBlock(source, offset, out, at) {
    const levels = grid('iq1_s');
    const scales = offset + 48;
    let half = 0;
    for (let i = 0; i < 4; i++) half |= (source[scales + 2 * i + 1] >> 4) << (4 * i);
    const d = F16_VALUES[half];
    for (let l = 0; l < 32; l++) {
      const sub = l >> 1;
      const word = scales + 2 * (sub >> 2);
      const packed = source[word] | (source[word + 1] << 8);
      const scale = d * (2 * ((packed >> (3 * (sub & 3))) & 7) + 1);
      const high = source[offset + 32 + sub] >> (4 * (l & 1));
      const delta = high & 8 ? -0.125 : 0.125;
      decodeShifted(levels, source[offset + l] | ((high & 7) << 8), delta, scale, out, at + 8 * l);
    }
  },
});
