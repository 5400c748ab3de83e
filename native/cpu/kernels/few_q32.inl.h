// A few tokens with sixteen rows of weights in blocks of 32. The order of every element's operations is that of dot_q32.
#pragma once

#include "cpu/kernels/few_lanes.inl.h"
#include "cpu/kernels/q32_rows.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

template <typename Format, int T>
static __attribute__((noinline)) void few_32(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
  constexpr int kFetched = 4;  // blocks that are fetched at once
  RowFloats totals[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) totals[t] = zero_row_floats();
  for (int64_t b = 0; b < k / 32; b++) {
    const int64_t at = b * Format::kBytes;
    if (b % kFetched == 0) {
      for (int r = 0; r < kLaneRows; r++) fetch<kFetched * Format::kBytes>(w.at(r) + at + ahead);
    }
    Codes low[4], high[4], headers[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
      const CodeHalves halves = Format::codes([&](int l) __attribute__((always_inline)) { return w.at(4 * l + i) + at; });
      low[i] = halves.low;
      high[i] = halves.high;
      if constexpr (Format::kScale == Scale::header) headers[i] = halves.header;
    }
    Row codes[kDwords];
    transpose_dwords(low, codes);
    transpose_dwords(high, codes + 4);
    RowFloats scales, mins;
    if constexpr (Format::kScale == Scale::header) {
      scales = header_halves<0>(headers);
      if constexpr (Format::kMin) mins = header_halves<1>(headers);
    } else {
      const auto eight = [&](int first) __attribute__((always_inline)) {
        return eight_scales<Format::kScale>([&](int i) __attribute__((always_inline)) {
          return is_apart(Format::kScale) ? w.scales_at(first + i) + b * apart_bytes(Format::kScale) : w.at(first + i) + at;
        });
      };
      scales = _mm512_insertf32x8(_mm512_castps256_ps512(eight(0)), eight(8), 1);
    }
    Row sums[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      sums[t] = Format::kLogRaise ? _mm512_srai_epi32(_mm512_set1_epi32(x[t].raise[b]), 7 - Format::kLogRaise) : _mm512_setzero_si512();
    }
#pragma GCC unroll 8
    for (int j = 0; j < kDwords; j++) {
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) sums[t] = _mm512_dpbusd_epi32(sums[t], codes[j], broadcast_codes(x[t].codes + b * 32 + 4 * j));
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      totals[t] = fused(times(scales, x[t].scales[b]), _mm512_cvtepi32_ps(sums[t]), totals[t]);
      if constexpr (Format::kMin) totals[t] = fused(mins, _mm512_set1_ps(x[t].sums[b]), totals[t]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) store_row_floats(out + t * stride, totals[t]);
}

template <typename Format>
constexpr FewTile kFew32[8] = {few_32<Format, 1>, few_32<Format, 2>, few_32<Format, 3>, few_32<Format, 4>,
                                        few_32<Format, 5>, few_32<Format, 6>, few_32<Format, 7>, few_32<Format, 8>};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
