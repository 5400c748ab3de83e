// Blocks of 32 with a weight row in each 32-bit lane: what panel_q32 and few_q32 share.
#pragma once

#include "cpu/kernels/panel_lanes.inl.h"
#include "cpu/kernels/q32_formats.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

constexpr int kDwords = 8;                                // of a row of a block: four codes each
constexpr int kTokens = TANDEM_ISA_LEVEL >= 2 ? 6 : 4;  // of a tile: as many integer sums of two vectors of rows as registers hold

// The first dwords of headers, of four vectors whose lane of 16 bytes l is weight row 4·l + i (i = 0 … 3): their low (0) or
// high (1) halves as f32, by rows.
template <int half>
static inline __attribute__((always_inline)) RowFloats header_halves(const Codes (&v)[4]) {
#if TANDEM_ISA_LEVEL >= 2
  const __m512i pairs = _mm512_unpacklo_epi64(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpacklo_epi32(v[2], v[3]));
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half ? _mm512_srli_epi32(pairs, 16) : pairs));
#else
  const __m256i pairs = _mm256_unpacklo_epi64(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpacklo_epi32(v[2], v[3]));
  const __m256i words = half ? _mm256_srli_epi32(pairs, 16) : _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
#endif
}

// Scales of kLaneRows rows, given where that of each is.
template <Scale kind, typename At>
static inline __attribute__((always_inline)) RowFloats row_scales(At&& at) {
#if TANDEM_ISA_LEVEL >= 2
  const auto behind = [&](int i) __attribute__((always_inline)) { return at(8 + i); };
  return _mm512_insertf32x8(_mm512_castps256_ps512(eight_scales<kind>(at)), eight_scales<kind>(behind), 1);
#else
  return eight_scales<kind>(at);
#endif
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
