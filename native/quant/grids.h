// The code books of iq1_*, iq2_* and iq3_*: rows of levels, level j of a row in byte j of its word, lowest first. The
// native twin of src/formats/quants/grids.ts; both come from scripts/grids.json.
//
// grids.cc holds the one copy (34 KiB) that every instruction set reads. Device code cannot read it: a CUDA file that
// decodes these formats carries its own.
#pragma once

#include "half.h"

namespace tandem::quant {

template <typename Word, int count>
struct Grid {
  Word rows[count];
};

// Eight levels a row: −1, 0, 1 (as int8) in iq1_s and iq1_m; 8, 25, 43 in iq2.
extern const Grid<uint64_t, 2048> kGridIq1S;
extern const Grid<uint64_t, 256> kGridIq2Xxs;
extern const Grid<uint64_t, 512> kGridIq2Xs;
extern const Grid<uint64_t, 1024> kGridIq2S;
// Four levels a row: 4, 12, … 52, 62 in iq3_xxs; 1, 3, … 15 in iq3_s.
extern const Grid<uint32_t, 256> kGridIq3Xxs;
extern const Grid<uint32_t, 512> kGridIq3S;

}  // namespace tandem::quant

#ifdef __CUDACC__
#include "grids_expand.h"

namespace tandem::quant::device {

static __device__ const auto kGridIq1S = expand<uint64_t>(kIq1SData);
static __device__ const auto kGridIq2Xxs = expand<uint64_t>(kIq2XxsData);
static __device__ const auto kGridIq2Xs = expand<uint64_t>(kIq2XsData);
static __device__ const auto kGridIq2S = expand<uint64_t>(kIq2SData);
static __device__ const auto kGridIq3Xxs = expand<uint32_t>(kIq3XxsData);
static __device__ const auto kGridIq3S = expand<uint32_t>(kIq3SData);

}  // namespace tandem::quant::device
#endif

#ifdef __CUDA_ARCH__
#define TANDEM_GRID(name) ::tandem::quant::device::name
#else
#define TANDEM_GRID(name) ::tandem::quant::name
#endif

namespace tandem::quant {

// `index` is less than the rows of the book.
TANDEM_HD static inline uint64_t iq1_s_row(int index) { return TANDEM_GRID(kGridIq1S).rows[index]; }
TANDEM_HD static inline uint64_t iq2_xxs_row(int index) { return TANDEM_GRID(kGridIq2Xxs).rows[index]; }
TANDEM_HD static inline uint64_t iq2_xs_row(int index) { return TANDEM_GRID(kGridIq2Xs).rows[index]; }
TANDEM_HD static inline uint64_t iq2_s_row(int index) { return TANDEM_GRID(kGridIq2S).rows[index]; }
TANDEM_HD static inline uint32_t iq3_xxs_row(int index) { return TANDEM_GRID(kGridIq3Xxs).rows[index]; }
TANDEM_HD static inline uint32_t iq3_s_row(int index) { return TANDEM_GRID(kGridIq3S).rows[index]; }

// Eight sign bits from seven: the number of minus signs is even, so the eighth is their parity.
TANDEM_HD static inline uint32_t even_signs(uint32_t seven) {
  const uint32_t folded = seven ^ seven >> 4;
  return seven | (0x6996u >> (folded & 15) & 1) << 7;
}

// Eight weights: level j times scale, negative where bit j of `signs` is set. Exact in f32 for iq2 and iq3.
TANDEM_HD static inline void decode_signed(uint64_t levels, uint32_t signs, float scale, float* out) {
  for (int j = 0; j < 8; j++) {
    const float level = static_cast<float>(levels >> (8 * j) & 0xff);
    out[j] = scale * (signs >> j & 1 ? -level : level);
  }
}

// Eight weights of iq1: level j plus delta (±1/8), times scale; all exact in f32.
TANDEM_HD static inline void decode_shifted(uint64_t levels, float delta, float scale, float* out) {
  for (int j = 0; j < 8; j++) {
    out[j] = scale * (static_cast<float>(static_cast<int8_t>(levels >> (8 * j))) + delta);
  }
}

}  // namespace tandem::quant
