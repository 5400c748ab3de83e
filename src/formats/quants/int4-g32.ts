/**
 * int4_g32 (compressed-tensors `pack-quantized`, num_bits 4, group_size 32, symmetric: Kimi-K2-Thinking): eight nibbles a
 * little-endian int32, weight 0 lowest, so weight 2i is the low nibble of byte i. One bf16 scale per 32 weights in a
 * tensor of its own. Value `(q − 8)·scale`.
 *
 * Order of operations: one product, exact in f32. Encoding: the scale is a seventh of the largest magnitude, each value
 * the nearest step, ties to even.
 */
import { f32BitsToBf16, floatBits } from './half.ts';
import { nibblesWithScales, notEncodable } from './row.ts';
import { decodeScales } from './scales.ts';

/** Adding and taking away 1.5·2^52 leaves no room for a fraction: f64 rounds it half to even. */
const ROUNDER = 1.5 * 2 ** 52;

export const int4G32 = nibblesWithScales({
  name: 'int4_g32',
  type: 'bf16',
  levels: Float32Array.from({ length: 16 }, (_, code) => code - 8),
  encode(values, at) {
    let largest = 0;
    for (let i = at; i < at + 32; i++) largest = Math.max(largest, Math.abs(values[i])); // NaN stays NaN
    const bits = f32BitsToBf16(floatBits(largest / 7));
    const bytes = [bits & 255, bits >> 8];
    const [scale] = decodeScales('bf16', Uint8Array.from(bytes));
    if (!Number.isFinite(scale)) throw notEncodable('int4_g32', at, 'fits a bf16');
    const codes = new Uint8Array(32).fill(8);
    if (scale > 0)
      for (let i = 0; i < 32; i++) {
        const step = values[at + i] / scale + ROUNDER - ROUNDER;
        codes[i] = 8 + Math.max(-8, Math.min(7, step));
      }
    return { codes, scale: bytes };
  },
});
