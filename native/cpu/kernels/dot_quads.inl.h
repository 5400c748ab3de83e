// Tiles of four rows and one token for blocks of 256 (q2_k q3_k q4_k q5_k q6_k iq4_xs): decode. Same bits as dot_q256.
//
// A lane of 16 bytes holds codes of one sub-block; sub-blocks of 32 take two. The sums of four rows are added up while they are transposed, so that a
// vector holds four sub-blocks of four rows,
//
//     [s0: a b c d][s2: a b c d][s4: a b c d][s6: a b c d]      and s1 s3 s5 s7
//
// and meets their scales once: a multiplication for 512 codes. Heads of four rows are unpacked together, in the same order.
// For sub-blocks of 32 x comes folded (ActivationRow::folded): the halves of the even ones, then those of the odd ones.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"
#include "cpu/kernels/q32_formats.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

// Sixteen bytes of each of four rows.
static inline __m512i quad_load(const uint8_t* const (&block)[4], int offset) {
  return load_lanes([&](int r) __attribute__((always_inline)) { return block[r]; }, offset);
}
// Dword i of each row in lane i, in the order of the rows.
static inline __m512i quad_turn(__m512i v) {
  return _mm512_permutexvar_epi32(_mm512_set_epi32(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0), v);
}
// What each lane adds up to in each of four rows: row r in dword r.
static inline __m512i quad_sums(const __m512i (&v)[4]) {
  const __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
  const __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
  return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

// Four blocks: scales of sub-blocks 2j (even) and 2j + 1 (odd) in lane j, row r in dword r; minima as pairs of words (2j, 2j + 1)
// likewise; halves: d of four rows, then dmin.
struct QuadHead {
  __m512i even, odd, mins;
  __m128i halves;
};
// Words 0 and 1 of each lane.
static inline __m128i quad_halves(__m512i heads) {
  const __m512i first = _mm512_permutexvar_epi32(_mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0), heads);
  return _mm_shuffle_epi8(_mm512_castsi512_si128(first), _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0));
}

// q4_k and q5_k.
static inline QuadHead quad_k_head(const uint8_t* const (&block)[4]) {
  const __m512i heads = quad_load(block, 0);
  // d, a b c → six bits of s0–3, s4–7, m0–3, m4–7.
  const __m512i low = _mm512_srlv_epi32(_mm512_shuffle_epi32(heads, static_cast<_MM_PERM_ENUM>(0xed)), _mm512_set4_epi32(4, 0, 0, 0));
  const __m512i high = _mm512_srli_epi32(_mm512_shuffle_epi32(heads, static_cast<_MM_PERM_ENUM>(0x84)), 2);
  const __m512i six = _mm512_and_si512(low, _mm512_set4_epi32(0x0f0f0f0f, 0x3f3f3f3f, 0x0f0f0f0f, 0x3f3f3f3f));
  const __m512i bytes = _mm512_ternarylogic_epi32(six, high, _mm512_set4_epi32(0x30303030, 0, 0x30303030, 0), 0xf8);  // a | b & c
  // Even scales, odd scales, then the minima; each turned so that the rows meet.
  const __m512i sorted = quad_turn(_mm512_shuffle_epi8(bytes, _mm512_set4_epi32(0x0f0e0d0c, 0x0b0a0908, 0x07050301, 0x06040200)));
  const __m512i order = _mm512_inserti64x4(_mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0)),
                                           _mm256_broadcastsi128_si256(_mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0)), 1);
  const __m512i turned = _mm512_shuffle_epi8(sorted, order);
  return {_mm512_cvtepu8_epi32(_mm512_castsi512_si128(turned)), _mm512_cvtepu8_epi32(_mm512_extracti32x4_epi32(turned, 1)),
          _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(turned, 1)), quad_halves(heads)};
}

// The lanes of two vectors whose numbers are even, and those whose are odd.
struct QuadCodes {
  __m512i first, second;
};
static inline QuadCodes quad_lanes(const uint8_t* p) {
  const __m512i a = _mm512_loadu_si512(p), b = _mm512_loadu_si512(p + 64);
  return {_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd)};
}
static inline __m512i quad_products(__m512i first, __m512i x_first, __m512i second, __m512i x_second) {
  return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), first, x_first), second, x_second);
}

// Formats: sums(block, x, even, odd) are those of the sub-blocks 2j and 2j + 1 in lane j, the latter times 2^kOddShift.
struct QuadQ4K {
  static constexpr int kBytes = 144, kOddShift = 4, kOffset = 0;
  static constexpr bool kMins = true;
  static QuadHead head(const uint8_t* const (&block)[4]) { return quad_k_head(block); }
  static inline __attribute__((always_inline)) void sums(const uint8_t* block, const __m512i (&x)[4], __m512i& even, __m512i& odd) {
    const QuadCodes raw = quad_lanes(block + 16);
    even = quad_products(both(raw.first, 15), x[0], both(raw.second, 15), x[1]);
    odd = quad_products(both(raw.first, 0xf0), x[2], both(raw.second, 0xf0), x[3]);
  }
};

struct QuadQ5K {
  static constexpr int kBytes = 176, kOddShift = 0, kOffset = 0;
  static constexpr bool kMins = true;
  static QuadHead head(const uint8_t* const (&block)[4]) { return quad_k_head(block); }
  // Codes of four bits with bit 2j (+ 1) of lane j as their fifth.
  static __m512i five(__m512i four, __m512i bits, int odd) {
    const __m512i placed = odd ? _mm512_rolv_epi64(bits, _mm512_set_epi64(61, 61, 63, 63, 1, 1, 3, 3))
                               : _mm512_rolv_epi64(bits, _mm512_set_epi64(62, 62, 0, 0, 2, 2, 4, 4));
    return _mm512_ternarylogic_epi32(four, placed, vec_bytes(16), 0xf8);  // a | b & c
  }
  static inline __attribute__((always_inline)) void sums(const uint8_t* block, const __m512i (&x)[4], __m512i& even, __m512i& odd) {
    const QuadCodes raw = quad_lanes(block + 48);
    const __m512i low = _mm512_broadcast_i32x4(load128(block + 16)), high = _mm512_broadcast_i32x4(load128(block + 32));
    even = quad_products(five(both(raw.first, 15), low, 0), x[0], five(both(raw.second, 15), high, 0), x[1]);
    odd = quad_products(five(high_nibbles(raw.first), low, 1), x[2], five(high_nibbles(raw.second), high, 1), x[3]);
  }
};

struct QuadIq4Xs {
  static constexpr int kBytes = 136, kOddShift = 0, kOffset = 128;
  static constexpr bool kMins = false;
  static QuadHead head(const uint8_t* const (&block)[4]) {
    // d and u16 of high bits, then four bytes of low nibbles: byte j and bits 4j … 4j + 3 are of sub-blocks 2j and 2j + 1.
    const __m512i heads = quad_load(block, 0), turned = quad_turn(heads);
    const __m128i nibbles = _mm_shuffle_epi8(_mm512_extracti32x4_epi32(turned, 1), _mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    const __m128i words = _mm_shuffle_epi8(_mm512_castsi512_si128(turned), _mm_set_epi8(15, 11, 7, 3, 15, 11, 7, 3, 14, 10, 6, 2, 14, 10, 6, 2));
    const __m128i bits = _mm_srlv_epi32(words, _mm_set_epi32(4, 0, 4, 0)), fifteen = _mm_set1_epi8(15);
    const __m128i even = _mm_or_si128(_mm_and_si128(nibbles, fifteen), _mm_and_si128(_mm_slli_epi32(bits, 4), _mm_set1_epi8(0x30)));
    const __m128i odd = _mm_or_si128(_mm_and_si128(_mm_srli_epi32(nibbles, 4), fifteen), _mm_and_si128(_mm_slli_epi32(bits, 2), _mm_set1_epi8(0x30)));
    const __m128i lowered = _mm_set1_epi8(32);
    return {_mm512_cvtepi8_epi32(_mm_sub_epi8(even, lowered)), _mm512_cvtepi8_epi32(_mm_sub_epi8(odd, lowered)), _mm512_setzero_si512(), quad_halves(heads)};
  }
  static inline __attribute__((always_inline)) void sums(const uint8_t* block, const __m512i (&x)[4], __m512i& even, __m512i& odd) {
    const QuadCodes raw = quad_lanes(block + 8);
    const auto levels = [](__m512i four) { return look_up(kIq4Unsigned, four); };
    even = quad_products(levels(both(raw.first, 15)), x[0], levels(high_nibbles(raw.first)), x[1]);
    odd = quad_products(levels(both(raw.second, 15)), x[2], levels(high_nibbles(raw.second)), x[3]);
  }
};

// Takes `totals` of four rows one block further: lanes are added up, with minima those of what they take off beside them.
template <bool kMins>
static inline __m128 quad_close(__m512i sums, __m512i taken, __m128i halves, float d, __m128 totals) {
  const __m256 scales = _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(d));
  if constexpr (kMins) {
    sums = _mm512_add_epi32(_mm512_shuffle_i64x2(sums, taken, 0x44), _mm512_shuffle_i64x2(sums, taken, 0xee));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_i64x2(sums, sums, 0xb1));
    totals = _mm_fmadd_ps(_mm_cvtepi32_ps(_mm512_castsi512_si128(sums)), _mm256_castps256_ps128(scales), totals);
    return _mm_fnmadd_ps(_mm_cvtepi32_ps(_mm512_extracti32x4_epi32(sums, 2)), _mm256_extractf128_ps(scales, 1), totals);
  } else {
    const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(sums), _mm512_extracti64x4_epi64(sums, 1));
    const __m128i whole = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return _mm_fmadd_ps(_mm_cvtepi32_ps(whole), _mm256_castps256_ps128(scales), totals);
  }
}

template <typename Format>
static void quad_tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
  const __m512i spread = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
  __m128 totals = _mm_setzero_ps();
  const uint8_t* block[4] = {rows[0].data, rows[1].data, rows[2].data, rows[3].data};
  for (int64_t b = 0; b < k / 256; b++) {
    for (int r = 0; r < 4; r++) fetch<Format::kBytes>(block[r] + rows[0].ahead);
    __m512i values[4], even[4], odd[4];
    for (int i = 0; i < 4; i++) values[i] = _mm512_loadu_si512(x->folded + b * 256 + 64 * i);
    for (int r = 0; r < 4; r++) Format::sums(block[r], values, even[r], odd[r]);
    const QuadHead head = Format::head(block);
    // Σq of the sub-blocks: words 2j and 2j + 1 in all dwords of lane j.
    const __m256i code_sums = _mm256_madd_epi16(load256(x->bsums + b * 16), _mm256_set1_epi16(1));
    __m512i evens = quad_sums(even), odds = quad_sums(odd);
    if constexpr (Format::kOddShift > 0) odds = _mm512_srai_epi32(odds, Format::kOddShift);
    if constexpr (Format::kOffset > 0) {
      const __m256i starts = _mm256_mullo_epi32(code_sums, _mm256_set1_epi32(Format::kOffset));
      const __m512i index = _mm512_add_epi32(spread, spread), all = _mm512_castsi256_si512(starts);
      evens = _mm512_sub_epi32(evens, _mm512_permutexvar_epi32(index, all));
      odds = _mm512_sub_epi32(odds, _mm512_permutexvar_epi32(_mm512_add_epi32(index, _mm512_set1_epi32(1)), all));
    }
    __m512i sums = _mm512_add_epi32(_mm512_mullo_epi32(evens, head.even), _mm512_mullo_epi32(odds, head.odd));
    __m512i taken = _mm512_setzero_si512();
    if constexpr (Format::kMins) {
      const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(code_sums), _mm256_extracti128_si256(code_sums, 1));
      taken = _mm512_madd_epi16(head.mins, _mm512_permutexvar_epi32(spread, _mm512_castsi128_si512(words)));
    }
    totals = quad_close<Format::kMins>(sums, taken, head.halves, x->scales[b], totals);
    for (int r = 0; r < 4; r++) block[r] += Format::kBytes;
  }
  _mm_storeu_ps(out, totals);
}

// ---- sub-blocks of 16: a lane is a whole one -----------------------------------------------------------------------------

// d (and dmin) at `offset` of four blocks, as QuadHead::halves.
static inline __m128i quad_halves_at(const uint8_t* const (&block)[4], int offset) {
  const auto word = [&](int r) { return load_as<int16_t>(block[r] + offset); };
  const __m128i two = _mm_insert_epi16(_mm_cvtsi32_si128(static_cast<uint16_t>(word(0))), word(1), 1);
  return _mm_insert_epi16(_mm_insert_epi16(two, word(2), 2), word(3), 3);
}
// Columns [32p, 32p + 32) and those 128 behind them: what bits 2p and 2p + 1 of q2_k and q3_k are.
static inline __m512i halves_apart(const int8_t* x, int p) {
  return _mm512_inserti64x4(_mm512_castsi256_si512(load256(x + 32 * p)), load256(x + 128 + 32 * p), 1);
}

// Formats: codes(block, p), 64 codes of which lane i is sub-block sub(p, i), times 2^shift(p); values(x, p): the same columns of
// x. scales(block): of row r in lane r, in the order of vectors and lanes.
struct QuadQ2K {
  static constexpr int kBytes = 84, kOffset = 0;
  static constexpr bool kMins = true;
  static constexpr int sub(int p, int i) { return 2 * p + (i & 1) + 8 * (i >> 1); }
  static constexpr int shift(int p) { return 2 * p; }
  static __m512i codes(const uint8_t* block, int p) { return both(_mm512_loadu_si512(block + 16), 3 << (2 * p)); }
  static __m512i values(const int8_t* x, int p) { return halves_apart(x, p); }
  static __m512i scales(const uint8_t* const (&block)[4], __m512i& mins, __m128i& halves) {
    const __m512i packed = quad_load(block, 0);
    const auto pair = [&](int r) { return load_as<int32_t>(block[r] + 80); };
    const __m128i pairs = _mm_insert_epi32(_mm_insert_epi32(_mm_insert_epi32(_mm_cvtsi32_si128(pair(0)), pair(1), 1), pair(2), 2), pair(3), 3);
    halves = _mm_shuffle_epi8(pairs, _mm_set_epi8(15, 14, 11, 10, 7, 6, 3, 2, 13, 12, 9, 8, 5, 4, 1, 0));
    mins = both(_mm512_srli_epi16(packed, 4), 15);
    return both(_mm512_shuffle_epi8(packed, _mm512_broadcast_i32x4(_mm_set_epi8(15, 14, 7, 6, 13, 12, 5, 4, 11, 10, 3, 2, 9, 8, 1, 0))), 15);
  }
};

struct QuadQ3K {
  static constexpr int kBytes = 110, kOffset = 4;
  static constexpr bool kMins = false;
  static constexpr int sub(int p, int i) { return 2 * p + (i & 1) + 8 * (i >> 1); }
  static constexpr int shift(int) { return 0; }
  static __m512i codes(const uint8_t* block, int p) {
    // Bit p of the lower half, 4 + p of the upper, to place 2.
    const int a = (2 - p) & 63, b = (2 - 4 - p) & 63;
    const __m512i high = _mm512_rolv_epi64(both_halves(block), _mm512_set_epi64(b, b, b, b, a, a, a, a));
    const __m512i low = both(_mm512_srli_epi16(_mm512_loadu_si512(block + 32), static_cast<unsigned>(2 * p)), 3);
    return _mm512_ternarylogic_epi32(low, high, vec_bytes(4), 0xf8);  // a | b & c
  }
  static __m512i values(const int8_t* x, int p) { return halves_apart(x, p); }
  static __m512i scales(const uint8_t* const (&block)[4], __m512i&, __m128i& halves) {
    // Twelve bytes behind two others: a b hold nibbles, c pairs of bits of s0–3, s4–7, s8–11, s12–15.
    const __m512i packed = quad_load(block, 94);
    const __m512i ab = _mm512_shuffle_epi8(packed, _mm512_set4_epi32(0x09080706, 0x05040302, 0x09080706, 0x05040302));
    const __m512i c = _mm512_shuffle_epi8(packed, _mm512_set1_epi32(0x0d0c0b0a));
    const __m512i low = both(_mm512_srlv_epi32(ab, _mm512_set4_epi32(4, 4, 0, 0)), 15);
    const __m512i high = _mm512_rolv_epi32(c, _mm512_set4_epi32(30, 0, 2, 4));
    const __m512i six = _mm512_sub_epi8(_mm512_ternarylogic_epi32(low, high, vec_bytes(0x30), 0xf8), vec_bytes(32));
    halves = quad_halves_at(block, 108);
    return _mm512_shuffle_epi8(six, _mm512_broadcast_i32x4(_mm_set_epi8(15, 14, 7, 6, 13, 12, 5, 4, 11, 10, 3, 2, 9, 8, 1, 0)));
  }
};

struct QuadQ6K {
  static constexpr int kBytes = 210, kOffset = 32;
  static constexpr bool kMins = false;
  static constexpr int sub(int p, int i) { return 4 * p + i; }
  static constexpr int shift(int) { return 0; }
  static __m512i codes(const uint8_t* block, int p) { return DotQ6K::codes(block, p); }
  static __m512i values(const int8_t* x, int p) { return load_codes(x + 64 * p); }
  static __m512i scales(const uint8_t* const (&block)[4], __m512i&, __m128i& halves) {
    halves = quad_halves_at(block, 208);
    return quad_load(block, 192);
  }
};

static inline __attribute__((always_inline)) __m128i quarter(__m512i v, int i) {
  switch (i) {
    case 0: return _mm512_castsi512_si128(v);
    case 1: return _mm512_extracti32x4_epi32(v, 1);
    case 2: return _mm512_extracti32x4_epi32(v, 2);
    default: return _mm512_extracti32x4_epi32(v, 3);
  }
}

template <typename Format>
static void quad_tile16(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
  __m128 totals = _mm_setzero_ps();
  const uint8_t* block[4] = {rows[0].data, rows[1].data, rows[2].data, rows[3].data};
  for (int64_t b = 0; b < k / 256; b++) {
    for (int r = 0; r < 4; r++) fetch<Format::kBytes>(block[r] + rows[0].ahead);
    __m512i mins;
    __m128i halves;
    // Scales of vector p in lane p: four of a row are turned into one of each row.
    const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi8(15, 11, 7, 3, 14, 10, 6, 2, 13, 9, 5, 1, 12, 8, 4, 0));
    const __m512i scales = _mm512_shuffle_epi8(quad_turn(Format::scales(block, mins, halves)), order);
    const __m256i bsums = load256(x->bsums + b * 16);
    const __m512i starts = _mm512_mullo_epi32(_mm512_cvtepi16_epi32(bsums), _mm512_set1_epi32(Format::kOffset));
    __m512i sums = _mm512_setzero_si512();
#pragma GCC unroll 4
    for (int p = 0; p < 4; p++) {
      const __m512i values = Format::values(x->codes + b * 256, p);
      __m512i products[4];
      for (int r = 0; r < 4; r++) products[r] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), Format::codes(block[r], p), values);
      __m512i lanes = quad_sums(products);
      if (Format::shift(p) > 0) lanes = _mm512_srai_epi32(lanes, static_cast<unsigned>(Format::shift(p)));
      if constexpr (Format::kOffset > 0) {
        const int i0 = Format::sub(p, 0), i1 = Format::sub(p, 1), i2 = Format::sub(p, 2), i3 = Format::sub(p, 3);
        const __m512i index = _mm512_set_epi32(i3, i3, i3, i3, i2, i2, i2, i2, i1, i1, i1, i1, i0, i0, i0, i0);
        lanes = _mm512_sub_epi32(lanes, _mm512_permutexvar_epi32(index, starts));
      }
      sums = _mm512_add_epi32(sums, _mm512_mullo_epi32(lanes, _mm512_cvtepi8_epi32(quarter(scales, p))));
    }
    __m512i taken = _mm512_setzero_si512();
    if constexpr (Format::kMins) {
      const __m512i each = _mm512_broadcast_i64x4(bsums);
      const __m512i low = _mm512_madd_epi16(_mm512_cvtepu8_epi16(_mm512_castsi512_si256(mins)), each);
      const __m512i high = _mm512_madd_epi16(_mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64(mins, 1)), each);
      taken = quad_turn(_mm512_add_epi32(_mm512_shuffle_i32x4(low, high, 0x88), _mm512_shuffle_i32x4(low, high, 0xdd)));
    }
    totals = quad_close<Format::kMins>(sums, taken, halves, x->scales[b], totals);
    for (int r = 0; r < 4; r++) block[r] += Format::kBytes;
  }
  _mm_storeu_ps(out, totals);
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
