// int4_g32: compressed-tensors `pack-quantized`, 4 bits, groups of 32, symmetric. Eight nibbles a little-endian int32, the
// first lowest; one bf16 scale per 32 weights in a tensor of its own. Value (q − 8)·scale.
// Order of operations: one product, exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockInt4G32 {
  uint8_t codes[16];  // weight 2i in the low nibble of byte i
};
static_assert(sizeof(BlockInt4G32) == 16 && alignof(BlockInt4G32) == 1);

// `scales`: two bytes each, aligned to nothing.
TANDEM_HD static inline void decode_row(const BlockInt4G32* row, float* out, int64_t k, const uint8_t* scales) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float scale = bf16_to_f32(load_u16(scales + 2 * b));
    for (int i = 0; i < 16; i++) {
      out[2 * i] = scale * static_cast<float>((row[b].codes[i] & 15) - 8);
      out[2 * i + 1] = scale * static_cast<float>((row[b].codes[i] >> 4) - 8);
    }
  }
}

}  // namespace tandem::quant
