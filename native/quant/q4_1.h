// q4_1: 32 weights in 20 bytes. Value d·q + m.
// Order of operations: the product (exact in f32), then the sum, one rounding.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ4_1 {
  uint8_t d[2];       // f16
  uint8_t m[2];       // f16
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockQ4_1) == 20 && alignof(BlockQ4_1) == 1);

TANDEM_HD static inline void decode_row(const BlockQ4_1* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const float m = f16_to_f32(load_u16(row[b].m));
    for (int i = 0; i < 16; i++) {
      const int pair = row[b].codes[i];
      out[i] = d * static_cast<float>(pair & 15) + m;
      out[16 + i] = d * static_cast<float>(pair >> 4) + m;
    }
  }
}

}  // namespace tandem::quant
