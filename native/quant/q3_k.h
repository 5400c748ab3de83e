// q3_k: 256 weights in 110 bytes: sixteen sub-blocks of 16. Value (d·scale)·q.
// Order of operations: d·scale, then times q; both exact in f32.
#pragma once

#include "half.h"

namespace tandem::quant {

struct BlockQ3K {
  uint8_t mask[32];    // bit j of byte i is the third bit of weight 32j+i
  uint8_t codes[64];   // each 32 bytes hold 128 weights: bits 0–1 the first 32, 2–3 the next …
  uint8_t scales[12];  // see q3_k_scale
  uint8_t d[2];        // f16
};
static_assert(sizeof(BlockQ3K) == 110 && alignof(BlockQ3K) == 1);

// Scale of sub-block s, −32 … 31: low four bits in the nibbles of bytes 0–7 (low nibbles are 0–7, high 8–15), high two
// bits in bytes 8–11 (byte 8+j: scales j, j+4, j+8, j+12 from the low bits up).
TANDEM_HD static inline int q3_k_scale(const BlockQ3K& block, int s) {
  const int low = block.scales[s & 7] >> (4 * (s >> 3)) & 15;
  const int high = block.scales[8 + (s & 3)] >> (2 * (s >> 2)) & 3;
  return (low | high << 4) - 32;
}

TANDEM_HD static inline void decode_row(const BlockQ3K* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++) {
    const float d = f16_to_f32(load_u16(row[b].d));
    for (int s = 0; s < 16; s++, out += 16) {
      const float scale = d * static_cast<float>(q3_k_scale(row[b], s));
      const uint8_t* mask = row[b].mask + 16 * (s & 1);
      const uint8_t* codes = row[b].codes + 32 * (s >> 3) + 16 * (s & 1);
      const int shift = 2 * (s >> 1 & 3);
      for (int i = 0; i < 16; i++) {
        const int q = (codes[i] >> shift & 3) | (mask[i] >> (s >> 1) & 1) << 2;
        out[i] = scale * static_cast<float>(q - 4);
      }
    }
  }
}

}  // namespace tandem::quant
