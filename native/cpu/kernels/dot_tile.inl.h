// What the dot files share: tables of tiles, sums of lanes, small loads.
#pragma once

#include "cpu/kernels/dot.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0

// Family<Format, R, M>::tile is the function; `rows` says how high tiles of 1 … 4 tokens are.
template <template <typename, int, int> typename Family, typename Format, int R1, int R2, int R3, int R4>
constexpr DotKernel make_kernel() {
  return {{R1, R2, R3, R4},
          {Family<Format, R1, 1>::tile, Family<Format, R2, 2>::tile, Family<Format, R3, 3>::tile, Family<Format, R4, 4>::tile},
          {Family<Format, 1, 1>::tile, Family<Format, 1, 2>::tile, Family<Format, 1, 3>::tile, Family<Format, 1, 4>::tile}};
}

static inline float sum_lanes(__m256 v) {
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
#if TANDEM_ISA_LEVEL >= 2
static inline float sum_lanes(__m512 v) {
  return sum_lanes(_mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1)));
}
#endif

static inline __m128i load128(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
static inline __m256i load256(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// Fetches the lines of [p, p + bytes) into the second-level cache: more of them may be under way than for the first.
template <int bytes>
static inline __attribute__((always_inline)) void fetch(const uint8_t* p) {
#pragma GCC unroll 8
  for (int i = 0; i < bytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(p + i), _MM_HINT_T1);
}

template <typename T>
static inline T load_as(const void* p) {
  T value;
  memcpy(&value, p, sizeof value);
  return value;
}

// Eight halves that lie `stride` bytes apart, as f32; the first `count` of them, zeros behind.
static inline __m256 load_halves(const uint8_t* p, int64_t stride, int count) {
  __m128i words = _mm_setzero_si128();
  if (count >= 8) {
    words = _mm_cvtsi32_si128(load_as<uint16_t>(p));
    words = _mm_insert_epi16(words, load_as<int16_t>(p + stride), 1);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 2 * stride), 2);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 3 * stride), 3);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 4 * stride), 4);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 5 * stride), 5);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 6 * stride), 6);
    words = _mm_insert_epi16(words, load_as<int16_t>(p + 7 * stride), 7);
  } else {
    alignas(16) uint16_t halves[8] = {};
    for (int i = 0; i < count; i++) halves[i] = load_as<uint16_t>(p + i * stride);
    words = load128(halves);
  }
  return _mm256_cvtph_ps(words);
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
