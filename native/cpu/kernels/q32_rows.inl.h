// Blocks of 32 with a weight row in each 32-bit lane: what panel_q32 and few_q32 share.
#pragma once

#include "cpu/kernels/q32_formats.inl.h"
#include "cpu/kernels/transpose.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

constexpr int kDwords = 8;      // of a row of a block: four codes each

#if TANDEM_ISA_LEVEL >= 2
using Row = __m512i;  // a dword of 16 weight rows
using RowFloats = __m512;
constexpr int kRowLanes = 16;
constexpr int kTokens = 6;  // of a tile: 2 · 6 integer and 2 · 6 float sums fit 32 registers
static inline Row broadcast_codes(const int8_t* x) { return _mm512_set1_epi32(load_as<int32_t>(x)); }
static inline RowFloats fused(RowFloats a, RowFloats b, RowFloats c) { return _mm512_fmadd_ps(a, b, c); }
static inline RowFloats times(RowFloats a, float b) { return _mm512_mul_ps(a, _mm512_set1_ps(b)); }
static inline RowFloats load_row_floats(const float* p) { return _mm512_loadu_ps(p); }
static inline void store_row_floats(float* p, RowFloats v) { _mm512_storeu_ps(p, v); }
static inline RowFloats zero_row_floats() { return _mm512_setzero_ps(); }
#else
using Row = __m256i;  // of 8 weight rows
using RowFloats = __m256;
constexpr int kRowLanes = 8;
constexpr int kTokens = 4;  // 2 · 4 integer sums of 16 registers
static inline Row broadcast_codes(const int8_t* x) { return _mm256_set1_epi32(load_as<int32_t>(x)); }
static inline RowFloats fused(RowFloats a, RowFloats b, RowFloats c) { return _mm256_fmadd_ps(a, b, c); }
static inline RowFloats times(RowFloats a, float b) { return _mm256_mul_ps(a, _mm256_set1_ps(b)); }
static inline RowFloats load_row_floats(const float* p) { return _mm256_loadu_ps(p); }
static inline void store_row_floats(float* p, RowFloats v) { _mm256_storeu_ps(p, v); }
static inline RowFloats zero_row_floats() { return _mm256_setzero_ps(); }
#endif

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

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
