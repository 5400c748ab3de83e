// q4_0: 32 weights in 18 bytes. Value d·(q − 8).
// Order of operations: integer q − 8, then one product, exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ4_0 {
  uint8_t d[2];       // f16
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockQ4_0) == 18 && alignof(BlockQ4_0) == 1);

TANDEM_HD static inline void decode_row(const BlockQ4_0* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int i = 0; i < 16; i++) {
      const int pair = row[b].codes[i];
      out[i] = d * static_cast<float>((pair & 15) - 8);
      out[16 + i] = d * static_cast<float>((pair >> 4) - 8);
    }
  }
}

}  // namespace tandem::quant
