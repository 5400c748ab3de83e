// One vector of f32 lanes per instruction set: 16 (avx512, amx), 8 (avx2), 8 plain floats (scalar).
//
// Everything here is internal to a build's namespace. Multiplication and addition meet in `fma` only where it is written,
// so that two code paths that compute the same number give the same bits (files are compiled with -ffp-contract=off).
#pragma once

#include <math.h>

#include <cstdint>
#include <cstring>

#if TANDEM_ISA_LEVEL > 0
#include <immintrin.h>
#endif

namespace tandem::TANDEM_ISA_NAMESPACE {

// Rows in scratch are padded with zeros to a multiple of this many floats, so that no inner loop has a tail.
constexpr int64_t kPad = 16;
[[maybe_unused]] static inline int64_t pad_columns(int64_t columns) { return (columns + kPad - 1) / kPad * kPad; }

#if TANDEM_ISA_LEVEL >= 2

using Vec = __m512;
constexpr int kLanes = 16;
static inline Vec vec_load(const float* p) { return _mm512_loadu_ps(p); }
static inline void vec_store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
static inline Vec vec_set(float x) { return _mm512_set1_ps(x); }
static inline Vec vec_add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec vec_sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec vec_mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec vec_div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static inline Vec vec_max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec vec_min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline Vec vec_load_bf16(const uint16_t* p) {
  const __m256i raw = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
}
static inline Vec vec_round(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
// a · 2^n for integral n; rounds subnormals once.
static inline Vec vec_scale2(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }
static inline float vec_hmax(Vec a) { return _mm512_reduce_max_ps(a); }

// The sums of four vectors. The one way a dot product is closed, so that blocking never shows in the result.
static inline __m128 vec_sum4(Vec a, Vec b, Vec c, Vec d) {
  const auto half = [](Vec v) {
    return _mm256_add_ps(_mm512_castps512_ps256(v), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(v), 1)));
  };
  const __m256 ab = _mm256_hadd_ps(half(a), half(b)), cd = _mm256_hadd_ps(half(c), half(d));
  const __m256 abcd = _mm256_hadd_ps(ab, cd);
  return _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1));
}
static inline void vec_store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) { _mm_storeu_ps(p, vec_sum4(a, b, c, d)); }

#elif TANDEM_ISA_LEVEL == 1

using Vec = __m256;
constexpr int kLanes = 8;
static inline Vec vec_load(const float* p) { return _mm256_loadu_ps(p); }
static inline void vec_store(float* p, Vec v) { _mm256_storeu_ps(p, v); }
static inline Vec vec_set(float x) { return _mm256_set1_ps(x); }
static inline Vec vec_add(Vec a, Vec b) { return _mm256_add_ps(a, b); }
static inline Vec vec_sub(Vec a, Vec b) { return _mm256_sub_ps(a, b); }
static inline Vec vec_mul(Vec a, Vec b) { return _mm256_mul_ps(a, b); }
static inline Vec vec_div(Vec a, Vec b) { return _mm256_div_ps(a, b); }
static inline Vec vec_max(Vec a, Vec b) { return _mm256_max_ps(a, b); }
static inline Vec vec_min(Vec a, Vec b) { return _mm256_min_ps(a, b); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline Vec vec_load_bf16(const uint16_t* p) {
  const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
}
static inline Vec vec_round(Vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Vec vec_scale2(Vec a, Vec n) {
  // Two steps, each a normal power of two: n in [-150, 129].
  const __m256i whole = _mm256_cvtps_epi32(n);
  const __m256i first = _mm256_srai_epi32(whole, 1), second = _mm256_sub_epi32(whole, first);
  const __m256i one = _mm256_set1_epi32(127);
  const Vec p = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(first, one), 23));
  const Vec q = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(second, one), 23));
  return _mm256_mul_ps(_mm256_mul_ps(a, p), q);
}
static inline float vec_hmax(Vec a) {
  __m128 m = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
  m = _mm_max_ps(m, _mm_movehl_ps(m, m));
  return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
static inline void vec_store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) {
  const __m256 abcd = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

#else

constexpr int kLanes = 8;
struct Vec {
  float lane[kLanes];
};
#define TANDEM_LANES(expression)                               \
  Vec r;                                                       \
  for (int i = 0; i < kLanes; i++) r.lane[i] = (expression);   \
  return r
static inline Vec vec_load(const float* p) { TANDEM_LANES(p[i]); }
static inline void vec_store(float* p, Vec v) {
  for (int i = 0; i < kLanes; i++) p[i] = v.lane[i];
}
static inline Vec vec_set(float x) { TANDEM_LANES(x); }
static inline Vec vec_add(Vec a, Vec b) { TANDEM_LANES(a.lane[i] + b.lane[i]); }
static inline Vec vec_sub(Vec a, Vec b) { TANDEM_LANES(a.lane[i] - b.lane[i]); }
static inline Vec vec_mul(Vec a, Vec b) { TANDEM_LANES(a.lane[i] * b.lane[i]); }
static inline Vec vec_div(Vec a, Vec b) { TANDEM_LANES(a.lane[i] / b.lane[i]); }
static inline Vec vec_max(Vec a, Vec b) { TANDEM_LANES(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline Vec vec_min(Vec a, Vec b) { TANDEM_LANES(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline Vec vec_fma(Vec a, Vec b, Vec c) { TANDEM_LANES(a.lane[i] * b.lane[i] + c.lane[i]); }
static inline float bf16_to_f32(uint16_t bits);
static inline Vec vec_load_bf16(const uint16_t* p) { TANDEM_LANES(bf16_to_f32(p[i])); }
static inline Vec vec_round(Vec a) { TANDEM_LANES(::nearbyintf(a.lane[i])); }
static inline Vec vec_scale2(Vec a, Vec n) {
  TANDEM_LANES(n.lane[i] == n.lane[i] ? ::ldexpf(a.lane[i], static_cast<int>(n.lane[i])) : n.lane[i]);
}
static inline float vec_hmax(Vec a) {
  float best = a.lane[0];
  for (int i = 1; i < kLanes; i++) best = a.lane[i] > best ? a.lane[i] : best;
  return best;
}
static inline float vec_sum(Vec a) {
  return ((a.lane[0] + a.lane[4]) + (a.lane[1] + a.lane[5])) + ((a.lane[2] + a.lane[6]) + (a.lane[3] + a.lane[7]));
}
static inline void vec_store_sum4(float* p, Vec a, Vec b, Vec c, Vec d) {
  p[0] = vec_sum(a);
  p[1] = vec_sum(b);
  p[2] = vec_sum(c);
  p[3] = vec_sum(d);
}
#undef TANDEM_LANES

#endif

static inline float bf16_to_f32(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, 4);
  return value;
}

// Round to nearest even; a nan stays a (quiet) nan.
static inline uint16_t f32_to_bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((bits >> 16) | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static inline float vec_hsum(Vec a) {
  float sums[4];
  vec_store_sum4(sums, a, a, a, a);
  return sums[0];
}

// e^x within 2 ulp; 0 below the smallest subnormal, inf above, nan stays.
// x = n·ln2 + r, |r| ≤ ln2/2; e^r by the Taylor polynomial of degree 7 (its remainder is below 2^-27).
static inline Vec vec_exp(Vec x) {
  // The second operand is returned where one is nan: x keeps its nan.
  x = vec_min(vec_set(89.0f), vec_max(vec_set(-104.0f), x));
  const Vec n = vec_round(vec_mul(x, vec_set(1.44269504088896341f)));
  Vec r = vec_fma(n, vec_set(-0.693359375f), x);  // 9 bits of ln 2: n · 0.693359375 is exact
  r = vec_fma(n, vec_set(2.12194440054690582e-4f), r);
  Vec p = vec_set(1.0f / 5040);
  p = vec_fma(p, r, vec_set(1.0f / 720));
  p = vec_fma(p, r, vec_set(1.0f / 120));
  p = vec_fma(p, r, vec_set(1.0f / 24));
  p = vec_fma(p, r, vec_set(1.0f / 6));
  p = vec_fma(p, r, vec_set(0.5f));
  p = vec_fma(vec_mul(p, r), r, r);  // e^r - 1
  return vec_scale2(vec_add(vec_set(1.0f), p), n);
}

// e^x for one number, by the same arithmetic.
static inline float exp_f32(float x) {
  float lanes[kLanes];
  vec_store(lanes, vec_exp(vec_set(x)));
  return lanes[0];
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
