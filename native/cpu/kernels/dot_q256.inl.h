// Weights in blocks of 256 with q8_256 activations, over the blocks as they lie in the file: q2_k q3_k q4_k q5_k q6_k iq4_xs,
// and the formats of dot_grids.
//
// One f32 scale per 256 activations keeps the six-bit scales of the sub-blocks integer: codes meet codes in 16-bit pairs,
// pairs meet their sub-block's scale in int32, and only the sum of the whole block becomes f32, times d_w · d_x. All of it
// is exact up to there (largest: q6_k, 4 · 2·32·127·128 a lane and vector, below 2^27). What unsigned codes are too large
// by is taken off as integers; minima meet the sums of 16 activation codes.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"
#include "cpu/kernels/dot_quads.inl.h"
#include "cpu/kernels/dot_quads_avx2.inl.h"
#include "cpu/kernels/dot_quads_grids.inl.h"
#include "cpu/kernels/dot_totals.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Eight-bit levels: pairs of raised levels would not fit 16 bits.
#if TANDEM_ISA_LEVEL >= 2
template <>
inline __m512i start_of<128>(Codes x) {
  return _mm512_sub_epi32(_mm512_setzero_si512(), _mm512_dpbusd_epi32(_mm512_setzero_si512(), vec_bytes(128), x));
}
// `scale` holds the 16-bit scale twice in each 32-bit lane.
template <>
inline __m512i add_products<128>(__m512i sum, Codes w, Codes x, __m512i start, __m512i scale) {
  const __m512i products = _mm512_dpbusd_epi32(start, w, x);
  return _mm512_add_epi32(sum, _mm512_mullo_epi32(products, _mm512_srai_epi32(scale, 16)));
}
#else
template <>
inline __m256i start_of<128>(Codes) {
  return _mm256_setzero_si256();
}
template <>
inline __m256i add_products<128>(__m256i sum, Codes w, Codes x, __m256i, __m256i scale) {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));  // ≤ 2·127·127
  return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, scale));
}
#endif

template <typename Format, int R, int M>
struct DotQ256 {
  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    Totals<R, M, Format::kMins> totals;
    const int64_t blocks = k / 256;
    for (int64_t b = 0; b < blocks; b++) {
      const uint8_t* block[R];
      decltype(Format::head(nullptr)) head[R];
      decltype(zero_sums()) sums[R][M];
      for (int r = 0; r < R; r++) {
        block[r] = rows[r].data + b * Format::kBytes;
        fetch<Format::kBytes>(block[r] + rows[r].ahead);
        head[r] = Format::head(block[r]);
        for (int m = 0; m < M; m++) sums[r][m] = zero_sums();
      }
#pragma GCC unroll 8
      for (int g = 0; g < kVectors; g++) {
        Codes codes[R];
        decltype(zero_sums()) scales[R];
        for (int r = 0; r < R; r++) {
          if constexpr (is_grid<Format>) codes[r] = Format::codes(head[r], g);
          else codes[r] = Format::codes(block[r], g);
          scales[r] = Format::kSub == 32 ? scales_of_32(head[r].scales, g) : scales_of_16(head[r].scales, g);
        }
        for (int m = 0; m < M; m++) {
          const Codes values = load_codes(x[m].codes + b * 256 + g * (256 / kVectors));
          const auto start = start_of<Format::kOffset>(values);
          for (int r = 0; r < R; r++) {
            sums[r][m] = add_products<Format::kOffset>(sums[r][m], codes[r], values, start, scales[r]);
          }
        }
      }
      totals.add(sums, head, x, b);
    }
    totals.store(out);
  }
};

// Rows of a tile of one token: four where unpacking is the limit.
template <typename Format>
constexpr int kAlone = is_grid<Format> || Format::kBytes < 110 || Format::kOffset == 128 ? 4 : 2;
template <typename Format>
#if TANDEM_ISA_LEVEL >= 2
static constexpr DotKernel kQ256Tiles = make_kernel<DotQ256, Format, kAlone<Format>, 4, 4, 4>();
#else
static constexpr DotKernel kQ256Tiles = make_kernel<DotQ256, Format, 2, 2, 2, 2>();
#endif
// One token by tiles of dot_quads (avx512), dot_quads_avx2 and dot_quads_grids.
template <typename Format>
static constexpr DotKernel with_quads(DotTile tile) {
  DotKernel kernel = kQ256Tiles<Format>;
  kernel.rows[0] = 4;
  kernel.many[0] = tile;
  return kernel;
}
#if TANDEM_ISA_LEVEL == 2
template <typename Format>
constexpr DotTile kQuads16 = quad_tile16<Format>;
#else
template <typename Format>
constexpr DotTile kQuads16 = quad_tile<Format>;
#endif
template <typename Format>
static constexpr DotKernel kQ256 = kQ256Tiles<Format>;
template <>
constexpr DotKernel kQ256<DotQ2K> = with_quads<DotQ2K>(kQuads16<QuadQ2K>);
template <>
constexpr DotKernel kQ256<DotQ3K> = with_quads<DotQ3K>(kQuads16<QuadQ3K>);
template <>
constexpr DotKernel kQ256<DotQ4K> = with_quads<DotQ4K>(quad_tile<QuadQ4K>);
template <>
constexpr DotKernel kQ256<DotQ5K> = with_quads<DotQ5K>(quad_tile<QuadQ5K>);
template <>
constexpr DotKernel kQ256<DotQ6K> = with_quads<DotQ6K>(kQuads16<QuadQ6K>);
template <>
constexpr DotKernel kQ256<DotIq4Xs> = with_quads<DotIq4Xs>(quad_tile<QuadIq4Xs>);
#if TANDEM_ISA_LEVEL == 1
template <>
constexpr DotKernel kQ256<DotIq2Xxs> = with_quads<DotIq2Xxs>(quad_tile<QuadGrid<DotIq2Xxs, 32, 1>>);
template <>
constexpr DotKernel kQ256<DotIq2Xs> = with_quads<DotIq2Xs>(quad_tile<QuadGrid<DotIq2Xs, 32, 1>>);
template <>
constexpr DotKernel kQ256<DotIq2S> = with_quads<DotIq2S>(quad_tile<QuadGrid<DotIq2S, 32, 1>>);
template <>
constexpr DotKernel kQ256<DotIq3Xxs> = with_quads<DotIq3Xxs>(quad_tile<QuadGrid<DotIq3Xxs, 64, 2>>);
template <>
constexpr DotKernel kQ256<DotIq3S> = with_quads<DotIq3S>(quad_tile<QuadGrid<DotIq3S, 64, 8>>);
template <>
constexpr DotKernel kQ256<DotIq1S> = with_quads<DotIq1S>(quad_tile<QuadIq1S>);
#endif

#endif

const DotKernel* dot_q256(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::q2_k: return &kQ256<DotQ2K>;
    case WeightFormat::q3_k: return &kQ256<DotQ3K>;
    case WeightFormat::q4_k: return &kQ256<DotQ4K>;
    case WeightFormat::q5_k: return &kQ256<DotQ5K>;
    case WeightFormat::q6_k: return &kQ256<DotQ6K>;
    case WeightFormat::iq4_xs: return &kQ256<DotIq4Xs>;
    case WeightFormat::iq2_xxs: return &kQ256<DotIq2Xxs>;
    case WeightFormat::iq2_xs: return &kQ256<DotIq2Xs>;
    case WeightFormat::iq2_s: return &kQ256<DotIq2S>;
    case WeightFormat::iq3_xxs: return &kQ256<DotIq3Xxs>;
    case WeightFormat::iq3_s: return &kQ256<DotIq3S>;
    case WeightFormat::iq1_s: return &kQ256<DotIq1S>;
    case WeightFormat::iq1_m: return &kQ256<DotIq1M>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_dot`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_dot_q256() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
