// iq2_xs: 256 weights in 74 bytes: sixteen sub-blocks of 16. Value (d·(0.5 + scale)/4)·level, with a sign.
// Order of operations: d·((2·scale + 1)/8), then times the signed level; both exact in f32.
#pragma once

#include "grids.h"

namespace tandem::quant {

struct BlockIq2Xs {
  uint8_t d[2];          // f16
  uint8_t codes[32][2];  // u16 for eight weights: nine bits row of the code book, seven bits even_signs
  uint8_t scales[8];     // nibble s is the scale of sub-block s
};
static_assert(sizeof(BlockIq2Xs) == 74 && alignof(BlockIq2Xs) == 1);

TANDEM_HD static inline void decode_row(const BlockIq2Xs* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 16; s++) {
      const float scale = d * (static_cast<float>(2 * (row[b].scales[s >> 1] >> (4 * (s & 1)) & 15) + 1) * 0.125f);
      for (int l = 2 * s; l < 2 * s + 2; l++, out += 8) {
        const uint32_t code = load_u16(row[b].codes[l]);
        decode_signed(iq2_xs_row(static_cast<int>(code & 511)), even_signs(code >> 9), scale, out);
      }
    }
  }
}

}  // namespace tandem::quant
