// Weights that are plain floats (f32 f16 bf16 f8_e4m3) with f32 activations.
//
// One accumulator of a vector per element, so that sixteen of them fit the registers and a weight is unpacked once for four
// tokens. f8_e4m3 sums 128 columns unscaled, then adds them times their scale. A row may end anywhere: missing lanes are zero.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

template <WeightFormat kFormat>
struct FloatFormat {
  static constexpr WeightFormat format = kFormat;
  static constexpr int kBytes = kFormat == WeightFormat::f32 ? 4 : kFormat == WeightFormat::f8_e4m3 ? 1 : 2;
};

#if TANDEM_ISA_LEVEL >= 2
using Lanes = __m512;
constexpr int kWidth = 16;
static inline Lanes zero_lanes() { return _mm512_setzero_ps(); }
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
static inline Lanes set_lanes(float x) { return _mm512_set1_ps(x); }
static inline Lanes load_lanes(const float* p) { return _mm512_loadu_ps(p); }
// e4m3 as the half 2^-8 times as large, by sign extension: the sign is moved twice, into its place and to where it is taken
// off. NaN becomes a number (see has_nan).
static inline Lanes widen_f8(__m128i codes) {
  const __m256i words = _mm256_slli_epi16(_mm256_cvtepi8_epi16(codes), 7);
  return _mm512_cvtph_ps(_mm256_and_si256(words, _mm256_set1_epi16(static_cast<int16_t>(0xbf80))));
}
template <WeightFormat format>
static inline Lanes load_weights(const uint8_t* row, int64_t i) {
  if constexpr (format == WeightFormat::f8_e4m3) return widen_f8(load128(row + i));
  return load_floats<format>(row, i, __mmask16(0xffff));
}
// Weights from column i on and those behind them.
template <WeightFormat format>
static inline void load_pair(const uint8_t* row, int64_t i, Lanes& first, Lanes& second) {
  first = load_weights<format>(row, i);
  second = load_weights<format>(row, i + kWidth);
}
// Is one of 128 codes NaN? Doubled, as a byte, those are the largest.
static inline bool has_nan(const uint8_t* row) {
  const __m512i a = _mm512_loadu_si512(row), b = _mm512_loadu_si512(row + 64);
  const __m512i most = _mm512_max_epu8(_mm512_add_epi8(a, a), _mm512_add_epi8(b, b));
  return _mm512_cmpeq_epi8_mask(most, _mm512_set1_epi8(static_cast<char>(0xfe))) != 0;
}
#else
using Lanes = __m256;
constexpr int kWidth = 8;
static inline Lanes zero_lanes() { return _mm256_setzero_ps(); }
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
static inline Lanes set_lanes(float x) { return _mm256_set1_ps(x); }
static inline Lanes load_lanes(const float* p) { return _mm256_loadu_ps(p); }
template <WeightFormat format>
static inline Lanes load_weights(const uint8_t* row, int64_t i) {
  return load_floats<format>(row, i);
}
template <WeightFormat format>
static inline void load_pair(const uint8_t* row, int64_t i, Lanes& first, Lanes& second) {
  if constexpr (format == WeightFormat::f8_e4m3) {
    // e4m3 as the half 2^-8 times as large, by sign extension: the sign is moved twice, into its place and to where it is
    // taken off. NaN becomes a number (see has_nan).
    const __m256i words = _mm256_slli_epi16(_mm256_cvtepi8_epi16(load128(row + i)), 7);
    const __m256i halves = _mm256_and_si256(words, _mm256_set1_epi16(static_cast<int16_t>(0xbf80)));
    first = _mm256_cvtph_ps(_mm256_castsi256_si128(halves));
    second = _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1));
  } else {
    first = load_weights<format>(row, i);
    second = load_weights<format>(row, i + kWidth);
  }
}
// Is one of 128 codes NaN? Doubled, as a byte, those are the largest.
static inline bool has_nan(const uint8_t* row) {
  const auto doubled = [&](int i) { return _mm256_add_epi8(load256(row + i), load256(row + i)); };
  const __m256i most = _mm256_max_epu8(_mm256_max_epu8(doubled(0), doubled(32)), _mm256_max_epu8(doubled(64), doubled(96)));
  return _mm256_movemask_epi8(_mm256_cmpeq_epi8(most, _mm256_set1_epi8(static_cast<char>(0xfe)))) != 0;
}
#endif

template <typename Format, int R, int M>
struct DotFloats {
  // Adds the products of columns [begin, end).
  static inline __attribute__((always_inline)) void span(const WeightRow* rows, const ActivationRow* x, int64_t begin, int64_t end,
                                                         Lanes (&sums)[R][M]) {
    int64_t i = begin;
    for (; i + 2 * kWidth <= end; i += 2 * kWidth) {
      Lanes first[R], second[R];
      for (int r = 0; r < R; r++) {
        fetch<2 * kWidth * Format::kBytes>(rows[r].data + i * Format::kBytes + rows[r].ahead);
        load_pair<Format::format>(rows[r].data, i, first[r], second[r]);
      }
      for (int m = 0; m < M; m++) {
        const Lanes values = load_lanes(x[m].values + i);
        for (int r = 0; r < R; r++) sums[r][m] = multiply_add(first[r], values, sums[r][m]);
      }
      for (int m = 0; m < M; m++) {
        const Lanes values = load_lanes(x[m].values + i + kWidth);
        for (int r = 0; r < R; r++) sums[r][m] = multiply_add(second[r], values, sums[r][m]);
      }
    }
    if (i < end) tail(rows, x, i, end, sums);
  }

  // The last columns of a row, through padded copies.
  static __attribute__((noinline)) void tail(const WeightRow* rows, const ActivationRow* x, int64_t begin, int64_t end,
                                             Lanes (&sums)[R][M]) {
    for (int64_t i = begin; i < end; i += kWidth) {
      const size_t count = static_cast<size_t>(end - i < kWidth ? end - i : kWidth);
      for (int r = 0; r < R; r++) {
        alignas(64) uint8_t raw[64] = {};
        memcpy(raw, rows[r].data + i * Format::kBytes, count * Format::kBytes);
        const Lanes w = load_weights<Format::format>(raw, 0);
        for (int m = 0; m < M; m++) {
          alignas(64) float values[kWidth] = {};
          memcpy(values, x[m].values + i, count * sizeof(float));
          sums[r][m] = multiply_add(w, load_lanes(values), sums[r][m]);
        }
      }
    }
  }

  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    Lanes sums[R][M];
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) sums[r][m] = zero_lanes();
    }
    span(rows, x, 0, k, sums);
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) out[r * M + m] = sum_lanes(sums[r][m]);
    }
  }
};

// f8_e4m3: 128 columns unscaled, then times their scale.
template <typename Format, int R, int M>
struct DotF8 {
  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    Lanes totals[R][M];
    bool nan[R] = {};
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) totals[r][m] = zero_lanes();
    }
    for (int64_t i = 0; i < k; i += quant::kF8ScaleColumns) {
      Lanes sums[R][M];
      for (int r = 0; r < R; r++) {
        for (int m = 0; m < M; m++) sums[r][m] = zero_lanes();
      }
      if (i + quant::kF8ScaleColumns <= k) {
        for (int r = 0; r < R; r++) nan[r] |= has_nan(rows[r].data + i);
        DotFloats<Format, R, M>::span(rows, x, i, i + quant::kF8ScaleColumns, sums);
      } else {
        for (int r = 0; r < R; r++) {
          for (int64_t c = i; c < k; c++) nan[r] |= (rows[r].data[c] & 0x7f) == 0x7f;
        }
        DotFloats<Format, R, M>::span(rows, x, i, k, sums);
      }
      for (int r = 0; r < R; r++) {
        // load_pair leaves e4m3 2^-8 too small.
        const Lanes scale = set_lanes(f8_scale(rows[r].scales, i) * 256.0f);
        for (int m = 0; m < M; m++) totals[r][m] = multiply_add(sums[r][m], scale, totals[r][m]);
      }
    }
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) out[r * M + m] = nan[r] ? quant::bits_float(0x7fc00000u) : sum_lanes(totals[r][m]);
    }
  }
};

#if TANDEM_ISA_LEVEL >= 2
template <WeightFormat format>
static constexpr DotKernel kFloats = make_kernel<DotFloats, FloatFormat<format>, 4, 4, 4, 4>();
static constexpr DotKernel kF8 = make_kernel<DotF8, FloatFormat<WeightFormat::f8_e4m3>, 4, 4, 4, 4>();
#else
template <WeightFormat format>
static constexpr DotKernel kFloats = make_kernel<DotFloats, FloatFormat<format>, 4, 4, 2, 2>();
static constexpr DotKernel kF8 = make_kernel<DotF8, FloatFormat<WeightFormat::f8_e4m3>, 4, 4, 2, 2>();
#endif

#endif

const DotKernel* dot_floats(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::f32: return &kFloats<WeightFormat::f32>;
    case WeightFormat::f16: return &kFloats<WeightFormat::f16>;
    case WeightFormat::bf16: return &kFloats<WeightFormat::bf16>;
    case WeightFormat::f8_e4m3: return &kF8;
#endif
    default: return nullptr;
  }
}

// Reached through `find_dot`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_dot_floats() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
