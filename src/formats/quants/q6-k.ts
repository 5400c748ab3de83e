/**
 * q6_k: blocks of 256 weights in 210 bytes: 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 i8 scales, d (f16).
 * Two halves of 128 weights, each four runs of 32: run r takes the low (r < 2) or high nibbles of bytes 32·(r & 1) … and
 * bit pair r of the half's 32 high bytes. Value `(d·scale)·(q − 32)`, a scale for every 16 weights.
 *
 * Order of operations: d·scale, then times the integer q − 32; both exact in f32.
 */
import { readF16 } from './half.ts';
import { blockFormat } from './row.ts';

export const q6K = blockFormat({
  name: 'q6_k',
  blockSize: 256,
  blockBytes: 210,
  ggml: { id: 14, name: 'Q6_K' },
  decodeBlock(source, offset, out, at) {
    const d = readF16(source, offset + 208);
    for (let s = 0; s < 16; s++) {
      const scale = d * ((source[offset + 192 + s] << 24) >> 24);
      const half = s >> 3;
      const run = (s >> 1) & 3;
      const first = 16 * (s & 1);
      const low = offset + 64 * half + 32 * (run & 1) + first;
      const lowShift = 4 * (run >> 1);
      const high = offset + 128 + 32 * half + first;
      const highShift = 2 * run;
      const to = at + 16 * s;
      for (let i = 0; i < 16; i++) {
        const q = ((source[low + i] >> lowShift) & 15) | (((source[high + i] >> highShift) & 3) << 4);
        out[to + i] = scale * (q - 32);
      }
    }
  },
});
