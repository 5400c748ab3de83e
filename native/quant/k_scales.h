// The twelve bytes with eight six-bit scales and eight six-bit mins that q4_k and q5_k share. `j` is the sub-block.
#pragma once

#include "half.h"

namespace tandem::quant {

TANDEM_HD static inline int k_scale(const uint8_t* bytes, int j) {
  if (j < 4) return bytes[j] & 63;
  return (bytes[j + 4] & 15) | bytes[j - 4] >> 6 << 4;
}

TANDEM_HD static inline int k_min(const uint8_t* bytes, int j) {
  if (j < 4) return bytes[j + 4] & 63;
  return bytes[j + 4] >> 4 | bytes[j] >> 6 << 4;
}

}  // namespace tandem::quant
