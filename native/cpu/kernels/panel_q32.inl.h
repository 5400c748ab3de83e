// Panels of weights in blocks of 32 with q8_32 activations: 32 weight rows × 256 columns are unpacked once into the
// first-level cache, a weight row in each 32-bit lane with four consecutive columns of it, and all tokens pass by.
//
// The order of every element's operations is that of dot_q32: the sum of a block is complete as an integer before it is
// scaled, blocks follow each other. The running sums of 256 columns wait in `out`.
#pragma once

#include "cpu/kernels/few_q32.inl.h"
#include "cpu/kernels/panel_tile.inl.h"
#include "cpu/kernels/q32_rows.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

constexpr int kQ32Rows = 32;    // of a panel
constexpr int kQ32Blocks = 8;   // of a panel: 256 columns

constexpr int kVectors = kQ32Rows / kLaneRows;

struct Q32Panel {
  alignas(64) Rows codes[kQ32Blocks][kVectors][kDwords];
  alignas(64) float scales[kQ32Blocks][kQ32Rows];
  alignas(64) float mins[kQ32Blocks][kQ32Rows];
};

// Block `number` of all rows.
template <typename Format>
static inline __attribute__((always_inline)) void unpack_block(const uint8_t* const* w, const uint8_t* const* s, int64_t number, Q32Panel& panel, int block) {
  const int64_t at = number * Format::kBytes;
  for (int v = 0; v < kVectors; v++) {
    const uint8_t* const* rows = w + v * kLaneRows;
    Codes low[4], high[4], headers[4];
    for (int i = 0; i < 4; i++) {
      const CodeHalves halves = Format::codes([&](int l) __attribute__((always_inline)) { return rows[4 * l + i] + at; });
      low[i] = halves.low;
      high[i] = halves.high;
      if constexpr (Format::kScale == Scale::header) headers[i] = halves.header;
    }
    transpose_dwords(low, panel.codes[block][v]);
    transpose_dwords(high, panel.codes[block][v] + 4);
    if constexpr (Format::kScale == Scale::header) {
      store_row_floats(panel.scales[block] + v * kLaneRows, header_halves<0>(headers));
      if constexpr (Format::kMin) store_row_floats(panel.mins[block] + v * kLaneRows, header_halves<1>(headers));
    }
  }
  if constexpr (Format::kScale == Scale::header) return;
  for (int r = 0; r < kQ32Rows; r += 8) {
    const __m256 scales = eight_scales<Format::kScale>([&](int i) __attribute__((always_inline)) {
      return is_apart(Format::kScale) ? s[r + i] + number * apart_bytes(Format::kScale) : w[r + i] + at;
    });
    _mm256_store_ps(panel.scales[block] + r, scales);
  }
}

#if TANDEM_ISA_LEVEL >= 2

// `blocks` blocks from `first` on of T tokens with the whole panel; `out` goes on from what it holds.
template <typename Format, int T>
static void pass_tokens(const Q32Panel& panel, int blocks, const ActivationRow* x, int64_t first, float* out, int64_t stride) {
  RowFloats sums[kVectors][T];
  const int8_t* codes[T];
  for (int t = 0; t < T; t++) {
    codes[t] = x[t].codes + first * 32;
    for (int v = 0; v < kVectors; v++) sums[v][t] = load_row_floats(out + t * stride + v * kLaneRows);
  }
  for (int b = 0; b < blocks; b++) {
    Rows products[kVectors][T];
    for (int t = 0; t < T; t++) {
      const Rows start = Format::kLogRaise ? _mm512_srai_epi32(_mm512_set1_epi32(x[t].raise[first + b]), 7 - Format::kLogRaise) : _mm512_setzero_si512();
      for (int v = 0; v < kVectors; v++) products[v][t] = start;
    }
#pragma GCC unroll 8
    for (int j = 0; j < kDwords; j++) {
      const Rows w0 = panel.codes[b][0][j], w1 = panel.codes[b][1][j];
#pragma GCC unroll 6
      for (int t = 0; t < T; t++) {
        const Rows values = broadcast_codes(codes[t] + b * 32 + 4 * j);
        products[0][t] = _mm512_dpbusd_epi32(products[0][t], w0, values);
        products[1][t] = _mm512_dpbusd_epi32(products[1][t], w1, values);
      }
    }
    for (int v = 0; v < kVectors; v++) {
      const RowFloats scales = load_row_floats(panel.scales[b] + v * kLaneRows);
      for (int t = 0; t < T; t++) {
        sums[v][t] = fused(times(scales, x[t].scales[first + b]), _mm512_cvtepi32_ps(products[v][t]), sums[v][t]);
        if constexpr (Format::kMin) {
          sums[v][t] = fused(load_row_floats(panel.mins[b] + v * kLaneRows), _mm512_set1_ps(x[t].sums[first + b]), sums[v][t]);
        }
      }
    }
  }
  for (int t = 0; t < T; t++) {
    for (int v = 0; v < kVectors; v++) store_row_floats(out + t * stride + v * kLaneRows, sums[v][t]);
  }
}

#else

// Adds dword j of T tokens times that of 2 · 8 rows, as integers of 32 bits where codes are wide, else as pairs of 16 bits.
template <typename Format, int T>
static inline __attribute__((always_inline)) void add_products(const Rows* first, const Rows* second, const int8_t* const* x, int j, bool start,
                                                               Rows (&a)[T], Rows (&b)[T]) {
  const __m256i w0 = first[j], w1 = second[j];
  if constexpr (is_wide<Format>) {
    const __m256i ones = _mm256_set1_epi16(1), m0 = _mm256_abs_epi8(w0), m1 = _mm256_abs_epi8(w1);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
      const __m256i values = broadcast_codes(x[t] + 4 * j);
      const __m256i p0 = _mm256_madd_epi16(_mm256_maddubs_epi16(m0, _mm256_sign_epi8(values, w0)), ones);
      const __m256i p1 = _mm256_madd_epi16(_mm256_maddubs_epi16(m1, _mm256_sign_epi8(values, w1)), ones);
      a[t] = start ? p0 : _mm256_add_epi32(a[t], p0);
      b[t] = start ? p1 : _mm256_add_epi32(b[t], p1);
      keep_order(a[t]);
      keep_order(b[t]);
    }
  } else {
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
      const __m256i values = broadcast_codes(x[t] + 4 * j);
      const __m256i p0 = _mm256_maddubs_epi16(w0, values), p1 = _mm256_maddubs_epi16(w1, values);
      a[t] = start ? p0 : _mm256_add_epi16(a[t], p0);
      b[t] = start ? p1 : _mm256_add_epi16(b[t], p1);
      keep_order(a[t]);
      keep_order(b[t]);
    }
  }
}

// Sums of 32 products of 2 · 8 rows.
template <typename Format, int T>
static inline __attribute__((always_inline)) void block_products(const Rows* first, const Rows* second, const int8_t* const* x, Rows (&a)[T], Rows (&b)[T]) {
  if constexpr (is_wide<Format>) {
#pragma GCC unroll 8
    for (int j = 0; j < kDwords; j++) add_products<Format, T>(first, second, x, j, j == 0, a, b);
  } else {
    // So many pairs of products fit 16 bits.
    constexpr int kSteps = 32767 / (2 * 127 * Format::kMost) >= kDwords ? kDwords : kDwords / 2;
    static_assert(kSteps * 2 * 127 * Format::kMost <= 32767);
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 8
    for (int j = 0; j < kSteps; j++) add_products<Format, T>(first, second, x, j, j == 0, a, b);
#pragma GCC unroll 4
    for (int t = 0; t < T; t++) {
      a[t] = _mm256_madd_epi16(a[t], ones);
      b[t] = _mm256_madd_epi16(b[t], ones);
    }
    if constexpr (kSteps < kDwords) {
      Rows c[T], d[T];
#pragma GCC unroll 8
      for (int j = kSteps; j < kDwords; j++) add_products<Format, T>(first, second, x, j, j == kSteps, c, d);
#pragma GCC unroll 4
      for (int t = 0; t < T; t++) {
        a[t] = _mm256_add_epi32(a[t], _mm256_madd_epi16(c[t], ones));
        b[t] = _mm256_add_epi32(b[t], _mm256_madd_epi16(d[t], ones));
      }
    }
  }
}

template <typename Format, int T>
static void pass_tokens(const Q32Panel& panel, int blocks, const ActivationRow* x, int64_t first, float* out, int64_t stride) {
  for (int v = 0; v < kVectors; v += 2) {
    alignas(32) RowFloats sums[T][2];  // in memory: 16 registers are for the integers
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) sums[t][i] = load_row_floats(out + t * stride + (v + i) * kLaneRows);
    }
    for (int b = 0; b < blocks; b++) {
      const int8_t* codes[T];
      for (int t = 0; t < T; t++) codes[t] = by_itself(x[t].codes + (first + b) * 32);
      Rows products[2][T];
      block_products<Format, T>(panel.codes[b][v], panel.codes[b][v + 1], codes, products[0], products[1]);
#pragma GCC unroll 2
      for (int i = 0; i < 2; i++) {
        const RowFloats scales = load_row_floats(panel.scales[b] + (v + i) * kLaneRows);
#pragma GCC unroll 4
        for (int t = 0; t < T; t++) {
          Rows whole = products[i][t];
          if constexpr (Format::kLogRaise && !is_wide<Format>) {
            whole = _mm256_add_epi32(whole, _mm256_set1_epi32(x[t].raise[first + b] >> (7 - Format::kLogRaise)));
          }
          sums[t][i] = fused(times(scales, x[t].scales[first + b]), _mm256_cvtepi32_ps(whole), sums[t][i]);
          if constexpr (Format::kMin) {
            sums[t][i] = fused(load_row_floats(panel.mins[b] + (v + i) * kLaneRows), _mm256_set1_ps(x[t].sums[first + b]), sums[t][i]);
          }
        }
      }
    }
    for (int t = 0; t < T; t++) {
      for (int i = 0; i < 2; i++) store_row_floats(out + t * stride + (v + i) * kLaneRows, sums[t][i]);
    }
  }
}

#endif

template <typename Format>
struct PanelQ32 {
  static void pass(const Q32Panel& panel, int blocks, const ActivationRow* x, int count, int64_t first, float* out, int64_t stride) {
    switch (count) {
      case 1: return pass_tokens<Format, 1>(panel, blocks, x, first, out, stride);
      case 2: return pass_tokens<Format, 2>(panel, blocks, x, first, out, stride);
      case 3: return pass_tokens<Format, 3>(panel, blocks, x, first, out, stride);
#if TANDEM_ISA_LEVEL >= 2
      case 4: return pass_tokens<Format, 4>(panel, blocks, x, first, out, stride);
      case 5: return pass_tokens<Format, 5>(panel, blocks, x, first, out, stride);
#endif
      default: return pass_tokens<Format, kTokens>(panel, blocks, x, first, out, stride);
    }
  }

  // All rows of the panel; out has room for them.
  static void whole(const uint8_t* const* w, const uint8_t* const* s, const ActivationRow* x, int64_t tokens, int64_t k, int64_t ahead, float* out, int64_t stride) {
    Q32Panel panel;
    const TokenTiles tiles(tokens, kTokens, kQ32Rows);
    for (int64_t t = 0; t < tokens; t++) {
      for (int v = 0; v < kVectors; v++) store_row_floats(out + t * stride + v * kLaneRows, zero_row_floats());
    }
    const int64_t all = k / 32;
    for (int64_t first = 0; first < all; first += kQ32Blocks) {
      const int blocks = static_cast<int>(all - first < kQ32Blocks ? all - first : kQ32Blocks);
      // The next piece comes a few rows a tile: behind the last one, that of what is multiplied next.
      const int64_t next = first + kQ32Blocks < all ? (first + kQ32Blocks) * Format::kBytes : ahead;
      for (int b = 0; b < blocks; b++) unpack_block<Format>(w, s, first + b, panel, b);
      for (int64_t i = 0, t = 0; i < tiles.count; i++) {
        const int64_t size = tiles.size(i);
        for (int64_t r = tiles.fetched(i); r < tiles.fetched(i + 1); r++) fetch<kQ32Blocks * Format::kBytes>(w[r] + next);
        pass(panel, blocks, x + t, static_cast<int>(size), first, out + t * stride, stride);
        t += size;
      }
    }
  }

  static void multiply(const WeightRow* rows, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
    const uint8_t *w[kQ32Rows], *s[kQ32Rows];
    for (int r = 0; r < kQ32Rows; r++) {
      w[r] = rows[r < count ? r : count - 1].data;
      s[r] = rows[r < count ? r : count - 1].scales;
    }
    if (count == kQ32Rows) return whole(w, s, x, tokens, k, rows->ahead, out, stride);
    // Too few rows: the last one stands in for those that are missing, through memory of our own.
    constexpr int64_t kSome = 32;
    for (int64_t t = 0; t < tokens; t += kSome) {
      alignas(64) float all[kSome][kQ32Rows];
      const int64_t some = tokens - t < kSome ? tokens - t : kSome;
      whole(w, s, x + t, some, k, rows->ahead, all[0], kQ32Rows);
      for (int64_t i = 0; i < some; i++) memcpy(out + (t + i) * stride, all[i], static_cast<size_t>(count) * sizeof(float));
    }
  }
};

// Few tokens go sixteen rows at a time, without a panel.
template <typename Format>
static void multiply_few_or_panel(const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
  multiply_few<Few32<Format>>(PanelQ32<Format>::multiply, w, count, x, tokens, k, out, stride);
}
template <typename Format>
static constexpr PanelKernel kPanelQ32 = {kQ32Rows, 2, multiply_few_or_panel<Format>};

#endif

const PanelKernel* panel_q32(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::q8_0: return &kPanelQ32<Q8_0Codes>;
    case WeightFormat::q4_0: return &kPanelQ32<Q4_0Codes>;
    case WeightFormat::q4_1: return &kPanelQ32<Q4_1Codes>;
    case WeightFormat::q5_0: return &kPanelQ32<Q5_0Codes>;
    case WeightFormat::q5_1: return &kPanelQ32<Q5_1Codes>;
    case WeightFormat::iq4_nl: return &kPanelQ32<Iq4NlCodes>;
    case WeightFormat::mxfp4: return &kPanelQ32<Mxfp4Codes>;
    case WeightFormat::mxfp4_g32: return &kPanelQ32<Mxfp4G32Codes>;
    case WeightFormat::int4_g32: return &kPanelQ32<Int4G32Codes>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_panel`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_panel_q32() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
