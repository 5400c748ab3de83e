/**
 * mxfp4 (OCP Microscaling Formats v1.0): blocks of 32 weights in 17 bytes: an e8m0 exponent (255 is NaN), 16 bytes of
 * nibbles (low: weights 0–15, high: 16–31). Value `2^(exponent − 127)·level[q]`.
 *
 * Order of operations: one product, exact in f32 up to where it overflows to infinity.
 *
 * Encoding is the specification's rule (section 6.3): the exponent is that of the largest magnitude less 2 (the largest
 * level is 1.5·2²), each value the nearest level, ties to the even code, what is above 6 becomes 6.
 */
import { floatBits } from './half.ts';
import { blockFormat, notEncodable } from './row.ts';

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
  encodeBlock(values, at, out, offset) {
    const { exponent, codes } = encodeMxfp4(values, at);
    out[offset] = exponent;
    for (let i = 0; i < 16; i++) out[offset + 1 + i] = codes[i] | (codes[16 + i] << 4);
  },
});

/** Exponent and codes of the 32 values from `at` on. MODEL_INVALID where one is not finite. */
export function encodeMxfp4(values: Float32Array, at: number): { exponent: number; codes: Uint8Array } {
  let largest = 0;
  for (let i = at; i < at + 32; i++) largest = Math.max(largest, Math.abs(values[i])); // NaN stays NaN
  if (!Number.isFinite(largest)) throw notEncodable('mxfp4', at, 'is a power of two');
  const exponent = Math.max(((floatBits(largest) >>> 23) & 255) - 2, 0);
  const codes = new Uint8Array(32);
  for (let i = 0; i < 32; i++) {
    const value = values[at + i];
    const code = levelCode(Math.abs(value) / 2 ** (exponent - 127));
    codes[i] = code === 0 || value > 0 ? code : code | 8;
  }
  return { exponent, codes };
}

/** The code of the level nearest to a magnitude. */
function levelCode(magnitude: number): number {
  let best = 0;
  for (let code = 1; code < 8; code++) {
    const middle = (MXFP4_LEVELS[code - 1] + MXFP4_LEVELS[code]) / 2;
    if (magnitude > middle || (magnitude === middle && code % 2 === 0)) best = code;
  }
  return best;
}
