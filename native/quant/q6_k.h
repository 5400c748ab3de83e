// q6_k: 256 weights in 210 bytes: sixteen sub-blocks of 16. Value (d·scale)·(q − 32).
// Order of operations: d·scale, then times the integer q − 32; both exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

// Two halves of 128 weights, each four runs of 32: run r takes the low (r < 2) or high nibbles of the half's low bytes
// 32·(r & 1) … and bit pair r of its 32 high bytes.
struct BlockQ6K {
  uint8_t low[128];
  uint8_t high[64];
  int8_t scales[16];
  uint8_t d[2];  // f16
};
static_assert(sizeof(BlockQ6K) == 210 && alignof(BlockQ6K) == 1);

TANDEM_HD static inline void decode_row(const BlockQ6K* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 16; s++, out += 16) {
      const float scale = d * static_cast<float>(row[b].scales[s]);
      const int half = s >> 3;
      const int run = s >> 1 & 3;
      const int first = 16 * (s & 1);
      const uint8_t* low = row[b].low + 64 * half + 32 * (run & 1) + first;
      const uint8_t* high = row[b].high + 32 * half + first;
      for (int i = 0; i < 16; i++) {
        const int q = (low[i] >> (4 * (run >> 1)) & 15) | (high[i] >> (2 * run) & 3) << 4;
        out[i] = scale * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace tandem::quant
