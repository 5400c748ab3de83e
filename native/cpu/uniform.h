// The random number of a draw; the same bits as src/program/uniform.ts.
#pragma once

#include <cstdint>

#ifndef TANDEM_HD
#ifdef __CUDACC__
#define TANDEM_HD __host__ __device__
#else
#define TANDEM_HD
#endif
#endif

namespace tandem {

TANDEM_HD static inline uint32_t mix32(uint32_t h) {
  h = (h ^ (h >> 16)) * 0x85ebca6bu;
  h = (h ^ (h >> 13)) * 0xc2b2ae35u;
  return h ^ (h >> 16);
}

// Uniform in [0, 1), 53 bits.
TANDEM_HD static inline double uniform(uint32_t seed_low, uint32_t seed_high, uint32_t position) {
  const uint32_t a = mix32(seed_low ^ mix32(position + 0x9e3779b9u));
  const uint32_t b = mix32(seed_high ^ mix32(a + 0x7f4a7c15u));
  const uint32_t c = mix32(a + b * 0x9e3779b1u);
  return (static_cast<double>(c >> 5) * 67108864.0 + static_cast<double>(b >> 6)) / 9007199254740992.0;
}

}  // namespace tandem
