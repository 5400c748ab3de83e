// Tiles of four rows and one token for blocks of 256 on AVX2: decode. Same bits as dot_q256. Formats here: q2_k q3_k q4_k q5_k q6_k
// iq4_xs; those with code books in dot_quads_grids.
//
// x is loaded once for four rows. Heads of four rows are unpacked together, their scales put down as words: pairs of products meet
// them as broadcasts (sub-blocks of 32: a load that takes no place beside the arithmetic) or spread by one shuffle (sub-blocks of
// 16). What codes are too large by is taken off a block's sum through the sums of x, and four sums are added while transposed.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 1

// Four blocks. scales: sixteen words of each row, or eight words twice; taken: what minima (or a shift) take off; halves: d of four rows,
// then dmin.
struct QuadHead {
  alignas(32) int16_t scales[4][16];
  __m128i taken, halves;
};

// Sixteen bytes of the rows `first` and `first` + 2.
static inline __m256i quad_load(const uint8_t* const (&block)[4], int first, int offset) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(block[first] + offset)), load128(block[first + 2] + offset), 1);
}
static inline __m256i both_lanes(__m128i v) { return _mm256_broadcastsi128_si256(v); }
// Dword 0 of each lane of two vectors in the order of the rows: d of four rows, then dmin, as words.
static inline __m128i quad_halves(__m128i dwords) {
  return _mm_shuffle_epi8(dwords, _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0));
}
static inline __m128i quad_halves(__m256i even, __m256i odd) {
  const __m256i pairs = _mm256_unpacklo_epi32(even, odd);
  return quad_halves(_mm_unpacklo_epi64(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1)));
}
// d (and dmin) at `offset`.
static inline __m128i quad_halves_at(const uint8_t* const (&block)[4], int offset) {
  const auto word = [&](int r) { return load_as<int16_t>(block[r] + offset); };
  const __m128i two = _mm_insert_epi16(_mm_cvtsi32_si128(static_cast<uint16_t>(word(0))), word(1), 1);
  return _mm_insert_epi16(_mm_insert_epi16(two, word(2), 2), word(3), 3);
}
// What four rows add up to: row r in dword r.
static inline __m128i quad_sums(const __m256i (&v)[4]) {
  const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
  const __m256i b = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
  const __m256i c = _mm256_add_epi32(_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
  return _mm_add_epi32(_mm256_castsi256_si128(c), _mm256_extracti128_si256(c, 1));
}
// The same of rows 0 and 2, and 1 and 3, a lane each.
static inline __m128i quad_sums(__m256i even, __m256i odd) {
  const __m256i a = _mm256_add_epi32(_mm256_unpacklo_epi32(even, odd), _mm256_unpackhi_epi32(even, odd));
  const __m128i low = _mm256_castsi256_si128(a), high = _mm256_extracti128_si256(a, 1);
  return _mm_add_epi32(_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high));
}
// Puts down eight words of the rows `first` and `first` + 2, each as a pair.
static inline void put_pairs(__m256i words, int first, QuadHead& head) {
  const __m256i low = _mm256_unpacklo_epi16(words, words), high = _mm256_unpackhi_epi16(words, words);
  _mm256_store_si256(reinterpret_cast<__m256i*>(head.scales[first]), _mm256_permute2x128_si256(low, high, 0x20));
  _mm256_store_si256(reinterpret_cast<__m256i*>(head.scales[first + 2]), _mm256_permute2x128_si256(low, high, 0x31));
}
static inline void put_words(__m256i words, int row, QuadHead& head) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(head.scales[row]), words);
}

// The bit at place `from` of each byte at place `to`.
static inline __m256i bit_to(__m256i v, int from, int to) {
  return both(from < to ? shift_left(v, to - from) : shift_right(v, from - to), 1 << to);
}

// Σq of the sub-blocks of 32 as words, in both lanes.
static inline __m256i quad_code_sums(const int16_t* bsums) {
  const __m256i sums = _mm256_madd_epi16(load256(bsums), _mm256_set1_epi16(1));
  return both_lanes(_mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
}

// q4_k and q5_k.
static inline void quad_k_head(const uint8_t* const (&block)[4], const int16_t* bsums, QuadHead& head) {
  const __m256i each = quad_code_sums(bsums);
  __m256i heads[2], taken[2];
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    // d, a b c → six bits of s0–3, s4–7, m0–3, m4–7.
    heads[i] = quad_load(block, i, 0);
    const __m256i low = _mm256_srlv_epi32(_mm256_shuffle_epi32(heads[i], 0xed), both_lanes(_mm_set_epi32(4, 0, 0, 0)));
    const __m256i high = _mm256_srli_epi32(_mm256_shuffle_epi32(heads[i], 0x84), 2);
    const __m256i six = _mm256_and_si256(low, both_lanes(_mm_set_epi32(0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f)));
    const __m256i bytes = either(six, _mm256_and_si256(high, both_lanes(_mm_set_epi32(0x30303030, 0, 0x30303030, 0))));
    put_pairs(_mm256_unpacklo_epi8(bytes, _mm256_setzero_si256()), i, head);
    taken[i] = _mm256_madd_epi16(_mm256_unpackhi_epi8(bytes, _mm256_setzero_si256()), each);
  }
  head.taken = quad_sums(taken[0], taken[1]);
  head.halves = quad_halves(heads[0], heads[1]);
}

// Formats: pairs(block, head, r, g, x), the products of columns [32g, 32g + 32) of row r, added up in pairs; codes are too large by
// kOffset; numbers are in units of kUnit · d; with kShifted `taken` comes off the sum.
struct QuadFormat {
  using Head = QuadHead;
  static constexpr int kOffset = 0;
  static constexpr bool kMins = false, kShifted = false;
  static constexpr float kUnit = 1.0f;
};

struct QuadQ4K : QuadFormat {
  static constexpr int kBytes = 144, kSub = 32;
  static constexpr bool kMins = true;
  static void head(const uint8_t* const (&block)[4], const int16_t* bsums, QuadHead& head) { quad_k_head(block, bsums, head); }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    return _mm256_maddubs_epi16(DotQ4K::codes(block, g), x);
  }
};

struct QuadQ5K : QuadFormat {
  static constexpr int kBytes = 176, kSub = 32;
  static constexpr bool kMins = true;
  static void head(const uint8_t* const (&block)[4], const int16_t* bsums, QuadHead& head) { quad_k_head(block, bsums, head); }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    const Codes four = both(shift_right(load256(block + 48 + 32 * (g / 2)), 4 * (g & 1)), 15);
    return _mm256_maddubs_epi16(either(four, bit_to(load256(block + 16), g, 4)), x);
  }
};

struct QuadIq4Xs : QuadFormat {
  static constexpr int kBytes = 136, kSub = 32;
  static void head(const uint8_t* const (&block)[4], const int16_t*, QuadHead& head) {
    __m256i heads[2];
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      // d and u16 of high bits, then four bytes of low nibbles: byte j is of sub-blocks 2j and 2j + 1.
      heads[i] = quad_load(block, i, 0);
      const __m256i bytes = _mm256_shuffle_epi8(heads[i], both_lanes(_mm_set_epi8(-1, 7, -1, 7, -1, 6, -1, 6, -1, 5, -1, 5, -1, 4, -1, 4)));
      const __m256i bits = _mm256_shuffle_epi8(heads[i], both_lanes(_mm_set1_epi16(0x0302)));
      // Multiplied so that low nibbles come to the places 4–7, pairs of bits to 14 and 15.
      const __m256i nibbles = _mm256_mullo_epi16(bytes, _mm256_set1_epi32(0x00010010));
      const __m256i pairs = _mm256_mullo_epi16(bits, both_lanes(_mm_set_epi16(1, 4, 16, 64, 256, 1024, 4096, 16384)));
      const __m256i low = _mm256_and_si256(_mm256_srli_epi16(nibbles, 4), _mm256_set1_epi16(15));
      const __m256i high = _mm256_and_si256(_mm256_srli_epi16(pairs, 10), _mm256_set1_epi16(0x30));
      put_pairs(_mm256_sub_epi16(either(low, high), _mm256_set1_epi16(32)), i, head);
    }
    head.halves = quad_halves(heads[0], heads[1]);
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    const __m256i raw = both_lanes(load128(block + 8 + 16 * g));
    const __m256i four = both(_mm256_srlv_epi32(raw, _mm256_set_epi32(4, 4, 4, 4, 0, 0, 0, 0)), 15);
    const Codes levels = _mm256_shuffle_epi8(both_lanes(load128(kIq4Levels)), four);
    // The sign of x goes over to the levels: two products of at most 127 · 127.
    return _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(levels, x));
  }
};

struct QuadQ2K : QuadFormat {
  static constexpr int kBytes = 84, kSub = 16;
  static constexpr bool kMins = true;
  static void head(const uint8_t* const (&block)[4], const int16_t* bsums, QuadHead& head) {
    __m256i taken[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) {
      const __m256i bytes = _mm256_cvtepu8_epi16(load128(block[r]));
      put_words(_mm256_and_si256(bytes, _mm256_set1_epi16(15)), r, head);
      taken[r] = _mm256_madd_epi16(_mm256_srli_epi16(bytes, 4), load256(bsums));
    }
    head.taken = quad_sums(taken);
    const auto pair = [&](int r) { return load_as<int32_t>(block[r] + 80); };
    const __m128i low = _mm_insert_epi32(_mm_cvtsi32_si128(pair(0)), pair(1), 1), high = _mm_insert_epi32(_mm_cvtsi32_si128(pair(2)), pair(3), 1);
    head.halves = quad_halves(_mm_unpacklo_epi64(low, high));
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    return _mm256_maddubs_epi16(DotQ2K::codes(block, g), x);
  }
};

struct QuadQ3K : QuadFormat {
  static constexpr int kBytes = 110, kOffset = 4, kSub = 16;
  static void head(const uint8_t* const (&block)[4], const int16_t*, QuadHead& head) {
#pragma GCC unroll 2
    for (int i = 0; i < 2; i++) {
      // Twelve bytes behind two others: a b hold nibbles, c pairs of bits of s0–3, s4–7, s8–11, s12–15.
      const __m256i packed = quad_load(block, i, 94);
      const __m256i ab = _mm256_shuffle_epi8(packed, both_lanes(_mm_set_epi32(0x09080706, 0x05040302, 0x09080706, 0x05040302)));
      const __m256i c = _mm256_shuffle_epi8(packed, _mm256_set1_epi32(0x0d0c0b0a));
      const __m256i low = both(_mm256_srlv_epi32(ab, both_lanes(_mm_set_epi32(4, 4, 0, 0))), 15);
      const __m256i left = _mm256_sllv_epi32(c, both_lanes(_mm_set_epi32(0, 0, 2, 4)));
      const __m256i high = both(_mm256_srlv_epi32(left, both_lanes(_mm_set_epi32(2, 0, 0, 0))), 0x30);
      const __m256i six = _mm256_sub_epi8(either(low, high), vec_bytes(32));
      put_words(_mm256_cvtepi8_epi16(_mm256_castsi256_si128(six)), i, head);
      put_words(_mm256_cvtepi8_epi16(_mm256_extracti128_si256(six, 1)), i + 2, head);
    }
    head.halves = quad_halves_at(block, 108);
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    return _mm256_maddubs_epi16(either(DotQ2K::codes(block + 16, g), bit_to(load256(block), g, 2)), x);
  }
};

struct QuadQ6K : QuadFormat {
  static constexpr int kBytes = 210, kOffset = 32, kSub = 16;
  static void head(const uint8_t* const (&block)[4], const int16_t*, QuadHead& head) {
#pragma GCC unroll 4
    for (int r = 0; r < 4; r++) put_words(_mm256_cvtepi8_epi16(load128(block[r] + 192)), r, head);
    head.halves = quad_halves_at(block, 208);
  }
  static inline __attribute__((always_inline)) __m256i pairs(const uint8_t* block, const QuadHead&, int, int g, Codes x) {
    return _mm256_maddubs_epi16(DotQ6K::codes(block, g), x);
  }
};

// The scales of vector g of a row, in the words of its products.
template <typename Format>
static inline __attribute__((always_inline)) __m256i quad_scales(const int16_t* scales, int g) {
  if constexpr (Format::kSub == 32) return _mm256_set1_epi32(load_as<int32_t>(scales + 2 * g));
  const int a = 0x0100 + 0x0202 * (2 * (g & 3));
  const __m256i index = _mm256_setr_m128i(_mm_set1_epi16(static_cast<int16_t>(a)), _mm_set1_epi16(static_cast<int16_t>(a + 0x0202)));
  return _mm256_shuffle_epi8(both_lanes(load128(scales + 8 * (g / 4))), index);
}

template <typename Format>
static void quad_tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
  __m128 totals = _mm_setzero_ps();
  const uint8_t* block[4] = {rows[0].data, rows[1].data, rows[2].data, rows[3].data};
  for (int64_t b = 0; b < k / 256; b++) {
    for (int r = 0; r < 4; r++) fetch<Format::kBytes>(block[r] + rows[0].ahead);
    const int16_t* bsums = x->bsums + b * 16;
    typename Format::Head head;
    Format::head(block, bsums, head);
    // Out of the compiler's sight, or it makes shuffles of the loads.
    asm("" : "+m"(head.scales));
    __m256i sums[4];
    for (int r = 0; r < 4; r++) {
      sums[r] = _mm256_setzero_si256();
      if constexpr (Format::kOffset > 0) {
        const __m256i starts = _mm256_madd_epi16(load256(head.scales[r]), load256(bsums));
        sums[r] = _mm256_sub_epi32(sums[r], _mm256_slli_epi32(starts, __builtin_ctz(Format::kOffset)));
      }
    }
#pragma GCC unroll 8
    for (int g = 0; g < kVectors; g++) {
      const Codes values = load_codes(x->codes + b * 256 + 32 * g);
#pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {
        const __m256i pairs = Format::pairs(block[r], head, r, g, values);
        sums[r] = _mm256_add_epi32(sums[r], _mm256_madd_epi16(pairs, quad_scales<Format>(head.scales[r], g)));
        asm("" : "+x"(sums[r]));  // as it stands: added up in another order, products wait in memory
      }
    }
    __m256 scales = _mm256_cvtph_ps(head.halves);
    if constexpr (Format::kUnit != 1.0f) scales = _mm256_mul_ps(scales, _mm256_set1_ps(Format::kUnit));
    scales = _mm256_mul_ps(scales, _mm256_set1_ps(x->scales[b]));
    __m128i whole = quad_sums(sums);
    if constexpr (Format::kShifted) whole = _mm_sub_epi32(whole, head.taken);
    totals = _mm_fmadd_ps(_mm_cvtepi32_ps(whole), _mm256_castps256_ps128(scales), totals);
    if constexpr (Format::kMins) totals = _mm_fnmadd_ps(_mm_cvtepi32_ps(head.taken), _mm256_extractf128_ps(scales, 1), totals);
    for (int r = 0; r < 4; r++) block[r] += Format::kBytes;
  }
  _mm_storeu_ps(out, totals);
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
