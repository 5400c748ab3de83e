// Weights in blocks of 32 (q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl mxfp4 mxfp4_g32 int4_g32) with q8_32 activations, over the blocks as they lie in the file.
//
// An element, here and in panel_q32: `sum` starts at zero; for each block b in order, with S the exact integer sum of its
// 32 products of codes,
//     sum = fma(d_w · d_x, S, sum)          d_w · d_x rounded to f32
//     sum = fma(m_w, d_x · Σq_x, sum)       formats with a minimum only
//
// A tile is four weight rows. A vector holds consecutive blocks of one row, 16 bytes of each; the int32 sums of four rows
// are added while they are transposed, so that a vector holds four rows of each block, and each block is one fma.
#pragma once

#include "cpu/kernels/q32_formats.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Below, the vectors of a group of kBlockLanes blocks: lane b holds four rows of block b.
#if TANDEM_ISA_LEVEL >= 2

using Lanes = __m512;
// Columns 0–15 and 16–31 of four blocks of x.
static inline CodeHalves split_codes(const int8_t* x) {
  const __m512i a = _mm512_loadu_si512(x), b = _mm512_loadu_si512(x + 64);
  return {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd)};
}
template <bool wide>
static inline Codes block_sums(const CodeHalves (&w)[4], const CodeHalves& x) {
  __m512i s[4];
  for (int r = 0; r < 4; r++) s[r] = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w[r].low, x.low), w[r].high, x.high);
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(s[0], s[1]), _mm512_unpackhi_epi32(s[0], s[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(s[2], s[3]), _mm512_unpackhi_epi32(s[2], s[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}
// Number b of four in all places of lane b.
static inline Codes spread(const int32_t* four) {
  const __m512i index = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  return _mm512_permutexvar_epi32(index, _mm512_castsi128_si512(load128(four)));
}
static inline Lanes spread(const float* four) { return _mm512_castsi512_ps(spread(reinterpret_cast<const int32_t*>(four))); }
static inline Lanes multiply(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
template <int log_raise>
static inline Lanes lowered(Codes sums, const int32_t* raise) {
  if constexpr (log_raise > 0) sums = _mm512_add_epi32(sums, _mm512_srai_epi32(spread(raise), 7 - log_raise));
  return _mm512_cvtepi32_ps(sums);
}
static inline __m128 lane(Lanes v, int b) {
  switch (b) {
    case 0: return _mm512_castps512_ps128(v);
    case 1: return _mm512_extractf32x4_ps(v, 1);
    case 2: return _mm512_extractf32x4_ps(v, 2);
    default: return _mm512_extractf32x4_ps(v, 3);
  }
}
static inline Lanes bf16_lanes(__m128i first, __m128i second) {
  const __m256i words = _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(words), 16));
}
// Scales of four blocks of four rows, given where that of (row, block) is.
template <Scale kind, typename At>
static inline __attribute__((always_inline)) Lanes gather_scales(At&& at) {
  const auto first = [&](int i) __attribute__((always_inline)) { return at(i & 3, i >> 2); };
  const auto second = [&](int i) __attribute__((always_inline)) { return at(i & 3, 2 + (i >> 2)); };
  if constexpr (kind == Scale::power || kind == Scale::power_apart) {
    return half_powers(_mm512_cvtepu8_epi32(_mm_unpacklo_epi64(eight_bytes(first), eight_bytes(second))));
  } else if constexpr (kind == Scale::bf16_apart) {
    return bf16_lanes(eight_halves(first), eight_halves(second));
  } else {
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(eight_halves(first)), eight_halves(second), 1));
  }
}
// Four bf16 of each of four rows.
static inline Lanes load_bf16_scales(const uint8_t* const (&s)[4]) {
  const auto four = [&](int r) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(s[r])); };
  const __m128i a = _mm_unpacklo_epi16(four(0), four(1)), b = _mm_unpacklo_epi16(four(2), four(3));
  return bf16_lanes(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
}
// The first dwords of four rows' headers, as words `half` (0: d, 1: m) of each block.
template <int half>
static inline Lanes header_halves(const CodeHalves (&w)[4]) {
  const __m512i a = _mm512_unpacklo_epi32(w[0].header, w[1].header), b = _mm512_unpacklo_epi32(w[2].header, w[3].header);
  const __m512i pairs = _mm512_unpacklo_epi64(a, b);
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(half ? _mm512_srli_epi32(pairs, 16) : pairs));
}

#else

using Lanes = __m256;
static inline CodeHalves split_codes(const int8_t* x) {
  const __m256i a = load256(x), b = load256(x + 32);
  return {_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31)};
}
// Sums of products of five-bit codes fit 16 bits until four pairs are added (4 · 2 · 31 · 127), so half the transposing is
// done there. Those of eight bits do so only singly, with the weight's sign moved to x (2 · 128 · 127).
template <bool wide>
static inline Codes block_sums(const CodeHalves (&w)[4], const CodeHalves& x) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i a, b;
  if constexpr (wide) {
    __m256i s[4];
    for (int r = 0; r < 4; r++) {
      const __m256i low = _mm256_maddubs_epi16(_mm256_abs_epi8(w[r].low), _mm256_sign_epi8(x.low, w[r].low));
      const __m256i high = _mm256_maddubs_epi16(_mm256_abs_epi8(w[r].high), _mm256_sign_epi8(x.high, w[r].high));
      s[r] = _mm256_add_epi32(_mm256_madd_epi16(low, ones), _mm256_madd_epi16(high, ones));
    }
    a = _mm256_add_epi32(_mm256_unpacklo_epi32(s[0], s[1]), _mm256_unpackhi_epi32(s[0], s[1]));
    b = _mm256_add_epi32(_mm256_unpacklo_epi32(s[2], s[3]), _mm256_unpackhi_epi32(s[2], s[3]));
  } else {
    __m256i s[4];
    for (int r = 0; r < 4; r++) s[r] = _mm256_add_epi16(_mm256_maddubs_epi16(w[r].low, x.low), _mm256_maddubs_epi16(w[r].high, x.high));
    a = _mm256_add_epi16(_mm256_unpacklo_epi32(s[0], s[1]), _mm256_unpackhi_epi32(s[0], s[1]));
    b = _mm256_add_epi16(_mm256_unpacklo_epi32(s[2], s[3]), _mm256_unpackhi_epi32(s[2], s[3]));
    a = _mm256_madd_epi16(a, ones);
    b = _mm256_madd_epi16(b, ones);
  }
  return _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
}
static inline Codes spread(const int32_t* two) {
  const __m256i index = _mm256_set_epi32(1, 1, 1, 1, 0, 0, 0, 0);
  return _mm256_permutevar8x32_epi32(_mm256_castsi128_si256(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(two))), index);
}
static inline Lanes spread(const float* two) { return _mm256_castsi256_ps(spread(reinterpret_cast<const int32_t*>(two))); }
static inline Lanes multiply(Lanes a, Lanes b) { return _mm256_mul_ps(a, b); }
template <int log_raise>
static inline Lanes lowered(Codes sums, const int32_t* raise) {
  if constexpr (log_raise > 0 && log_raise < 7) sums = _mm256_add_epi32(sums, _mm256_srai_epi32(spread(raise), 7 - log_raise));
  return _mm256_cvtepi32_ps(sums);
}
static inline __m128 lane(Lanes v, int b) { return b == 0 ? _mm256_castps256_ps128(v) : _mm256_extractf128_ps(v, 1); }
template <Scale kind, typename At>
static inline __attribute__((always_inline)) Lanes gather_scales(At&& at) {
  return eight_scales<kind>([&](int i) __attribute__((always_inline)) { return at(i & 3, i >> 2); });
}
// Two bf16 of each of four rows.
static inline Lanes load_bf16_scales(const uint8_t* const (&s)[4]) {
  const auto two = [&](int r) { return _mm_cvtsi32_si128(load_as<int32_t>(s[r])); };
  const __m128i a = _mm_unpacklo_epi16(two(0), two(1)), b = _mm_unpacklo_epi16(two(2), two(3));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_unpacklo_epi32(a, b)), 16));
}
template <int half>
static inline Lanes header_halves(const CodeHalves (&w)[4]) {
  const __m256i a = _mm256_unpacklo_epi32(w[0].header, w[1].header), b = _mm256_unpacklo_epi32(w[2].header, w[3].header);
  const __m256i pairs = _mm256_unpacklo_epi64(a, b);
  const __m256i words = half ? _mm256_srli_epi32(pairs, 16) : _mm256_and_si256(pairs, _mm256_set1_epi32(0xffff));
  return _mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}

#endif

template <typename Format, int R, int M>
struct DotQ32 {
  // kBlockLanes blocks, or the last `count` of a row: what is missing repeats the last one and is not added.
  template <bool whole>
  static inline __attribute__((always_inline)) void group(const uint8_t* const (&w)[4], const uint8_t* const (&s)[4], const ActivationRow* x, int64_t first,
                                                          int count, __m128 (&sums)[M]) {
    int at[kBlockLanes];
    for (int b = 0; b < kBlockLanes; b++) at[b] = (whole || b < count ? b : count - 1) * Format::kBytes;
    CodeHalves codes[4];
    for (int r = 0; r < 4; r++) codes[r] = Format::codes([&](int b) __attribute__((always_inline)) { return w[r] + at[b]; });
    Lanes scales, mins;
    if constexpr (Format::kScale == Scale::header) {
      scales = header_halves<0>(codes);
    } else if constexpr (whole && Format::kScale == Scale::bf16_apart) {
      scales = load_bf16_scales(s);
    } else if constexpr (is_apart(Format::kScale)) {
      constexpr int kStep = apart_bytes(Format::kScale);
      scales = gather_scales<Format::kScale>([&](int r, int b) __attribute__((always_inline)) { return s[r] + (whole || b < count ? b : count - 1) * kStep; });
    } else {
      scales = gather_scales<Format::kScale>([&](int r, int b) __attribute__((always_inline)) { return w[r] + at[b]; });
    }
    if constexpr (Format::kMin) mins = header_halves<1>(codes);
    for (int m = 0; m < M; m++) {
      const int8_t* values = x[m].codes + first * 32;
      alignas(64) int8_t padded[kBlockLanes * 32];
      if constexpr (!whole) {
        memset(padded, 0, sizeof padded);
        memcpy(padded, values, static_cast<size_t>(count) * 32);
        values = padded;
      }
      const Codes products = block_sums<is_wide<Format>>(codes, split_codes(values));
      const Lanes terms = lowered<Format::kLogRaise>(products, x[m].raise + first);
      const Lanes factors = multiply(scales, spread(x[m].scales + first));
#pragma GCC unroll 4
      for (int b = 0; b < kBlockLanes; b++) {
        if (!whole && b >= count) break;
        sums[m] = _mm_fmadd_ps(lane(factors, b), lane(terms, b), sums[m]);
        if constexpr (Format::kMin) sums[m] = _mm_fmadd_ps(lane(mins, b), _mm_set1_ps(x[m].sums[first + b]), sums[m]);
      }
    }
  }

  // More than two tokens (avx512: more than one) go by panel_q32; the table is filled all the same.
  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    if constexpr (M > 2) {
      float first[R * 2], rest[R * (M - 2)];
      DotQ32<Format, R, 2>::tile(rows, x, k, first);
      DotQ32<Format, R, M - 2>::tile(rows, x + 2, k, rest);
      for (int r = 0; r < R; r++) {
        for (int m = 0; m < M; m++) out[r * M + m] = m < 2 ? first[r * 2 + m] : rest[r * (M - 2) + m - 2];
      }
    } else {
      small(rows, x, k, out);
    }
  }

  static inline __attribute__((always_inline)) void small(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    const uint8_t *w[4], *s[4];
    for (int r = 0; r < 4; r++) {
      w[r] = rows[r < R ? r : 0].data;
      s[r] = rows[r < R ? r : 0].scales;
    }
    __m128 sums[M];
    for (int m = 0; m < M; m++) sums[m] = _mm_setzero_ps();
    const int64_t blocks = k / 32;
    int64_t first = 0;
    const auto next = [&](int count) __attribute__((always_inline)) {
      for (int r = 0; r < 4; r++) {
        w[r] += count * Format::kBytes;
        if constexpr (is_apart(Format::kScale)) s[r] += count * apart_bytes(Format::kScale);
      }
      first += count;
    };
    while (first + 8 <= blocks) {
      for (int r = 0; r < R; r++) fetch<8 * Format::kBytes>(w[r] + rows[0].ahead);
#pragma GCC unroll 4
      for (int i = 0; i < 8; i += kBlockLanes) {
        group<true>(w, s, x, first, kBlockLanes, sums);
        next(kBlockLanes);
      }
    }
    while (first + kBlockLanes <= blocks) {
      group<true>(w, s, x, first, kBlockLanes, sums);
      next(kBlockLanes);
    }
    if (first < blocks) group<false>(w, s, x, first, static_cast<int>(blocks - first), sums);
    for (int m = 0; m < M; m++) {
      alignas(16) float four[4];
      _mm_store_ps(four, sums[m]);
      for (int r = 0; r < R; r++) out[r * M + m] = four[r];
    }
  }
};

template <typename Format>
static constexpr DotKernel kQ32 = make_kernel<DotQ32, Format, 4, 4, 4, 4>();

#endif

const DotKernel* dot_q32(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::q8_0: return &kQ32<Q8_0Codes>;
    case WeightFormat::q4_0: return &kQ32<Q4_0Codes>;
    case WeightFormat::q4_1: return &kQ32<Q4_1Codes>;
    case WeightFormat::q5_0: return &kQ32<Q5_0Codes>;
    case WeightFormat::q5_1: return &kQ32<Q5_1Codes>;
    case WeightFormat::iq4_nl: return &kQ32<Iq4NlCodes>;
    case WeightFormat::mxfp4: return &kQ32<Mxfp4Codes>;
    case WeightFormat::mxfp4_g32: return &kQ32<Mxfp4G32Codes>;
    case WeightFormat::int4_g32: return &kQ32<Int4G32Codes>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_dot`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_dot_q32() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
