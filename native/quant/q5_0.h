// q5_0: 32 weights in 22 bytes. Value d·(q − 16).
// Order of operations: integer q − 16, then one product, exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ5_0 {
  uint8_t d[2];       // f16
  uint8_t high[4];    // u32: bit i is the fifth bit of weight i
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockQ5_0) == 22 && alignof(BlockQ5_0) == 1);

TANDEM_HD static inline void decode_row(const BlockQ5_0* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const uint32_t high = load_u32(row[b].high);
    for (int i = 0; i < 16; i++) {
      const int pair = row[b].codes[i];
      const int low_q = (pair & 15) | static_cast<int>(high >> i & 1) << 4;
      const int high_q = pair >> 4 | static_cast<int>(high >> (16 + i) & 1) << 4;
      out[i] = d * static_cast<float>(low_q - 16);
      out[16 + i] = d * static_cast<float>(high_q - 16);
    }
  }
}

}  // namespace tandem::quant
