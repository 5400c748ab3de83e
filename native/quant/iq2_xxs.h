// iq2_xxs: 256 weights in 66 bytes: eight sub-blocks of 32. Value (d·(0.5 + scale)/4)·level, with a sign.
// Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq2Xxs {
  uint8_t d[2];  // f16
  struct {
    uint8_t rows[4];    // rows of the code book, eight weights each
    uint8_t packed[4];  // u32: four even_signs of seven bits from the low end, scale on top
  } subs[8];
};
static_assert(sizeof(BlockIq2Xxs) == 66 && alignof(BlockIq2Xxs) == 1);

TANDEM_HD static inline void decode_row(const BlockIq2Xxs* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (const auto& sub : row[b].subs) {
      const uint32_t packed = load_u32(sub.packed);
      const float scale = d * (static_cast<float>(2 * (packed >> 28) + 1) * 0.125f);
      for (int l = 0; l < 4; l++, out += 8) {
        decode_signed(iq2_xxs_row(sub.rows[l]), even_signs(packed >> (7 * l) & 127), scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
