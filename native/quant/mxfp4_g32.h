// mxfp4_g32: MXFP4 as gpt-oss's own files have it, blocks and scales apart. 32 weights in 16 bytes of nibbles; one e8m0
// scale per 32 weights in a tensor of its own. Value 2^(scale − 127)·level[q].
// Order of operations: one product, exact in f32 up to where it overflows to infinity.
#pragma once

#include "mxfp4.h"

namespace tandem::quant {

struct BlockMxfp4G32 {
  uint8_t codes[16];  // weight 2i in the low nibble of byte i (unlike BlockMxfp4)
};
static_assert(sizeof(BlockMxfp4G32) == 16 && alignof(BlockMxfp4G32) == 1);

TANDEM_HD static inline void decode_row(const BlockMxfp4G32* row, float* out, int64_t k, const uint8_t* scales) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float scale = e8m0_to_f32(scales[b]);
    for (int i = 0; i < 16; i++) {
      out[2 * i] = scale * mxfp4_level(row[b].codes[i] & 15);
      out[2 * i + 1] = scale * mxfp4_level(row[b].codes[i] >> 4);
    }
  }
}

}  // namespace tandem::quant
