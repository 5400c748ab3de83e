// Panels of weights in blocks of 256 with q8_256 activations: prefill. Same bits as the tiles of dot_q256 (dot_totals).
//
// A block of 256 columns of two vectors of weight rows is unpacked once into the first-level cache; then all tokens pass, a
// few at a time with their sums in registers. Four columns of a token are one dword of its codes, broadcast to all rows:
// activations need no packing, and no sum is ever added across lanes.
//
// avx512: VPDPBUSD adds four products a lane; sums of a sub-block meet its scale as floats, which is exact below 2^24 and
// takes one multiplication slot where VPMULLD takes two. avx2: VPMADDUBSW, added in 16 bits as long as they cannot
// overflow, then VPMADDWD with the scale.
#pragma once

#include <type_traits>

#include "cpu/kernels/few_q256.inl.h"
#include "cpu/kernels/panel_fill256.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// What a tile reads of a token beside its codes.
template <typename Format>
struct TokenBlock {
  static constexpr bool kStarts = TANDEM_ISA_LEVEL >= 2 && Format::kOffset != 0;
  static constexpr bool kPairs = Format::kMins || (TANDEM_ISA_LEVEL < 2 && Format::kOffset != 0);
  alignas(64) int32_t starts[16];  // −offset · Σq of each sub-block
  alignas(32) int32_t pairs[8];    // Σq of two sub-blocks as words

  void read(const int16_t* bsums) {
    if constexpr (Format::kSub == 16) {
      const __m256i sums = load256(bsums);
      if constexpr (kPairs) _mm256_store_si256(reinterpret_cast<__m256i*>(pairs), sums);
#if TANDEM_ISA_LEVEL >= 2
      if constexpr (kStarts) {
        _mm512_store_si512(starts, _mm512_mullo_epi32(_mm512_cvtepi16_epi32(sums), _mm512_set1_epi32(-Format::kOffset)));
      }
#endif
    } else {
      const __m256i sums = _mm256_madd_epi16(load256(bsums), _mm256_set1_epi16(1));
      if constexpr (kPairs) {
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        _mm_store_si128(reinterpret_cast<__m128i*>(pairs), words);
      }
      if constexpr (kStarts) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(starts), _mm256_mullo_epi32(sums, _mm256_set1_epi32(-Format::kOffset)));
      }
    }
  }
};

constexpr int kMostTokens = TANDEM_ISA_LEVEL >= 2 ? 6 : 4;  // of a tile: as many as registers hold

#if TANDEM_ISA_LEVEL >= 2

// The scales of sub-block s as f32.
template <typename Format>
static inline __m512 scale_of(const Panel256& p, int s, int z) {
  if constexpr (Format::kReach == 0) return _mm512_load_ps(reinterpret_cast<const float*>(p.scales[s][z]));
  const __m512i pair = _mm512_load_si512(p.scales[s / 2][z]);
  return rows_float(rows_signed(s % 2 ? pair : rows_left(pair, 16), 16));
}

// totals[t][z][row]: y of T tokens, taken one block further, given Σ scale · code · q of the block as f32.
template <typename Format, int T, typename SumOf>
static inline __attribute__((always_inline)) void add_to_totals(const Panel256& p, const TokenBlock<Format> (&tokens)[T], const ActivationRow* x, int64_t b,
                                                                float* totals, const SumOf& sum_of) {
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
    const __m512 dx = _mm512_set1_ps(x[t].scales[b]);
#pragma GCC unroll 2
    for (int z = 0; z < kPanelVectors; z++) {
      float* y = totals + (t * kPanelVectors + z) * kLaneRows;
      __m512 total = _mm512_fmadd_ps(sum_of(z, t), _mm512_mul_ps(_mm512_load_ps(p.d[z]), dx), _mm512_load_ps(y));
      if constexpr (Format::kMins) {
        __m512i taken = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int i = 0; i < 128 / Format::kSub; i++) {
          taken = _mm512_dpwssd_epi32(taken, _mm512_load_si512(p.pairs[i][z]), _mm512_set1_epi32(tokens[t].pairs[i]));
        }
        total = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(taken), _mm512_mul_ps(_mm512_load_ps(p.dmin[z]), dx), total);
      }
      _mm512_store_ps(y, total);
    }
  }
}

// Sums of one sub-block: a[z][t].
template <typename Format, int T>
static inline __attribute__((always_inline)) void sub_block(const Panel256& p, const int8_t* const* codes, const TokenBlock<Format> (&tokens)[T], int s,
                                                            __m512i (&a)[kPanelVectors][T]) {
  constexpr int kQuads = Format::kSub / 4;
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 2
    for (int z = 0; z < kPanelVectors; z++) a[z][t] = TokenBlock<Format>::kStarts ? _mm512_set1_epi32(tokens[t].starts[s]) : _mm512_setzero_si512();
  }
#pragma GCC unroll 8
  for (int q = 0; q < kQuads; q++) {
    const __m512i w0 = _mm512_load_si512(p.codes[s * kQuads + q][0]), w1 = _mm512_load_si512(p.codes[s * kQuads + q][1]);
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      const __m512i v = _mm512_set1_epi32(load_as<int32_t>(codes[t] + 4 * (s * kQuads + q)));
      a[0][t] = _mm512_dpbusd_epi32(a[0][t], w0, v);
      a[1][t] = _mm512_dpbusd_epi32(a[1][t], w1, v);
    }
  }
}

// Where sums of sub-blocks fit 16 bits, two of them meet their scales at once.
template <typename Format, int T>
static __attribute__((noinline)) void narrow_tile(const Panel256& p, const ActivationRow* x, int64_t b, float* totals) {
  TokenBlock<Format> tokens[T];
  const int8_t* codes[T];
  __m512i sums[kPanelVectors][T];
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
    codes[t] = by_itself(x[t].codes + b * 256);
    tokens[t].read(x[t].bsums + b * 16);
#pragma GCC unroll 2
    for (int z = 0; z < kPanelVectors; z++) sums[z][t] = _mm512_setzero_si512();
  }
  for (int i = 0; i < 128 / Format::kSub; i++) {
    __m512i low[kPanelVectors][T], high[kPanelVectors][T];
    sub_block<Format, T>(p, codes, tokens, 2 * i, low);
    sub_block<Format, T>(p, codes, tokens, 2 * i + 1, high);
#pragma GCC unroll 2
    for (int z = 0; z < kPanelVectors; z++) {
      const __m512i scales = _mm512_load_si512(p.scales[i][z]);
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) {
        const __m512i both = _mm512_mask_blend_epi16(0xaaaaaaaa, low[z][t], _mm512_slli_epi32(high[z][t], 16));
        sums[z][t] = _mm512_dpwssd_epi32(sums[z][t], both, scales);
      }
    }
  }
  add_to_totals<Format, T>(p, tokens, x, b, totals, [&](int z, int t) __attribute__((always_inline)) { return _mm512_cvtepi32_ps(sums[z][t]); });
}

template <typename Format, int T>
static __attribute__((noinline)) void panel_tile(const Panel256& p, const ActivationRow* x, int64_t b, float* totals) {
  constexpr int kSubs = 256 / Format::kSub, kZ = kPanelVectors;
  constexpr bool whole = Format::kGroup == kSubs;
  TokenBlock<Format> tokens[T];
  const int8_t* codes[T];
  for (int t = 0; t < T; t++) {
    codes[t] = by_itself(x[t].codes + b * 256);
    tokens[t].read(x[t].bsums + b * 16);
  }
  __m512i sums[kZ][T];
  __m512 parts[kZ][T];
  for (int group = 0; group < kSubs / Format::kGroup; group++) {
    for (int i = 0; i < Format::kGroup; i++) {
      const int s = group * Format::kGroup + i;
      __m512i a[kZ][T];
      sub_block<Format, T>(p, codes, tokens, s, a);
#pragma GCC unroll 2
      for (int z = 0; z < kZ; z++) {
        const __m512 scale = scale_of<Format>(p, s, z);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
          const __m512 sum = _mm512_cvtepi32_ps(a[z][t]);
          parts[z][t] = i == 0 ? _mm512_mul_ps(sum, scale) : _mm512_fmadd_ps(sum, scale, parts[z][t]);
        }
      }
    }
    if constexpr (!whole) {
#pragma GCC unroll 2
      for (int z = 0; z < kZ; z++) {
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
          const __m512i part = _mm512_cvtps_epi32(parts[z][t]);
          sums[z][t] = group == 0 ? part : _mm512_add_epi32(sums[z][t], part);
        }
      }
    }
  }
  add_to_totals<Format, T>(p, tokens, x, b, totals, [&](int z, int t) __attribute__((always_inline)) {
    return whole ? parts[z][t] : _mm512_cvtepi32_ps(sums[z][t]);
  });
}

#else

template <typename Format>
constexpr bool is_signed_panel = requires { Format::kSigned; };

template <typename Format, int T>
static __attribute__((noinline)) void panel_tile(const Panel256& p, const ActivationRow* x, int64_t b, float* totals) {
  constexpr int kSubs = 256 / Format::kSub, kQuads = Format::kSub / 4, kZ = kPanelVectors, kAdds = Format::kAdds;
  TokenBlock<Format> tokens[T];
  const int8_t* codes[T];
  for (int t = 0; t < T; t++) {
    codes[t] = by_itself(x[t].codes + b * 256);
    tokens[t].read(x[t].bsums + b * 16);
  }
  const auto load = [](const void* at) { return _mm256_load_si256(static_cast<const __m256i*>(at)); };
  __m256i sums[kZ][T];
  for (int z = 0; z < kZ; z++) {
    for (int t = 0; t < T; t++) sums[z][t] = _mm256_setzero_si256();
  }
  for (int s = 0; s < kSubs; s++) {
    for (int part = 0; part < kQuads; part += kAdds) {
      __m256i a[kZ][T];
#pragma GCC unroll 8
      for (int q = 0; q < kAdds; q++) {
        const int quad = s * kQuads + part + q;
        const __m256i w0 = load(p.codes[quad][0]), w1 = load(p.codes[quad][1]);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
          const __m256i v = _mm256_set1_epi32(load_as<int32_t>(codes[t] + 4 * quad));
          __m256i one, two;
          if constexpr (is_signed_panel<Format>) {
            one = _mm256_maddubs_epi16(_mm256_abs_epi8(w0), _mm256_sign_epi8(v, w0));
            two = _mm256_maddubs_epi16(_mm256_abs_epi8(w1), _mm256_sign_epi8(v, w1));
          } else {
            one = _mm256_maddubs_epi16(w0, v);
            two = _mm256_maddubs_epi16(w1, v);
          }
          a[0][t] = q == 0 ? one : _mm256_add_epi16(a[0][t], one);
          a[1][t] = q == 0 ? two : _mm256_add_epi16(a[1][t], two);
          keep_order(a[0][t]);
          keep_order(a[1][t]);
        }
      }
#pragma GCC unroll 2
      for (int z = 0; z < kZ; z++) {
        const __m256i scale = load(p.scales[s][z]);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) sums[z][t] = _mm256_add_epi32(sums[z][t], _mm256_madd_epi16(a[z][t], scale));
      }
    }
  }
  for (int t = 0; t < T; t++) {
    const __m256 dx = _mm256_set1_ps(x[t].scales[b]);
    for (int z = 0; z < kZ; z++) {
      float* y = totals + (t * kZ + z) * kLaneRows;
      __m256i taken = _mm256_setzero_si256();
      if constexpr (TokenBlock<Format>::kPairs) {
        for (int i = 0; i < kSubs / 2; i++) {
          const __m256i pair = _mm256_set1_epi32(tokens[t].pairs[i]);
          taken = _mm256_add_epi32(taken, _mm256_madd_epi16(load(p.pairs[i][z]), pair));
        }
      }
      const __m256i sum = Format::kMins ? sums[z][t] : _mm256_sub_epi32(sums[z][t], taken);
      __m256 total = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), _mm256_mul_ps(_mm256_load_ps(p.d[z]), dx), _mm256_load_ps(y));
      if constexpr (Format::kMins) {
        total = _mm256_fnmadd_ps(_mm256_cvtepi32_ps(taken), _mm256_mul_ps(_mm256_load_ps(p.dmin[z]), dx), total);
      }
      _mm256_store_ps(y, total);
    }
  }
}

#endif

template <typename Format, int T>
static void tile_of(const Panel256& p, const ActivationRow* x, [[maybe_unused]] int64_t blocks, int64_t b, float* totals) {
#if TANDEM_ISA_LEVEL >= 2
  if constexpr (Format::kReach > 0) {
    bool narrow = true;
    for (int t = 0; t < T; t++) narrow &= x[t].bsums[blocks * 16 + b] <= Format::kReach;
    if (Format::kReach == kAnyReach || narrow) return narrow_tile<Format, T>(p, x, b, totals);
  }
  if constexpr (Format::kReach != kAnyReach)
#endif
    panel_tile<Format, T>(p, x, b, totals);
}

using PanelTile = void (*)(const Panel256& p, const ActivationRow* x, int64_t blocks, int64_t b, float* totals);

template <typename Format>
constexpr PanelTile kPanelTiles[] = {tile_of<Format, 1>, tile_of<Format, 2>, tile_of<Format, 3>, tile_of<Format, 4>,
#if TANDEM_ISA_LEVEL >= 2
                                     tile_of<Format, 5>, tile_of<Format, 6>
#endif
};

template <typename Format>
static void multiply_panel(const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
  constexpr int64_t kChunk = 8192 / kPanel256Rows;  // tokens between two passes over the weights: 32 KB of results
  alignas(64) float totals[kChunk * kPanel256Rows];
  Panel256 panel;
  const uint8_t* rows[kPanel256Rows];
  for (int r = 0; r < kPanel256Rows; r++) rows[r] = w[r < count ? r : count - 1].data;
  const int64_t blocks = k / 256;
  for (int64_t begin = 0; begin < tokens; begin += kChunk) {
    const int64_t n = tokens - begin < kChunk ? tokens - begin : kChunk;
    const TokenTiles tiles(n, kMostTokens, kPanel256Rows);
    memset(totals, 0, static_cast<size_t>(n) * kPanel256Rows * sizeof(float));
    for (int64_t b = 0; b < blocks; b++) {
      for (int z = 0; z < kPanelVectors; z++) Format::fill(rows + z * kLaneRows, b * Format::kBytes, panel, z);
      // Weights two blocks ahead come a few rows a tile: behind the last block, those of what is multiplied next.
      const int64_t ahead = b + 2 < blocks ? (b + 2) * Format::kBytes : w->ahead + (b + 2 - blocks) * Format::kBytes;
      for (int64_t i = 0, t = 0; i < tiles.count; i++) {
        const int64_t size = tiles.size(i);
        if (begin == 0) {
          for (int64_t r = tiles.fetched(i); r < tiles.fetched(i + 1); r++) fetch<Format::kBytes>(rows[r] + ahead);
        }
        kPanelTiles<Format>[size - 1](panel, x + begin + t, blocks, b, totals + t * kPanel256Rows);
        t += size;
      }
    }
    for (int64_t t = 0; t < n; t++) memcpy(out + (begin + t) * stride, totals + t * kPanel256Rows, static_cast<size_t>(count) * sizeof(float));
  }
}

// Few tokens go sixteen rows at a time, without a panel.
template <typename Format, typename Few>
static void multiply_few_or_panel(const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
  multiply_few<Few256<Few>>(multiply_panel<Format>, w, count, x, tokens, k, out, stride);
}
// From memory two tokens of q6_k are faster by tiles on AVX2.
template <typename Format>
constexpr int kFewFrom = TANDEM_ISA_LEVEL < 2 && std::is_same_v<Format, PanelQ6K> ? 3 : 2;
template <typename Format, typename Few>
static constexpr PanelKernel kFewOrPanel = {kPanel256Rows, kFewFrom<Format>, multiply_few_or_panel<Format, Few>};
template <typename Format, int from>
static constexpr PanelKernel kPanel256 = {kPanel256Rows, from, multiply_panel<Format>};
constexpr int kMost = 5;

#endif

const PanelKernel* panel_q256(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::q2_k: return &kFewOrPanel<PanelQ2K, FewQ2K>;
    case WeightFormat::q3_k: return &kFewOrPanel<PanelQ3K, FewQ3K>;
    case WeightFormat::q4_k: return &kFewOrPanel<PanelQ4K, FewQ4K>;
    case WeightFormat::q5_k: return &kFewOrPanel<PanelQ5K, FewQ5K>;
    case WeightFormat::q6_k: return &kFewOrPanel<PanelQ6K, FewQ6K>;
    case WeightFormat::iq4_xs: return &kFewOrPanel<PanelIq4Xs, FewIq4Xs>;
    case WeightFormat::iq2_xxs: return &kPanel256<PanelIq2Xxs, kMost>;
    case WeightFormat::iq2_xs: return &kPanel256<PanelIq2Xs, kMost>;
    case WeightFormat::iq2_s: return &kPanel256<PanelIq2S, kMost>;
    case WeightFormat::iq3_xxs: return &kPanel256<PanelIq3Xxs, kMost>;
    case WeightFormat::iq3_s: return &kPanel256<PanelIq3S, kMost>;
    case WeightFormat::iq1_s: return &kPanel256<PanelIq1S, kMost>;
    case WeightFormat::iq1_m: return &kPanel256<PanelIq1M, kMost>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_panel`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_panel_q256() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
