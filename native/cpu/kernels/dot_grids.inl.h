// The formats with code books (iq1_* iq2_* iq3_*) for dot_q256.
//
// `head` unpacks the numbers of a block's rows and its signs into small arrays; `codes` then fetches the rows of a vector one by
// one (avx512 looks small books up in registers) and gives unsigned codes, too large by kOffset. In units of d/8 (iq3: d/4, d) all is integer: ±level for iq2 and iq3,
// 8·level ± 1 for iq1.
#pragma once

#include "cpu/kernels/dot_codes256.inl.h"
#include "quant/grids_expand.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0

// Bit i of `signs`: weight i is negative; for iq1, its 1/8 is.
template <int kRows>
struct GridHead : BlockHead {
  alignas(32) uint16_t rows[kRows];
  alignas(32) uint64_t signs[4];
};

template <typename Format>
constexpr bool is_grid = requires { Format::kGrid; };

#if TANDEM_ISA_LEVEL >= 2

static inline Codes rows_of_book(const uint64_t* book, const uint16_t* rows, int g) {
  const uint16_t* i = rows + 8 * g;
  return _mm512_set_epi64(static_cast<int64_t>(book[i[7]]), static_cast<int64_t>(book[i[6]]), static_cast<int64_t>(book[i[5]]),
                          static_cast<int64_t>(book[i[4]]), static_cast<int64_t>(book[i[3]]), static_cast<int64_t>(book[i[2]]),
                          static_cast<int64_t>(book[i[1]]), static_cast<int64_t>(book[i[0]]));
}
// The numbers of a row's levels in place of the levels, 16 bits a row: two bits for one of three levels, three for one of eight.
template <int count>
struct PackedBook {
  alignas(64) uint16_t rows[count];
};
template <int count, int weights, int levels, int words>
static constexpr PackedBook<count> pack_book(const quant::GridData<count, weights, levels, words>& data) {
  constexpr int bits = levels > 4 ? 3 : 2;
  static_assert(weights * bits <= 16);
  PackedBook<count> book{};
  int row = 0;
  for (int v = 0; v < 64 * words; v++) {
    if ((data.bitmap[v / 64] >> (v % 64) & 1) == 0) continue;
    uint32_t packed = 0;
    for (int j = 0, rest = v; j < weights; j++, rest /= levels) packed |= static_cast<uint32_t>(rest % levels) << (bits * j);
    book.rows[row++] = static_cast<uint16_t>(packed);
  }
  return book;
}
constexpr PackedBook<256> kPackedIq2Xxs = pack_book(quant::kIq2XxsData);
constexpr PackedBook<256> kPackedIq3Xxs = pack_book(quant::kIq3XxsData);
constexpr PackedBook<512> kPackedIq3S = pack_book(quant::kIq3SData);

// A head with its rows of a small book looked up. From 512 rows of eight levels on, fetching rows one by one is faster (Zen 4).
template <int kRows>
struct PackedHead : BlockHead {
  Codes packed[kRows / 32];
  alignas(32) uint64_t signs[4];
};
// 32 look-ups at once: two registers of the book are 64 rows, the bits above choose among pairs of registers.
template <int count>
static inline __attribute__((always_inline)) Codes look_up(const uint16_t* book, Codes index) {
  if constexpr (count == 64) {
    return _mm512_permutex2var_epi16(_mm512_load_si512(book), index, _mm512_load_si512(book + 32));
  } else {
    const Codes low = look_up<count / 2>(book, index), high = look_up<count / 2>(book + count / 2, index);
    return _mm512_mask_blend_epi16(_mm512_test_epi16_mask(index, _mm512_set1_epi16(count / 2)), low, high);
  }
}
// Rows [32i, 32i + 32) of the book, by number.
template <int kRows, int count>
static inline void set_rows(PackedHead<kRows>& head, int i, const PackedBook<count>& book, __m256i low, __m256i high) {
  head.packed[i] = look_up<count>(book.rows, _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
}
// Numbers of 64 levels: a packed row spreads over as many words as it has pairs of levels; each takes its pair, the second one
// in its upper byte.
static inline Codes spread_eights(Codes packed, int g) {
  const Codes index = _mm512_set_epi64(0x0007000700070007, 0x0006000600060006, 0x0005000500050005, 0x0004000400040004,
                                       0x0003000300030003, 0x0002000200020002, 0x0001000100010001, 0);
  const Codes rows = _mm512_permutexvar_epi16(_mm512_add_epi16(index, _mm512_set1_epi16(static_cast<int16_t>(8 * g))), packed);
  const Codes pairs = _mm512_srlv_epi16(rows, _mm512_set1_epi64(0x000c000800040000));
  return both(_mm512_ternarylogic_epi32(_mm512_set1_epi16(0xff), pairs, _mm512_slli_epi16(pairs, 6), 0xca), 3);
}
static inline Codes spread_fours(Codes packed, int half) {
  const Codes index = _mm512_set_epi64(0x000f000f000e000e, 0x000d000d000c000c, 0x000b000b000a000a, 0x0009000900080008,
                                       0x0007000700060006, 0x0005000500040004, 0x0003000300020002, 0x0001000100000000);
  const Codes rows = _mm512_permutexvar_epi16(_mm512_add_epi16(index, _mm512_set1_epi16(static_cast<int16_t>(16 * half))), packed);
  const Codes pairs = _mm512_srlv_epi16(rows, _mm512_set1_epi64(0x0006000000060000));
  return both(_mm512_ternarylogic_epi32(_mm512_set1_epi16(0xff), pairs, _mm512_slli_epi16(pairs, 5), 0xca), 7);
}
// Raised levels, without and with the sign.
struct Levels {
  alignas(16) uint8_t plus[16], minus[16];
};
constexpr Levels kLevels2 = {{64 + 8, 64 + 25, 64 + 43}, {64 - 8, 64 - 25, 64 - 43}};
constexpr Levels kLevels3Xxs = {{68, 76, 84, 92, 100, 108, 116, 126}, {60, 52, 44, 36, 28, 20, 12, 2}};
constexpr Levels kLevels3S = {{65, 67, 69, 71, 73, 75, 77, 79}, {63, 61, 59, 57, 55, 53, 51, 49}};
static inline Codes levels_of(const Levels& levels, Codes numbers, uint64_t signs) {
  const Codes plus = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(levels.plus)), numbers);
  return _mm512_mask_shuffle_epi8(plus, signs, _mm512_broadcast_i32x4(load128(levels.minus)), numbers);
}
// 64 ± level.
static inline Codes signed_levels(Codes levels, const uint64_t* signs, int g) {
  return _mm512_mask_sub_epi8(_mm512_add_epi8(vec_bytes(64), levels), signs[g], vec_bytes(64), levels);
}
// 16 + 8·level ± 1.
static inline Codes shifted_levels(Codes levels, const uint64_t* signs, int g) {
  const Codes eights = _mm512_slli_epi16(_mm512_add_epi8(levels, vec_bytes(1)), 3);
  return _mm512_add_epi8(eights, _mm512_mask_blend_epi8(signs[g], vec_bytes(9), vec_bytes(7)));
}

#else

// No look-ups in registers here: the numbers of the rows are kept, and rows are fetched one by one.
template <int kRows>
using PackedHead = GridHead<kRows>;
constexpr struct {} kPackedIq2Xxs, kPackedIq3Xxs, kPackedIq3S;
template <int kRows, typename Book>
static inline void set_rows(GridHead<kRows>& head, int i, const Book&, __m256i low, __m256i high) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(head.rows + 32 * i), low);
  _mm256_store_si256(reinterpret_cast<__m256i*>(head.rows + 32 * i + 16), high);
}

static inline Codes rows_of_book(const uint64_t* book, const uint16_t* rows, int g) {
  const uint16_t* i = rows + 4 * g;
  return _mm256_set_epi64x(static_cast<int64_t>(book[i[3]]), static_cast<int64_t>(book[i[2]]), static_cast<int64_t>(book[i[1]]),
                           static_cast<int64_t>(book[i[0]]));
}
static inline Codes rows_of_book(const uint32_t* book, const uint16_t* rows, int g) {
  const uint16_t* i = rows + 8 * g;
  return _mm256_set_epi32(static_cast<int>(book[i[7]]), static_cast<int>(book[i[6]]), static_cast<int>(book[i[5]]), static_cast<int>(book[i[4]]),
                          static_cast<int>(book[i[3]]), static_cast<int>(book[i[2]]), static_cast<int>(book[i[1]]), static_cast<int>(book[i[0]]));
}
// 0xff where the bit is set.
static inline Codes bits_to_bytes(const uint64_t* signs, int g) {
  const int32_t bits = load_as<int32_t>(reinterpret_cast<const uint8_t*>(signs) + 4 * g);
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(bits), _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0));
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  return _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
}
static inline Codes signed_levels(Codes levels, const uint64_t* signs, int g) {
  const Codes negative = bits_to_bytes(signs, g);
  return _mm256_add_epi8(vec_bytes(64), _mm256_sub_epi8(_mm256_xor_si256(levels, negative), negative));
}
static inline Codes shifted_levels(Codes levels, const uint64_t* signs, int g) {
  const Codes eights = _mm256_slli_epi16(_mm256_add_epi8(levels, vec_bytes(1)), 3), negative = bits_to_bytes(signs, g);
  return _mm256_add_epi8(eights, _mm256_add_epi8(vec_bytes(9), _mm256_add_epi8(negative, negative)));
}

#endif

static inline void store256(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }
static inline __m256i and256(__m256i v, int mask) { return _mm256_and_si256(v, _mm256_set1_epi32(mask)); }
// Sixteen bytes as words.
static inline __m256i words_at(const uint8_t* p) { return _mm256_cvtepu8_epi16(load128(p)); }
// 2·scale + 1 of words.
static inline __m256i odd_scales(__m256i words) { return _mm256_add_epi16(_mm256_add_epi16(words, words), _mm256_set1_epi16(1)); }
// The same of sixteen nibbles, or of eight.
static inline __m256i odd_nibbles(uint64_t bytes) {
  const __m128i v = _mm_cvtsi64_si128(static_cast<int64_t>(bytes)), low = _mm_set1_epi8(15);
  return odd_scales(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(_mm_and_si128(v, low), _mm_and_si128(_mm_srli_epi16(v, 4), low))));
}
// The highest four bits of eight dwords, as eight words.
static inline __m256i odd_tops(__m256i packed) {
  const __m256i tops = _mm256_srli_epi32(packed, 28);
  return odd_scales(_mm256_permute4x64_epi64(_mm256_packus_epi32(tops, tops), 0xd8));
}
// 32 bytes of seven signs get their eighth, so that the number of minus signs is even.
static inline __m256i even_signs(__m256i sevens) {
  __m256i parity = _mm256_xor_si256(sevens, _mm256_srli_epi16(sevens, 4));
  parity = _mm256_xor_si256(parity, _mm256_srli_epi16(parity, 2));
  parity = _mm256_xor_si256(parity, _mm256_srli_epi16(parity, 1));
  return _mm256_or_si256(sevens, _mm256_slli_epi16(and256(parity, 0x01010101), 7));
}
// Four times seven bits of each dword.
static inline __m256i packed_signs(__m256i packed) {
  const __m256i low = _mm256_or_si256(and256(packed, 0x7f), and256(_mm256_slli_epi32(packed, 1), 0x7f00));
  const __m256i high = _mm256_or_si256(and256(_mm256_slli_epi32(packed, 2), 0x7f0000), and256(_mm256_slli_epi32(packed, 3), 0x7f000000));
  return even_signs(_mm256_or_si256(low, high));
}
// Words [first, first + 4), each four times.
static inline __m256i repeat_words(__m128i words, int first) {
  const __m256i index = _mm256_set_epi64x(0x0706070607060706, 0x0504050405040504, 0x0302030203020302, 0x0100010001000100);
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(words), _mm256_add_epi8(index, _mm256_set1_epi8(static_cast<char>(2 * first))));
}

struct DotIq2Xxs {
  static constexpr int kBytes = 66, kOffset = 64, kSub = 32;
  static constexpr bool kMins = false, kGrid = true;
  static PackedHead<32> head(const uint8_t* block) {
    // Four rows and a packed dword, eight times.
    const __m256 a = _mm256_castsi256_ps(load256(block + 2)), b = _mm256_castsi256_ps(load256(block + 34));
    const __m256i rows = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0x88)), 0xd8);
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_castps_si256(_mm256_shuffle_ps(a, b, 0xdd)), 0xd8);
    PackedHead<32> head;
    head.d = half_at(block) * 0.125f;
    head.scales = widen_scales(odd_tops(packed));
    set_rows(head, 0, kPackedIq2Xxs, _mm256_cvtepu8_epi16(_mm256_castsi256_si128(rows)), _mm256_cvtepu8_epi16(_mm256_extracti128_si256(rows, 1)));
    store256(head.signs, packed_signs(packed));
    return head;
  }
  static Codes codes(const PackedHead<32>& head, int g) {
#if TANDEM_ISA_LEVEL >= 2
    return levels_of(kLevels2, spread_eights(head.packed[0], g), head.signs[g]);
#else
    return signed_levels(levels(head, g), head.signs, g);
#endif
  }
#if TANDEM_ISA_LEVEL == 1
  static Codes levels(const GridHead<32>& head, int g) { return rows_of_book(quant::kGridIq2Xxs.rows, head.rows, g); }
#endif
};

struct DotIq2Xs {
  static constexpr int kBytes = 74, kOffset = 64, kSub = 16;
  static constexpr bool kMins = false, kGrid = true;
  static GridHead<32> head(const uint8_t* block) {
    const __m256i a = load256(block + 2), b = load256(block + 34);
    GridHead<32> head;
    head.d = half_at(block) * 0.125f;
    head.scales = widen_scales(odd_nibbles(load_as<uint64_t>(block + 66)));
    store256(head.rows, and256(a, 0x01ff01ff));
    store256(head.rows + 16, and256(b, 0x01ff01ff));
    const __m256i sevens = _mm256_packus_epi16(_mm256_srli_epi16(a, 9), _mm256_srli_epi16(b, 9));
    store256(head.signs, even_signs(_mm256_permute4x64_epi64(sevens, 0xd8)));
    return head;
  }
  static Codes levels(const GridHead<32>& head, int g) { return rows_of_book(quant::kGridIq2Xs.rows, head.rows, g); }
  static Codes codes(const GridHead<32>& head, int g) { return signed_levels(levels(head, g), head.signs, g); }
};

struct DotIq2S {
  static constexpr int kBytes = 82, kOffset = 64, kSub = 16;
  static constexpr bool kMins = false, kGrid = true;
  static GridHead<32> head(const uint8_t* block) {
    GridHead<32> head;
    head.d = half_at(block) * 0.125f;
    head.scales = widen_scales(odd_nibbles(load_as<uint64_t>(block + 74)));
    const __m128i high = _mm_cvtepu8_epi16(_mm_cvtsi64_si128(load_as<int64_t>(block + 66)));
    const __m256i shift = _mm256_set1_epi64x(0x0004001000400100);
    for (int i = 0; i < 2; i++) {
      const __m256i two = and256(_mm256_mullo_epi16(repeat_words(high, 4 * i), shift), 0x03000300);
      store256(head.rows + 16 * i, _mm256_or_si256(words_at(block + 2 + 16 * i), two));
    }
    store256(head.signs, load256(block + 34));
    return head;
  }
  static Codes levels(const GridHead<32>& head, int g) { return rows_of_book(quant::kGridIq2S.rows, head.rows, g); }
  static Codes codes(const GridHead<32>& head, int g) { return signed_levels(levels(head, g), head.signs, g); }
};

struct DotIq3Xxs {
  static constexpr int kBytes = 98, kOffset = 64, kSub = 32;
  static constexpr bool kMins = false, kGrid = true;
  static PackedHead<64> head(const uint8_t* block) {
    const __m256i packed = load256(block + 66);
    PackedHead<64> head;
    head.d = half_at(block) * 0.25f;
    head.scales = widen_scales(odd_tops(packed));
    for (int i = 0; i < 2; i++) set_rows(head, i, kPackedIq3Xxs, words_at(block + 2 + 32 * i), words_at(block + 18 + 32 * i));
    store256(head.signs, packed_signs(packed));
    return head;
  }
  static Codes codes(const PackedHead<64>& head, int g) {
#if TANDEM_ISA_LEVEL >= 2
    return levels_of(kLevels3Xxs, spread_fours(head.packed[g / 2], g % 2), head.signs[g]);
#else
    return signed_levels(levels(head, g), head.signs, g);
#endif
  }
#if TANDEM_ISA_LEVEL == 1
  static Codes levels(const GridHead<64>& head, int g) { return rows_of_book(quant::kGridIq3Xxs.rows, head.rows, g); }
#endif
};

struct DotIq3S {
  static constexpr int kBytes = 110, kOffset = 64, kSub = 32;
  static constexpr bool kMins = false, kGrid = true;
  static PackedHead<64> head(const uint8_t* block) {
    PackedHead<64> head;
    head.d = half_at(block);
    head.scales = widen_scales(odd_nibbles(load_as<uint32_t>(block + 106)));
    // Bit r of a byte, at place 8.
    const __m256i shift = _mm256_broadcastsi128_si256(_mm_set_epi16(2, 4, 8, 16, 32, 64, 128, 256));
    __m256i rows[4];
    for (int i = 0; i < 4; i++) {
      const __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_set1_epi16(block[66 + 2 * i])), _mm_set1_epi16(block[67 + 2 * i]), 1);
      const __m256i ninth = and256(_mm256_mullo_epi16(bytes, shift), 0x01000100);
      rows[i] = _mm256_or_si256(words_at(block + 2 + 16 * i), ninth);
    }
    for (int i = 0; i < 2; i++) set_rows(head, i, kPackedIq3S, rows[2 * i], rows[2 * i + 1]);
    store256(head.signs, load256(block + 74));
    return head;
  }
  static Codes codes(const PackedHead<64>& head, int g) {
#if TANDEM_ISA_LEVEL >= 2
    return levels_of(kLevels3S, spread_fours(head.packed[g / 2], g % 2), head.signs[g]);
#else
    return signed_levels(levels(head, g), head.signs, g);
#endif
  }
#if TANDEM_ISA_LEVEL == 1
  static Codes levels(const GridHead<64>& head, int g) { return rows_of_book(quant::kGridIq3S.rows, head.rows, g); }
#endif
};

// The numbers of the rows of an iq1_s block.
static inline void iq1_s_rows(const uint8_t* block, uint16_t* rows) {
  const __m128i packed = load128(block + 34);
  // Bits 3l … 3l + 2 go to places 8 … 10: l of 0, 1, 2 by a product, 3 by half of it.
  const __m256i left = _mm256_set1_epi64x(0x0000000400200100), right = _mm256_set1_epi64x(static_cast<int64_t>(0x8000000000000000));
#pragma GCC unroll 2
  for (int i = 0; i < 2; i++) {
    const __m256i four = repeat_words(packed, 4 * i);
    const __m256i high = _mm256_or_si256(_mm256_mullo_epi16(four, left), _mm256_mulhi_epu16(four, right));
    store256(rows + 16 * i, _mm256_or_si256(words_at(block + 2 + 16 * i), and256(high, 0x07000700)));
  }
}

struct DotIq1S {
  static constexpr int kBytes = 50, kOffset = 16, kSub = 32;
  static constexpr bool kMins = false, kGrid = true;
  static GridHead<32> head(const uint8_t* block) {
    const __m128i packed = load128(block + 34);
    GridHead<32> head;
    head.d = half_at(block) * 0.125f;
    const __m128i scales = _mm_and_si128(_mm_srli_epi16(packed, 12), _mm_set1_epi16(7));
    head.scales = widen_scales(odd_scales(_mm256_broadcastsi128_si256(scales)));
    iq1_s_rows(block, head.rows);
    store256(head.signs, _mm256_cvtepi16_epi32(_mm_srai_epi16(packed, 15)));
    return head;
  }
  static Codes codes(const GridHead<32>& head, int g) {
    return shifted_levels(rows_of_book(quant::kGridIq1S.rows, head.rows, g), head.signs, g);
  }
};

struct DotIq1M {
  static constexpr int kBytes = 56, kOffset = 16, kSub = 16;
  static constexpr bool kMins = false, kGrid = true;
  static GridHead<32> head(const uint8_t* block) {
    GridHead<32> head;
    const uint16_t half = quant::iq1_m_half(*reinterpret_cast<const quant::BlockIq1M*>(block));
    head.d = _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))) * 0.125f;
    // Three bits at 3j to the top of their word and down again.
    const __m256i four = repeat_words(_mm_cvtsi64_si128(load_as<int64_t>(block + 48)), 0);
    const __m256i tops = _mm256_mullo_epi16(four, _mm256_set1_epi64x(0x0010008004002000));
    head.scales = widen_scales(odd_scales(_mm256_srli_epi16(tops, 13)));
    const __m128i bytes = load128(block + 32), low = _mm_set1_epi8(15);
    const __m128i even = _mm_and_si128(bytes, low), odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), low);
    const __m128i nibbles[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    for (int i = 0; i < 2; i++) {
      const __m256i high = _mm256_slli_epi16(and256(_mm256_cvtepu8_epi16(nibbles[i]), 0x00070007), 8);
      store256(head.rows + 16 * i, _mm256_or_si256(words_at(block + 16 * i), high));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(head.signs + 2 * i), _mm_cmpgt_epi8(nibbles[i], _mm_set1_epi8(7)));
    }
    return head;
  }
  static Codes codes(const GridHead<32>& head, int g) {
    return shifted_levels(rows_of_book(quant::kGridIq1S.rows, head.rows, g), head.signs, g);
  }
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
