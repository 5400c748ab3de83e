// Blocks of 256 codes in vectors: what dot_q256 and dot_grids share.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0

#if TANDEM_ISA_LEVEL >= 2

using Codes = __m512i;  // 64 codes: columns [64g, 64g + 64)
using Scales = __m512i;  // sixteen 16-bit scales in the lowest half

static inline Codes vec_bytes(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
static inline Codes both_halves(const uint8_t* p) { return _mm512_broadcast_i64x4(load256(p)); }
// Lower half shifted right by a bits, upper by b.
static inline Codes shift_halves(Codes v, int a, int b) {
  return _mm512_srlv_epi64(v, _mm512_set_epi64(b, b, b, b, a, a, a, a));
}
static inline Codes shift_halves_left(Codes v, int a, int b) {
  return _mm512_sllv_epi64(v, _mm512_set_epi64(b, b, b, b, a, a, a, a));
}
static inline Codes both(Codes v, int mask) { return _mm512_and_si512(v, vec_bytes(mask)); }
static inline Codes either(Codes a, Codes b) { return _mm512_or_si512(a, b); }
// `value` where bit a (lower half) or b (upper half) of v is set.
static inline Codes where_bits(Codes v, int a, int b, int value) {
  const __m512i bits = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << a)), _mm256_set1_epi8(static_cast<char>(1 << b)), 1);
  return _mm512_maskz_mov_epi8(_mm512_test_epi8_mask(v, bits), vec_bytes(value));
}
static inline Scales widen_scales(__m256i words) { return _mm512_castsi256_si512(words); }
// The scales of vector g in the 16-bit pairs of its products: sub-blocks of 32 or of 16 columns.
static inline __m512i scales_of_32(Scales s, int g) {
  const __m512i index = _mm512_inserti64x4(_mm512_set1_epi16(static_cast<int16_t>(2 * g)),
                                           _mm256_set1_epi16(static_cast<int16_t>(2 * g + 1)), 1);
  return _mm512_permutexvar_epi16(index, s);
}
static inline __m512i scales_of_16(Scales s, int g) {
  const __m512i lane = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002, 0x0002000200020002,
                                        0x0001000100010001, 0x0001000100010001, 0, 0);
  return _mm512_permutexvar_epi16(_mm512_add_epi16(lane, _mm512_set1_epi16(static_cast<int16_t>(4 * g))), s);
}
static inline Codes load_codes(const int8_t* x) { return _mm512_loadu_si512(x); }
static inline __m512i zero_sums() { return _mm512_setzero_si512(); }
template <int offset>
static inline __m512i start_of(Codes x) {
  if constexpr (offset == 0) return _mm512_setzero_si512();
  return _mm512_maddubs_epi16(vec_bytes(offset), x);
}
template <int offset>
static inline __m512i add_products(__m512i sum, Codes w, Codes x, __m512i start, __m512i scale) {
  __m512i pairs = _mm512_maddubs_epi16(w, x);
  if constexpr (offset != 0) pairs = _mm512_sub_epi16(pairs, start);
  return _mm512_dpwssd_epi32(sum, pairs, scale);
}
constexpr int kVectors = 4;  // of codes in a block

#else

using Codes = __m256i;  // 32 codes: columns [32g, 32g + 32)
struct Scales {
  __m256i low, high;  // scales 0–7 and 8–15, each in both lanes
};

static inline Scales widen_scales(__m256i words) {
  return {_mm256_permute4x64_epi64(words, 0x44), _mm256_permute4x64_epi64(words, 0xee)};
}
static inline __m256i scales_of_32(const Scales& s, int g) {
  return _mm256_shuffle_epi8(s.low, _mm256_set1_epi16(static_cast<int16_t>(0x0100 + 0x0202 * g)));
}
static inline __m256i scales_of_16(const Scales& s, int g) {
  const int a = 0x0100 + 0x0202 * (2 * (g & 3));
  const __m256i index = _mm256_inserti128_si256(_mm256_set1_epi16(static_cast<int16_t>(a)),
                                                _mm_set1_epi16(static_cast<int16_t>(a + 0x0202)), 1);
  return _mm256_shuffle_epi8(g < 4 ? s.low : s.high, index);
}
static inline Codes vec_bytes(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
static inline Codes shift_right(Codes v, int a) { return _mm256_srli_epi16(v, a); }
static inline Codes shift_left(Codes v, int a) { return _mm256_slli_epi16(v, a); }
static inline Codes both(Codes v, int mask) { return _mm256_and_si256(v, vec_bytes(mask)); }
static inline Codes either(Codes a, Codes b) { return _mm256_or_si256(a, b); }
static inline Codes where_bit(Codes v, int a, int value) {
  const __m256i bit = vec_bytes(1 << a);
  return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(v, bit), bit), vec_bytes(value));
}
static inline Codes load_codes(const int8_t* x) { return load256(x); }
static inline __m256i zero_sums() { return _mm256_setzero_si256(); }
template <int offset>
static inline __m256i start_of(Codes x) {
  if constexpr (offset == 0) return _mm256_setzero_si256();
  return _mm256_maddubs_epi16(vec_bytes(offset), x);
}
// Pairs of products fit 16 bits: six-bit codes give 2·63·127.
template <int offset>
static inline __m256i add_products(__m256i sum, Codes w, Codes x, __m256i start, __m256i scale) {
  __m256i pairs = _mm256_maddubs_epi16(w, x);
  if constexpr (offset != 0) pairs = _mm256_sub_epi16(pairs, start);
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scale));
}
constexpr int kVectors = 8;

#endif

// d and dmin of a block, its scales as 16-bit numbers and its sixteen minima (where the format has them).
struct BlockHead {
  float d, dmin;
  Scales scales;
  __m256i mins;
};

static inline float half_at(const uint8_t* p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(load_as<uint16_t>(p)))); }

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
