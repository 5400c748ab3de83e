// iq4_xs: 256 weights in 136 bytes: eight sub-blocks of 32. Value (d·scale)·level[q].
// Order of operations: d·scale, then times the level; both exact in f32.
#pragma once

#include "iq4_nl.h"

namespace tandem::quant {

struct BlockIq4Xs {
  uint8_t d[2];            // f16
  uint8_t high_scales[2];  // u16: bits 2s, 2s+1 are the high bits of scale s
  uint8_t low_scales[4];   // nibble s is the low bits of scale s
  uint8_t codes[128];      // 16 bytes a sub-block; low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockIq4Xs) == 136 && alignof(BlockIq4Xs) == 1);

// Scale of sub-block s, −32 … 31.
TANDEM_HD static inline int iq4_xs_scale(const BlockIq4Xs& block, int s) {
  const int low = block.low_scales[s >> 1] >> (4 * (s & 1)) & 15;
  const int high = load_u16(block.high_scales) >> (2 * s) & 3;
  return (low | high << 4) - 32;
}

TANDEM_HD static inline void decode_row(const BlockIq4Xs* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 8; s++, out += 32) {
      const float scale = d * static_cast<float>(iq4_xs_scale(row[b], s));
      const uint8_t* codes = row[b].codes + 16 * s;
      for (int i = 0; i < 16; i++) {
        out[i] = scale * iq4_level(codes[i] & 15);
        out[16 + i] = scale * iq4_level(codes[i] >> 4);
      }
    }
  }
}

}  // namespace tandem::quant
