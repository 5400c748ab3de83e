/**
 * mxfp4 (OCP Microscaling Formats v1.0): blocks of 32 weights in 17 bytes: an e8m0 exponent (255 is NaN), 16 bytes of
 * nibbles (low: weights 0–15, high: 16–31). Value `2^(exponent − 127)·level[q]`.
 *
 * Order of operations: one product, exact in f32 up to where it overflows to infinity.
 */
import { blockFormat } from './row.ts';

/** The sixteen e2m1 levels in code order, but for code 8: as in ggml its zero is positive. */
export const MXFP4_LEVELS = new Float32Array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6]);

export const mxfp4 = blockFormat({
  name: 'mxfp4',
  blockSize: 32,
  blockBytes: 17,
  ggml: { id: 39, name: 'MXFP4' },
  decodeBlock(source, offset, out, at) {
    const exponent = source[offset];
    const scale = exponent === 255 ? Number.NaN : 2 ** (exponent - 127);
    for (let i = 0; i < 16; i++) {
      const pair = source[offset + 1 + i];
      out[at + i] = scale * MXFP4_LEVELS[pair & 15];
      out[at + 16 + i] = scale * MXFP4_LEVELS[pair >> 4];
    }
  },
});
