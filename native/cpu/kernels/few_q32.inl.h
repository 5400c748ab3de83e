// A few tokens with sixteen rows of weights in blocks of 32. The order of every element's operations is that of dot_q32.
#pragma once

#include "cpu/kernels/few_lanes.inl.h"
#include "cpu/kernels/q32_rows.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// What the sums of products start with: what codes that are too large add too much, with its sign changed.
template <typename Format>
static inline Rows few_start(const ActivationRow& x, int64_t b) {
  return rows_set(Format::kLogRaise ? x.raise[b] >> (7 - Format::kLogRaise) : 0);
}

// Sums of a block's 32 products: [vector][token].
template <typename Format, int T>
static inline __attribute__((always_inline)) void block_sums_of(const Rows (&codes)[kFewVectors][kDwords], const int8_t* const (&values)[T], const ActivationRow* x, int64_t b, Rows (&sums)[kFewVectors][T]) {
  constexpr bool whole = TANDEM_ISA_LEVEL == 2 || is_wide<Format>;  // sums start as numbers of 32 bits
  constexpr int kAdds = whole ? kDwords : sums_that_fit(32, Format::kMost);
  for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) {
    if constexpr (whole) sums[z][t] = rows_set(0);
    if constexpr (TANDEM_ISA_LEVEL == 2) sums[z][t] = few_start<Format>(x[t], b);
  });
#pragma GCC unroll 8
  for (int part = 0; part < kDwords; part += kAdds) {
    [[maybe_unused]] Rows pairs[kFewVectors][T];
#pragma GCC unroll 8
    for (int j = part; j < part + kAdds; j++) {
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        const Rows four = broadcast_codes(values[t] + 4 * j);
        for (int z = 0; z < kFewVectors; z++) {
#if TANDEM_ISA_LEVEL == 2
          sums[z][t] = add_products(sums[z][t], codes[z][j], four);
#else
          if constexpr (whole) sums[z][t] = add_pairs(sums[z][t], first_products<true>(codes[z][j], four), _mm256_set1_epi16(1));
          else pairs[z][t] = j == part ? first_products<false>(codes[z][j], four) : add_products(pairs[z][t], codes[z][j], four);
#endif
        }
      }
    }
#if TANDEM_ISA_LEVEL == 1
    if constexpr (!whole) {
      for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) {
        sums[z][t] = add_pairs(part == 0 ? few_start<Format>(x[t], b) : sums[z][t], pairs[z][t], _mm256_set1_epi16(1));
      });
    }
#endif
  }
}

template <typename Format, int T>
static inline __attribute__((always_inline)) void few_32(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
  constexpr int kZ = kFewVectors, kFetched = 4;  // blocks that are fetched at once
  const LaneAt rows(w);
  RowFloats totals[kZ][T];
  const int8_t* values[T];
  for (int t = 0; t < T; t++) values[t] = few_codes(x[t].codes);
  for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { totals[z][t] = zero_row_floats(); });
  for (int64_t b = 0; b < k / 32; b++) {
    const int64_t at = b * Format::kBytes;
    if (b % kFetched == 0) {
      for (int r = 0; r < kFewRows; r++) fetch<kFetched * Format::kBytes>(w.at(r) + at + ahead);
    }
    Rows codes[kZ][kDwords];
    RowFloats scales[kZ], mins[kZ];
#pragma GCC unroll 2
    for (int z = 0; z < kZ; z++) {
      const int first = z * kLaneRows;
      const uint8_t* p = rows.of(z, at);
      Codes low[4], high[4], headers[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; i++) {
        const CodeHalves halves = Format::codes([&](int l) __attribute__((always_inline)) { return rows.row(p, 4 * l + i); });
        low[i] = halves.low;
        high[i] = halves.high;
        if constexpr (Format::kScale == Scale::header) headers[i] = halves.header;
      }
      transpose_dwords(low, codes[z]);
      transpose_dwords(high, codes[z] + 4);
      if constexpr (Format::kScale == Scale::header) {
        scales[z] = header_halves<0>(headers);
        if constexpr (Format::kMin) mins[z] = header_halves<1>(headers);
      } else {
        scales[z] = row_scales<Format::kScale>([&](int i) __attribute__((always_inline)) {
          return is_apart(Format::kScale) ? w.scales_at(first + i) + b * apart_bytes(Format::kScale) : rows.row(p, i);
        });
      }
    }
    Rows sums[kZ][T];
    block_sums_of<Format, T>(codes, values, x, b, sums);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) values[t] = few_codes(values[t] + 32);
    for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) {
      totals[z][t] = fused(times(scales[z], x[t].scales[b]), rows_float(sums[z][t]), totals[z][t]);
      if constexpr (Format::kMin) totals[z][t] = fused(mins[z], row_floats_of(x[t].sums[b]), totals[z][t]);
    });
  }
  for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { store_row_floats(out + t * stride + z * kLaneRows, totals[z][t]); });
}

template <typename Format>
constexpr int kFew32Most = few_most(0, 8);
template <>
constexpr int kFew32Most<Q8_0Codes> = few_most(5, 8);
template <>
constexpr int kFew32Most<Q4_0Codes> = few_most(2, 8);
template <>
constexpr int kFew32Most<Iq4NlCodes> = few_most(6, 8);
template <>
constexpr int kFew32Most<Mxfp4Codes> = few_most(3, 8);
template <>
constexpr int kFew32Most<Mxfp4G32Codes> = few_most(6, 8);
template <>
constexpr int kFew32Most<Int4G32Codes> = few_most(6, 8);

template <typename Format>
struct Few32 {
  static constexpr int kMost = kFew32Most<Format>;
  template <int T>
  static void tile(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
    few_32<Format, T>(w, x, k, ahead, out, stride);
  }
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
