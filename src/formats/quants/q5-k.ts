/**
 * q5_k: blocks of 256 weights in 176 bytes: d, dmin (f16), 12 bytes of scales and mins, 32 bytes of fifth bits (bit s of
 * byte i is weight i of sub-block s), 128 bytes of nibbles as in q4_k. Value `(d·scale)·q − dmin·min`.
 *
 * Order of operations: d·scale, times q, dmin·min (all exact in f32: 11 + 6 + 5 bits), then the difference, one rounding.
 */
import { readF16 } from './half.ts';
import { kMin, kScale } from './k-scales.ts';
import { blockFormat } from './row.ts';

export const q5K = blockFormat({
  name: 'q5_k',
  blockSize: 256,
  blockBytes: 176,
  ggml: { id: 13, name: 'Q5_K' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    const dmin = readF16(source, offset + 2);
    for (let s = 0; s < 8; s++) {
      const scale = d * kScale(source, offset + 4, s);
      const min = dmin * kMin(source, offset + 4, s);
      const high = offset + 16;
      const codes = offset + 48 + 32 * (s >> 1);
      const shift = 4 * (s & 1);
      const to = at + 32 * s;
      for (let i = 0; i < 32; i++) {
        const q = ((source[codes + i] >> shift) & 15) | (((source[high + i] >> s) & 1) << 4);
        out[to + i] = scale * q - min;
      }
    }
  },
});
