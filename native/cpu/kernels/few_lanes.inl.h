// A few tokens with sixteen weight rows, a row in each 32-bit lane: what is unpacked is multiplied at once and never put down. Same
// bits as tiles and panels.
//
// Tiles (dot_q256, dot_q32) add the products of a row across lanes for every token; panels write each code to memory before
// they read it. From two tokens to eight most of the time goes there. Here four columns of sixteen rows are turned into lanes,
// unpacked, and meet a dword of codes of each token: a sum never crosses lanes. avx2: sixteen rows are two vectors, so that what is
// broadcast of a token serves both.
#pragma once

#include <array>
#include <utility>

#include "cpu/kernels/panel_lanes.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

constexpr int kFewRows = 16;
constexpr int kFewVectors = kFewRows / kLaneRows;
// avx2: blocks of 256 are a loop over groups of sub-blocks, their scales put down before it, and what is read of a token has a register:
// small cores hold few decoded instructions. avx512: no loop, and all scales stay in registers.
constexpr bool kFewLoops = TANDEM_ISA_LEVEL < 2;
static inline const int8_t* few_codes(const int8_t* x) { return kFewLoops ? by_itself(x) : x; }
// Up to how many tokens this is faster than a panel (measured on Zen 4; 0: never).
constexpr int few_most([[maybe_unused]] int avx2, [[maybe_unused]] int avx512) { return TANDEM_ISA_LEVEL == 2 ? avx512 : avx2; }

// For every vector of rows and every token.
template <int T, typename Do>
static inline __attribute__((always_inline)) void for_each_sum(Do&& work) {
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) {
#pragma GCC unroll 2
    for (int z = 0; z < kFewVectors; z++) work(z, t);
  }
}

// Rows that lie `stride` bytes apart.
struct LaneRows {
  const uint8_t* first;
  int64_t stride;
  const uint8_t* scales;  // of the first row where the format has them apart, theirs `scale_stride` bytes apart
  int64_t scale_stride;
  const uint8_t* at(int r) const { return first + r * stride; }
  const uint8_t* scales_at(int r) const { return scales + r * scale_stride; }
};

#if TANDEM_ISA_LEVEL == 2

// Where sixteen rows are.
struct LaneAt {
  const uint8_t* first;
  int64_t stride;
  explicit LaneAt(const LaneRows& w) : first(w.first), stride(w.stride) {}
  const uint8_t* of(int, int64_t offset) const { return first + offset; }
  // Row r of those that begin at p.
  const uint8_t* row(const uint8_t* p, int r) const { return p + r * stride; }
  // out[i]: dword i of 16 bytes of the z-th kLaneRows rows. They lie in lanes in their order: vector j is made of rows j, 4 + j, 8 + j, 12 + j.
  inline __attribute__((always_inline)) void turn(int, int64_t offset, Rows* out) const {
    __m512i v[4];
    const uint8_t* base = first + offset;
    const int64_t s4 = 4 * stride, s12 = 12 * stride;
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) {
      const uint8_t* p = base + j * stride;
      const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(p)), load128(p + s4), 1);
      const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(p + 2 * s4)), load128(p + s12), 1);
      v[j] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    transpose_dwords(v, out);
  }
};

// Bytes of each dword by their numbers; 0x80 is a zero.
static inline Rows dword_bytes(Rows v, uint32_t which) {
  const int c = static_cast<int>(which);
  return _mm512_shuffle_epi8(v, _mm512_set4_epi32(c + 0x0c0c0c0c, c + 0x08080808, c + 0x04040404, c));
}
static inline Rows word_signed(Rows v) { return _mm512_srai_epi16(v, 8); }
// a | b & mask
static inline Rows rows_with(Rows a, Rows b, int32_t mask) { return _mm512_ternarylogic_epi32(a, b, rows_set(mask), 0xf8); }

static inline Rows dword_low_twice(Rows v) { return dword_bytes(v, 0x01000100u); }
// A scale as it meets sums: a number in each lane.
static inline Rows scale_byte(Rows v, int i) { return dword_bytes(v, 0x80808000u + static_cast<uint32_t>(i)); }
static inline Rows scale_signed(Rows v, int i) { return rows_signed(rows_left(v, 24 - 8 * i), 24); }
static inline Rows scale_whole(Rows v) { return v; }

// sum + the products of four columns.
static inline Rows add_products(Rows sum, Rows codes, Rows x) { return _mm512_dpbusd_epi32(sum, codes, x); }
template <bool signed_codes>
static inline Rows first_products(Rows codes, Rows x) {
  return add_products(rows_set(0), codes, x);
}
constexpr int sums_that_fit(int columns, int) { return columns / 4; }
static inline Rows add_scaled(Rows sum, Rows products, Rows scale) { return _mm512_add_epi32(sum, _mm512_mullo_epi32(products, scale)); }
static inline Rows add_pairs(Rows sum, Rows a, Rows b) { return _mm512_dpwssd_epi32(sum, a, b); }

#else

struct LaneAt {
  const uint8_t* first;
  int64_t one, three, five, seven;  // times the stride, in registers: twice and four times as much is part of an address
  explicit LaneAt(const LaneRows& w)
      : first(w.first), one(w.stride), three(by_itself(3 * w.stride)), five(by_itself(5 * w.stride)), seven(by_itself(7 * w.stride)) {}
  const uint8_t* of(int z, int64_t offset) const { return by_itself(first + z * 8 * one + offset); }
  const uint8_t* row(const uint8_t* p, int r) const {
    switch (r) {
      case 0: return p;
      case 3: return p + three;
      case 5: return p + five;
      case 6: return p + 2 * three;
      case 7: return p + seven;
      default: return p + r * one;
    }
  }
  inline __attribute__((always_inline)) void turn(int z, int64_t offset, Rows* out) const {
    const uint8_t* p = of(z, offset);
    __m256i v[4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; j++) v[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(row(p, j))), load128(row(p, 4 + j)), 1);
    transpose_dwords(v, out);
  }
};

static inline Rows dword_bytes(Rows v, uint32_t which) {
  const int c = static_cast<int>(which);
  return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_set_epi32(c + 0x0c0c0c0c, c + 0x08080808, c + 0x04040404, c)));
}
static inline Rows word_signed(Rows v) { return _mm256_srai_epi16(v, 8); }
static inline Rows rows_with(Rows a, Rows b, int32_t mask) { return rows_or(a, rows_and(b, mask)); }

// The low word of each dword twice.
static inline Rows dword_low_twice(Rows v) { return dword_bytes(v, 0x01000100u); }
// A scale as it meets sums: twice as words.
static inline Rows scale_byte(Rows v, int i) { return dword_bytes(v, 0x80008000u + static_cast<uint32_t>(i) * 0x00010001u); }
static inline Rows scale_signed(Rows v, int i) { return word_signed(dword_bytes(v, 0x00800080u + static_cast<uint32_t>(i) * 0x01000100u)); }
static inline Rows scale_whole(Rows v) { return dword_low_twice(v); }

// Two words: sums of pairs of products, as long as they fit. Signs of codes go over to x.
template <bool signed_codes>
static inline Rows first_products(Rows codes, Rows x) {
  if constexpr (signed_codes) return _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
  else return _mm256_maddubs_epi16(codes, x);
}
static inline Rows add_products(Rows sum, Rows codes, Rows x) {
  sum = _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, x));
  keep_order(sum);
  return sum;
}
static inline Rows add_pairs(Rows sum, Rows a, Rows b) {
  sum = _mm256_add_epi32(sum, _mm256_madd_epi16(a, b));
  keep_order(sum);
  return sum;
}
static inline Rows add_scaled(Rows sum, Rows products, Rows scale) { return add_pairs(sum, products, scale); }
// Of how many times four columns the products fit, where no code is above `most`.
constexpr int sums_that_fit(int columns, int most) {
  int n = columns / 4;
  while (n * 2 * 127 * most > 32767) n /= 2;
  return n;
}

#endif

// The low words of two.
static inline Rows dword_low_words(Rows a, Rows b) { return rows_or(rows_and(a, 0xffff), rows_left(b, 16)); }
// Bytes 2i and 2i + 1 of each dword as words, and the same signed.
static inline Rows dword_two_bytes(Rows v, int i) { return dword_bytes(v, 0x80018000u + static_cast<uint32_t>(i) * 0x00020002u); }
static inline Rows dword_words(Rows v, int i) { return word_signed(dword_bytes(v, 0x01800080u + static_cast<uint32_t>(i) * 0x02000200u)); }
static inline Rows rows_shifted(Rows v, int left) { return left >= 0 ? rows_left(v, left) : rows_right(v, -left); }

// out[t * stride + r]: row r · token t, r < 16; what lies `ahead` bytes behind each row is fetched.
using FewTile = void (*)(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride);

// Few::tile<T> for T = 2 … most.
template <typename Few, int... i>
constexpr std::array<FewTile, sizeof...(i)> few_tiles(std::integer_sequence<int, i...>) {
  return {Few::template tile<i + 2>...};
}

// As PanelKernel::multiply: two to Few::kMost tokens by its tiles, more tokens and what is left of rows by `panel`.
template <typename Few, typename Panel>
static inline void multiply_few(Panel&& panel, const WeightRow* w, int count, const ActivationRow* x, int64_t tokens, int64_t k, float* out, int64_t stride) {
  int done = 0;
  if constexpr (Few::kMost >= 2) {
    static constexpr auto tiles = few_tiles<Few>(std::make_integer_sequence<int, Few::kMost - 1>());
    if (tokens <= Few::kMost) {
      for (; done + kFewRows <= count; done += kFewRows) {
        const WeightRow &first = w[done], &second = w[done + 1], &last = w[done + kFewRows - 1];
        const LaneRows rows = {first.data, second.data - first.data, first.scales, first.scales ? second.scales - first.scales : 0};
        if (last.data != rows.at(kFewRows - 1) || last.scales != rows.scales_at(kFewRows - 1)) break;  // rows that do not follow each other evenly
        tiles[tokens - 2](rows, x, k, w->ahead, out + done, stride);
      }
    }
  }
  if (done < count) panel(w + done, count - done, x, tokens, k, out + done, stride);
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
