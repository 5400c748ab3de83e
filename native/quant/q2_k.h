// q2_k: 256 weights in 84 bytes: sixteen sub-blocks of 16. Value (d·scale)·q − dmin·min.
// Order of operations: d·scale, times q, dmin·min (all exact in f32), then the difference, one rounding.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ2K {
  uint8_t scales[16];  // low nibble: scale of the sub-block, high: min
  uint8_t codes[64];   // each 32 bytes hold 128 weights: bits 0–1 the first 32, 2–3 the next …
  uint8_t d[2];        // f16
  uint8_t dmin[2];     // f16
};
static_assert(sizeof(BlockQ2K) == 84 && alignof(BlockQ2K) == 1);

TANDEM_HD static inline void decode_row(const BlockQ2K* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const float dmin = f16_to_f32(load_u16(row[b].dmin));
    for (int s = 0; s < 16; s++, out += 16) {
      const float scale = d * static_cast<float>(row[b].scales[s] & 15);
      const float min = dmin * static_cast<float>(row[b].scales[s] >> 4);
      const uint8_t* codes = row[b].codes + 32 * (s >> 3) + 16 * (s & 1);
      const int shift = 2 * (s >> 1 & 3);
      for (int i = 0; i < 16; i++) out[i] = scale * static_cast<float>(codes[i] >> shift & 3) - min;
    }
  }
}

}  // namespace tandem::quant
