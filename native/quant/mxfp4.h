// mxfp4: 32 weights in 17 bytes (OCP Microscaling Formats v1.0). Value 2^(exponent − 127)·level[q].
// Order of operations: one product, exact in f32 up to where it overflows to infinity.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockMxfp4 {
  uint8_t exponent;   // e8m0: 0 … 254; 255 is NaN
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockMxfp4) == 17 && alignof(BlockMxfp4) == 1);

TANDEM_HD static inline float e8m0_to_f32(uint8_t exponent) {
  if (exponent == 0) return bits_float(0x00400000u);  // 2^-127, subnormal
  return bits_float(exponent == 255 ? 0x7fc00000u : static_cast<uint32_t>(exponent) << 23);
}

// The sixteen e2m1 levels, but for code 8: as in ggml its zero is positive. Local so that device code may index it.
TANDEM_HD static inline float mxfp4_level(int code) {
  constexpr int8_t halves[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return static_cast<float>(halves[code]) * 0.5f;
}

TANDEM_HD static inline void decode_row(const BlockMxfp4* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float scale = e8m0_to_f32(row[b].exponent);
    for (int i = 0; i < 16; i++) {
      out[i] = scale * mxfp4_level(row[b].codes[i] & 15);
      out[16 + i] = scale * mxfp4_level(row[b].codes[i] >> 4);
    }
  }
}

}  // namespace tandem::quant
