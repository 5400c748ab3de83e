/**
 * mxfp4_g32: MXFP4 as gpt-oss's own files have it, blocks and scales apart. 32 weights in 16 bytes of nibbles, weight 2i
 * the low nibble of byte i (unlike `mxfp4`); one e8m0 scale per 32 weights in a tensor of its own. Value
 * `2^(scale − 127)·level[q]`.
 *
 * Order of operations: one product, exact in f32 up to where it overflows to infinity. Encoding is that of `mxfp4`.
 */
import { encodeMxfp4, MXFP4_LEVELS } from './mxfp4.ts';
import { nibblesWithScales } from './row.ts';

export const mxfp4G32 = nibblesWithScales({
  name: 'mxfp4_g32',
  type: 'e8m0',
  levels: MXFP4_LEVELS,
  encode(values, at) {
    const { codes, exponent } = encodeMxfp4(values, at);
    return { codes, scale: [exponent] };
  },
});
