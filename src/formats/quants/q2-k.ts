/**
 * q2_k: blocks of 256 weights in 84 bytes: 16 bytes with a four-bit scale (low) and min (high) per sub-block of 16,
 * 64 bytes of two-bit codes, d, dmin (f16). Each 32 code bytes hold 128 weights: bits 0–1 the first 32, 2–3 the next …
 * Value `(d·scale)·q − dmin·min`.
 *
 * Order of operations: d·scale, times q, dmin·min (all exact in f32), then the difference, one rounding.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q2K = blockFormat({
  name: 'q2_k',
  blockSize: 256,
  blockBytes: 84,
  ggml: { id: 10, name: 'Q2_K' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset + 80);
    const dmin = readF16(source, offset + 82);
    for (let s = 0; s < 16; s++) {
      const packed = source[offset + s];
      const scale = d * (packed & 15);
      const min = dmin * (packed >> 4);
      const codes = offset + 16 + 32 * (s >> 3) + 16 * (s & 1);
      const shift = 2 * ((s >> 1) & 3);
      const to = at + 16 * s;
      for (let i = 0; i < 16; i++) out[to + i] = scale * ((source[codes + i] >> shift) & 3) - min;
    }
  },
});
