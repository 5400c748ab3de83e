// iq1_s: 256 weights in 50 bytes: eight sub-blocks of 32. Value (d·(2·scale + 1))·(level ± 1/8), level −1, 0 or 1.
// Order of operations: d·(2·scale + 1) and level ± 1/8, then their product; all exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq1S {
  uint8_t d[2];          // f16
  uint8_t low_rows[32];  // low eight bits of the row of the code book, for eight weights
  uint8_t packed[8][2];  // u16 per sub-block: four times three high bits from the low end, 3-bit scale, minus bit of 1/8
};
static_assert(sizeof(BlockIq1S) == 50 && alignof(BlockIq1S) == 1);

TANDEM_HD static inline void decode_row(const BlockIq1S* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 8; s++) {
      const int packed = load_u16(row[b].packed[s]);
      const float scale = d * static_cast<float>(2 * (packed >> 12 & 7) + 1);
      const float delta = packed & 0x8000 ? -0.125f : 0.125f;
      for (int l = 0; l < 4; l++, out += 8) {
        const int high = packed >> (3 * l) & 7;
        decode_shifted(iq1_s_row(row[b].low_rows[4 * s + l] | high << 8), delta, scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
