// iq1_m: 256 weights in 56 bytes: sixteen sub-blocks of 16. Value (d·(2·scale + 1))·(level ± 1/8), level −1, 0 or 1.
// Order of operations: d·(2·scale + 1) and level ± 1/8, then their product; all exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq1M {
  uint8_t low_rows[32];   // low eight bits of the row of the code book of iq1_s, for eight weights
  uint8_t high_rows[16];  // nibble l: three high bits of row l, minus bit of its 1/8
  uint8_t scales[4][2];   // u16: four 3-bit scales from the low end; the top nibbles are d, the first one its lowest
};
static_assert(sizeof(BlockIq1M) == 56 && alignof(BlockIq1M) == 1);

// The bits of d, an f16.
TANDEM_HD static inline uint16_t iq1_m_half(const BlockIq1M& block) {
  uint32_t half = 0;
  for (int i = 0; i < 4; i++) half |= static_cast<uint32_t>(block.scales[i][1] >> 4) << (4 * i);
  return static_cast<uint16_t>(half);
}

TANDEM_HD static inline void decode_row(const BlockIq1M* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(iq1_m_half(row[b]));
    for (int s = 0; s < 16; s++) {
      const float scale = d * static_cast<float>(2 * (load_u16(row[b].scales[s >> 2]) >> (3 * (s & 3)) & 7) + 1);
      for (int l = 2 * s; l < 2 * s + 2; l++, out += 8) {
        const int high = row[b].high_rows[s] >> (4 * (l & 1));
        const float delta = high & 8 ? -0.125f : 0.125f;
        decode_shifted(iq1_s_row(row[b].low_rows[l] | (high & 7) << 8), delta, scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
