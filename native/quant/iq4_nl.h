// iq4_nl: 32 weights in 18 bytes. Value d·level[q].
// Order of operations: one product, exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockIq4Nl {
  uint8_t d[2];       // f16
  uint8_t codes[16];  // low nibbles: weights 0–15, high: 16–31
};
static_assert(sizeof(BlockIq4Nl) == 18 && alignof(BlockIq4Nl) == 1);

// The sixteen levels of iq4_nl and iq4_xs. The table is local so that device code may index it.
TANDEM_HD static inline float iq4_level(int code) {
  constexpr int8_t levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
  return static_cast<float>(levels[code]);
}

TANDEM_HD static inline void decode_row(const BlockIq4Nl* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, out += 32) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int i = 0; i < 16; i++) {
      out[i] = d * iq4_level(row[b].codes[i] & 15);
      out[16 + i] = d * iq4_level(row[b].codes[i] >> 4);
    }
  }
}

}  // namespace tandem::quant
