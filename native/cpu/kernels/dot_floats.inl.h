// Weights that are plain floats (f32 f16 bf16 f8_e4m3) with f32 activations.
//
// Two accumulators of a vector each per element, taken in turn. f8_e4m3 sums 128 columns unscaled, then adds them times
// their scale. A row may end anywhere: missing lanes are zero.
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
static inline Lanes add_lanes(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
static inline Lanes set_lanes(float x) { return _mm512_set1_ps(x); }
static inline Lanes load_lanes(const float* p) { return _mm512_loadu_ps(p); }
template <WeightFormat format>
static inline Lanes load_weights(const uint8_t* row, int64_t i) {
  return load_floats<format>(row, i, __mmask16(0xffff));
}
#else
using Lanes = __m256;
constexpr int kWidth = 8;
static inline Lanes zero_lanes() { return _mm256_setzero_ps(); }
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
static inline Lanes add_lanes(Lanes a, Lanes b) { return _mm256_add_ps(a, b); }
static inline Lanes set_lanes(float x) { return _mm256_set1_ps(x); }
static inline Lanes load_lanes(const float* p) { return _mm256_loadu_ps(p); }
template <WeightFormat format>
static inline Lanes load_weights(const uint8_t* row, int64_t i) {
  return load_floats<format>(row, i);
}
#endif

template <typename Format, int R, int M>
struct DotFloats {
  // Adds the products of columns [begin, end) to both accumulators.
  static inline __attribute__((always_inline)) void span(const WeightRow* rows, const ActivationRow* x, int64_t begin, int64_t end,
                                                         Lanes (&even)[R][M], Lanes (&odd)[R][M]) {
    const auto step = [&](int64_t i, Lanes(&sums)[R][M]) __attribute__((always_inline)) {
      Lanes values[M];
      for (int m = 0; m < M; m++) values[m] = load_lanes(x[m].values + i);
      for (int r = 0; r < R; r++) {
        const Lanes w = load_weights<Format::format>(rows[r].data, i);
        for (int m = 0; m < M; m++) sums[r][m] = multiply_add(w, values[m], sums[r][m]);
      }
    };
    int64_t i = begin;
    for (; i + 2 * kWidth <= end; i += 2 * kWidth) {
      for (int r = 0; r < R; r++) fetch<2 * kWidth * Format::kBytes>(rows[r].data + i * Format::kBytes + rows[r].ahead);
      step(i, even);
      step(i + kWidth, odd);
    }
    if (i + kWidth <= end) {
      step(i, even);
      i += kWidth;
    }
    if (i < end) tail(rows, x, i, end, odd);
  }

  // The last columns of a row, through padded copies.
  static __attribute__((noinline)) void tail(const WeightRow* rows, const ActivationRow* x, int64_t begin, int64_t end,
                                             Lanes (&sums)[R][M]) {
    const size_t count = static_cast<size_t>(end - begin);
    for (int r = 0; r < R; r++) {
      alignas(64) uint8_t raw[64] = {};
      memcpy(raw, rows[r].data + begin * Format::kBytes, count * Format::kBytes);
      const Lanes w = load_weights<Format::format>(raw, 0);
      for (int m = 0; m < M; m++) {
        alignas(64) float values[kWidth] = {};
        memcpy(values, x[m].values + begin, count * sizeof(float));
        sums[r][m] = multiply_add(w, load_lanes(values), sums[r][m]);
      }
    }
  }

  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    Lanes even[R][M], odd[R][M], totals[R][M];
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) even[r][m] = odd[r][m] = totals[r][m] = zero_lanes();
    }
    if constexpr (Format::format != WeightFormat::f8_e4m3) {
      span(rows, x, 0, k, even, odd);
      for (int r = 0; r < R; r++) {
        for (int m = 0; m < M; m++) totals[r][m] = add_lanes(even[r][m], odd[r][m]);
      }
    } else {
      for (int64_t i = 0; i < k; i += quant::kF8ScaleColumns) {
        const int64_t end = i + quant::kF8ScaleColumns < k ? i + quant::kF8ScaleColumns : k;
        span(rows, x, i, end, even, odd);
        for (int r = 0; r < R; r++) {
          // load_floats leaves e4m3 2^-8 too small.
          const Lanes scale = set_lanes(f8_scale(rows[r].scales, i) * 256.0f);
          for (int m = 0; m < M; m++) {
            totals[r][m] = multiply_add(add_lanes(even[r][m], odd[r][m]), scale, totals[r][m]);
            even[r][m] = odd[r][m] = zero_lanes();
          }
        }
      }
    }
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) out[r * M + m] = sum_lanes(totals[r][m]);
    }
  }
};

template <WeightFormat format>
#if TANDEM_ISA_LEVEL >= 2
static constexpr DotKernel kFloats = make_kernel<DotFloats, FloatFormat<format>, 2, 4, 2, 2>();
#else
static constexpr DotKernel kFloats = make_kernel<DotFloats, FloatFormat<format>, 2, 2, 2, 1>();
#endif

#endif

const DotKernel* dot_floats(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::f32: return &kFloats<WeightFormat::f32>;
    case WeightFormat::f16: return &kFloats<WeightFormat::f16>;
    case WeightFormat::bf16: return &kFloats<WeightFormat::bf16>;
    case WeightFormat::f8_e4m3: return &kFloats<WeightFormat::f8_e4m3>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_dot`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_dot_floats() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
