// q8_0: 32 weights in 34 bytes. Value d·q.
// Order of operations: one product, exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ8_0 {
  uint8_t d[2];  // f16
  int8_t codes[32];
};
static_assert(sizeof(BlockQ8_0) == 34 && alignof(BlockQ8_0) == 1);

TANDEM_HD static inline void decode_row(const BlockQ8_0* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int i = 0; i < 32; i++) out[i] = d * static_cast<float>(row[b].codes[i]);
  }
}

}  // namespace tandem::quant
