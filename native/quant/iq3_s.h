// iq3_s: 256 weights in 110 bytes: eight sub-blocks of 32. Value (d·(2·scale + 1))·level, with a sign.
// Order of operations: d·(2·scale + 1), then times the signed level; both exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq3S {
  uint8_t d[2];          // f16
  uint8_t low_rows[64];  // low eight bits of the row of the code book, for four weights
  uint8_t high_rows[8];  // bit r of byte g: ninth bit of row 8g + r
  uint8_t signs[32];     // bit j: weight j of the eight is negative
  uint8_t scales[4];     // nibble s is the scale of sub-block s
};
static_assert(sizeof(BlockIq3S) == 110 && alignof(BlockIq3S) == 1);

TANDEM_HD static inline void decode_row(const BlockIq3S* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 8; s++) {
      const float scale = d * static_cast<float>(2 * (row[b].scales[s >> 1] >> (4 * (s & 1)) & 15) + 1);
      for (int l = 0; l < 4; l++, out += 8) {
        const uint8_t* low = row[b].low_rows + 8 * s + 2 * l;
        const int high = row[b].high_rows[s] >> (2 * l);
        const uint64_t first = iq3_s_row(low[0] | (high & 1) << 8);
        const uint64_t second = iq3_s_row(low[1] | (high >> 1 & 1) << 8);
        decode_signed(first | second << 32, row[b].signs[4 * s + l], scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
