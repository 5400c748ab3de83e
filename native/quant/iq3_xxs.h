// iq3_xxs: 256 weights in 98 bytes: eight sub-blocks of 32. Value (d·(0.5 + scale)/2)·level, with a sign.
// Order of operations: d·((2·scale + 1)/4), then times the signed level; both exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq3Xxs {
  uint8_t d[2];          // f16
  uint8_t rows[64];      // rows of the code book, four weights each
  uint8_t packed[8][4];  // u32 per sub-block: four even_signs of seven bits from the low end, scale on top
};
static_assert(sizeof(BlockIq3Xxs) == 98 && alignof(BlockIq3Xxs) == 1);

TANDEM_HD static inline void decode_row(const BlockIq3Xxs* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    const uint8_t* rows = row[b].rows;
    for (int s = 0; s < 8; s++) {
      const uint32_t packed = load_u32(row[b].packed[s]);
      const float scale = d * (static_cast<float>(2 * (packed >> 28) + 1) * 0.25f);
      for (int l = 0; l < 4; l++, out += 8, rows += 2) {
        const uint64_t levels = iq3_xxs_row(rows[0]) | static_cast<uint64_t>(iq3_xxs_row(rows[1])) << 32;
        decode_signed(levels, even_signs(packed >> (7 * l) & 127), scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
