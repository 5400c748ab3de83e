// q5_1: 32 weights in 24 bytes. Value d·q + m.
// Order of operations: the product (exact in f32), then the sum, one rounding.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ5_1 {
  uint8_t d[2];       // f16
  uint8_t m[2];       // f16
  uint8_t high[4];    // u32: bit i is the fifth bit of weight i
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockQ5_1) == 24 && alignof(BlockQ5_1) == 1);

TANDEM_HD static inline void decode_row(const BlockQ5_1* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const float m = f16_to_f32(load_u16(row[b].m));
    const uint32_t high = load_u32(row[b].high);
    for (int i = 0; i < 16; i++) {
      const int pair = row[b].codes[i];
      const int low_q = (pair & 15) | static_cast<int>(high >> i & 1) << 4;
      const int high_q = pair >> 4 | static_cast<int>(high >> (16 + i) & 1) << 4;
      out[i] = d * static_cast<float>(low_q) + m;
      out[16 + i] = d * static_cast<float>(high_q) + m;
    }
  }
}

}  // namespace tandem::quant
