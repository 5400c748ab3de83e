/**
 * q4_k: blocks of 256 weights in 144 bytes: d, dmin (f16), 12 bytes of scales and mins, 128 bytes of nibbles.
 * Eight sub-blocks of 32 with a six-bit scale and min; each 32 code bytes hold sub-block 2g (low nibbles) and 2g+1 (high).
 * Value `(d·scale)·q − dmin·min`.
 *
 * Order of operations: d·scale, times q, dmin·min (all exact in f32: 11 + 6 + 4 bits), then the difference, one rounding.
 */
import { readF16 } from './half.ts';
import { kMin, kScale } from './k-scales.ts';
import { blockFormat } from './row.ts';

export const q4K = blockFormat({
  name: 'q4_k',
  blockSize: 256,
  blockBytes: 144,
  ggml: { id: 12, name: 'Q4_K' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset);
    const dmin = readF16(source, offset + 2);
    for (let s = 0; s < 8; s++) {
      const scale = d * kScale(source, offset + 4, s);
      const min = dmin * kMin(source, offset + 4, s);
      const codes = offset + 16 + 32 * (s >> 1);
      const shift = 4 * (s & 1);
      const to = at + 32 * s;
      for (let i = 0; i < 32; i++) out[to + i] = scale * ((source[codes + i] >> shift) & 15) - min;
    }
  },
});
