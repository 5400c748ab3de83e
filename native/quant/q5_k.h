// q5_k: 256 weights in 176 bytes: eight sub-blocks of 32. Value (d·scale)·q − dmin·min.
// Order of operations: d·scale, times q, dmin·min (all exact in f32), then the difference, one rounding.
#pragma once

#include "k_scales.h"

namespace tandem::quant {

struct BlockQ5K {
  uint8_t d[2];        // f16
  uint8_t dmin[2];     // f16
  uint8_t scales[12];  // k_scale, k_min
  uint8_t high[32];    // bit s of byte i is the fifth bit of weight i in sub-block s
  uint8_t codes[128];  // each 32 bytes: low nibbles are sub-block 2g, high 2g+1
};
static_assert(sizeof(BlockQ5K) == 176 && alignof(BlockQ5K) == 1);

TANDEM_HD static inline void decode_row(const BlockQ5K* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const float dmin = f16_to_f32(load_u16(row[b].dmin));
    for (int s = 0; s < 8; s++, out += 32) {
      const float scale = d * static_cast<float>(k_scale(row[b].scales, s));
      const float min = dmin * static_cast<float>(k_min(row[b].scales, s));
      const uint8_t* codes = row[b].codes + 32 * (s >> 1);
      const int shift = 4 * (s & 1);
      for (int i = 0; i < 32; i++) {
        const int q = (codes[i] >> shift & 15) | (row[b].high[i] >> s & 1) << 4;
        out[i] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

}  // namespace tandem::quant
