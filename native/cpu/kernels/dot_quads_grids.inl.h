// The formats of dot_grids for the tiles of dot_quads_avx2: iq2_xxs iq2_xs iq2_s iq3_xxs iq3_s iq1_s.
#pragma once

#include "cpu/kernels/dot_quads_avx2.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 1

// Levels as the book has them; their signs go over to x, so that nothing is raised.
template <typename Grid, int kRows, int kEighths>
struct QuadGrid : QuadFormat {
  static constexpr int kBytes = Grid::kBytes, kSub = Grid::kSub;
  static constexpr float kUnit = kEighths * 0.125f;
  struct Head : QuadHead {
    GridHead<kRows> rows[4];
  };
  static void head(const uint8_t* const (&block)[4], const int16_t*, Head& head) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
      head.rows[r] = Grid::head(block[r]);
      const Scales& words = head.rows[r].scales;
      if constexpr (kSub == 16) {
        put_words(_mm256_blend_epi32(words.low, words.high, 0xf0), r, head);
      } else {
        const __m256i first = _mm256_unpacklo_epi16(words.low, words.low), second = _mm256_unpackhi_epi16(words.low, words.low);
        put_words(_mm256_blend_epi32(first, second, 0xf0), r, head);
      }
    }
    head.halves = quad_halves_at(block, 0);
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t*, const Head& head, int r, int g, Codes x) {
    const Codes levels = Grid::levels(head.rows[r], g);
    const __m256i negative = bits_to_bytes(head.rows[r].signs, g);
    return _mm256_maddubs_epi16(levels, _mm256_sign_epi8(x, either(negative, vec_bytes(1))));
  }
};

// 8 · level ± 1 with one sign for a sub-block: what that is less than 8 · (level + 1) goes by the sums of x.
struct QuadIq1S : QuadFormat {
  static constexpr int kBytes = 50, kSub = 32;
  static constexpr bool kShifted = true;
  static constexpr float kUnit = 0.125f;
  struct Head : QuadHead {
    alignas(32) uint16_t rows[4][32];
  };
  static void head(const uint8_t* const (&block)[4], const int16_t* bsums, Head& head) {
    const __m256i each = quad_code_sums(bsums);
    __m256i taken[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      const __m256i packed = quad_load(block, i, 34);
      const __m256i scales = odd_scales(_mm256_and_si256(_mm256_srli_epi16(packed, 12), _mm256_set1_epi16(7)));
      const __m256i eights = _mm256_slli_epi16(scales, 3);
      put_pairs(eights, i, head);
      taken[i] = _mm256_madd_epi16(_mm256_sub_epi16(eights, _mm256_sign_epi16(scales, either(packed, _mm256_set1_epi16(1)))), each);
    }
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) iq1_s_rows(block[r], head.rows[r]);
    head.taken = quad_sums(taken[0], taken[1]);
    head.halves = quad_halves_at(block, 0);
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t*, const Head& head, int r, int g, Codes x) {
    const Codes levels = rows_of_book(quant::kGridIq1S.rows, head.rows[r], g);
    return _mm256_maddubs_epi16(_mm256_add_epi8(levels, vec_bytes(1)), x);
  }
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
