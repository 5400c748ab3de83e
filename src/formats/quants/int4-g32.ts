/**
 * int4_g32 (compressed-tensors `pack-quantized`, num_bits 4, group_size 32, symmetric: Kimi-K2-Thinking): eight nibbles a
 * little-endian int32, weight 0 lowest, so weight 2i is the low nibble of byte i. One bf16 scale per 32 weights in a
 * tensor of its own. Value `(q − 8)·scale`.
 *
 * Order of operations: one product, exact in f32.
 */
import { nibblesWithScales } from './row.ts';

export const int4G32 = nibblesWithScales(
  'int4_g32',
  'bf16',
  Float32Array.from({ length: 16 }, (_, code) => code - 8),
);
