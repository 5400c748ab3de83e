// iq2_s: 256 weights in 82 bytes: sixteen sub-blocks of 16. Value (d·(0.5 + scale)/4)·level, with a sign.
// Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq2S {
  uint8_t d[2];          // f16
  uint8_t low_rows[32];  // low eight bits of the row of the code book, for eight weights
  uint8_t signs[32];     // bit j: weight j of the eight is negative
  uint8_t high_rows[8];  // bits 2l, 2l+1 of byte g: high bits of row 4g + l
  uint8_t scales[8];     // nibble s is the scale of sub-block s
};
static_assert(sizeof(BlockIq2S) == 82 && alignof(BlockIq2S) == 1);

TANDEM_HD static inline void decode_row(const BlockIq2S* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 16; s++) {
      const float scale = d * (static_cast<float>(2 * (row[b].scales[s >> 1] >> (4 * (s & 1)) & 15) + 1) * 0.125f);
      for (int l = 2 * s; l < 2 * s + 2; l++, out += 8) {
        const int high = row[b].high_rows[l >> 2] >> (2 * (l & 3)) & 3;
        decode_signed(iq2_s_row(row[b].low_rows[l] | high << 8), row[b].signs[l], scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
