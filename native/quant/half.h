// Small floats in bits: IEEE half (f16), bfloat16 and the e4m3 of FP8 checkpoints, to and from f32. Scalar and exact,
// rounding to nearest even; NaN stays NaN. The same code as src/formats/quants/half.ts.
//
// Everything in this folder is `static inline`: files compiled with different instruction sets include it, and the
// linker must not give one file the code of another.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef TANDEM_HD
#ifdef __CUDACC__
#define TANDEM_HD __host__ __device__
#else
#define TANDEM_HD
#endif
#endif

namespace tandem::quant {

TANDEM_HD static inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

TANDEM_HD static inline float bits_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

// Little-endian loads from bytes of any alignment.
TANDEM_HD static inline uint16_t load_u16(const uint8_t* bytes) {
  return static_cast<uint16_t>(bytes[0] | bytes[1] << 8);
}

TANDEM_HD static inline uint32_t load_u32(const uint8_t* bytes) {
  return load_u16(bytes) | static_cast<uint32_t>(load_u16(bytes + 2)) << 16;
}

// A subnormal half is a normal f32, so flush-to-zero modes do not matter. NaN keeps sign and payload.
TANDEM_HD static inline float f16_to_f32(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = half >> 10 & 31;
  const uint32_t mantissa = half & 0x3ff;
  if (exponent == 31) return bits_float(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return bits_float(sign | (exponent + 112) << 23 | mantissa << 13);
  return bits_float(sign | float_bits(static_cast<float>(mantissa) * 0x1p-24f));
}

// 65520 and more become infinite; NaN keeps its sign and upper payload, quiet.
TANDEM_HD static inline uint16_t f32_to_f16(float value) {
  const uint32_t bits = float_bits(value);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
  if (magnitude >= 0x477ff000) return static_cast<uint16_t>(sign | 0x7c00);
  if (magnitude >= 0x38800000) {
    const uint32_t rebiased = magnitude - 0x38000000;
    return static_cast<uint16_t>(sign | (rebiased + 0xfff + (rebiased >> 13 & 1)) >> 13);
  }
  if (magnitude <= 0x33000000) return static_cast<uint16_t>(sign);  // up to 2^-25, half of the least subnormal
  const uint32_t shift = 126 - (magnitude >> 23);  // 14 … 24: how many bits fall below the least subnormal
  const uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
  const uint32_t kept = mantissa >> shift;
  const uint32_t rest = mantissa & ((1u << shift) - 1);
  const uint32_t middle = 1u << (shift - 1);
  const bool up = rest > middle || (rest == middle && (kept & 1));
  return static_cast<uint16_t>(sign | (up ? kept + 1 : kept));
}

TANDEM_HD static inline float bf16_to_f32(uint16_t half) { return bits_float(static_cast<uint32_t>(half) << 16); }

TANDEM_HD static inline uint16_t f32_to_bf16(float value) {
  const uint32_t bits = float_bits(value);
  if ((bits & 0x7fffffff) > 0x7f800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

// The "fn" variant (arXiv 2209.05433): sign, 4 exponent bits with bias 7, 3 mantissa bits; exponent 0 is subnormal;
// no infinities; 0x7f and 0xff are NaN; largest 448.
TANDEM_HD static inline float e4m3_to_f32(uint8_t code) {
  const uint32_t sign = static_cast<uint32_t>(code & 0x80) << 24;
  const uint32_t magnitude = code & 0x7f;
  if (magnitude == 0x7f) return bits_float(sign | 0x7fc00000u);
  if (magnitude >= 8) return bits_float(sign | ((magnitude << 20) + (120u << 23)));
  return bits_float(sign | float_bits(static_cast<float>(magnitude) * 0x1p-9f));
}

}  // namespace tandem::quant
