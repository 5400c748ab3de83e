// A few tokens with sixteen rows of weights in blocks of 256 (q2_k q3_k q4_k q5_k q6_k iq4_xs). An element, as in dot_q256: the sum of
// a block complete as an integer, then times d_w · d_x; minima likewise.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"
#include "cpu/kernels/few_lanes.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Formats: begin(w, z, at) reads the header of the blocks at byte `at` of the z-th kLaneRows rows; group(w, z, at, g) their codes of sub-blocks
// [g · kSubs, (g + 1) · kSubs) in the order of `sub`; codes(j, i): columns 4i … 4i + 3 of the group's j-th; scale(s); pair(i): two words that
// meet the sums of x over sub-blocks 2i and 2i + 1: minima, or where codes are raised, scales.
struct FewQ4K {
  static constexpr int kMost = few_most(6, 8);
  static constexpr int kBytes = 144, kSub = 32, kGroups = 4, kSubs = 2, kOffset = 0, kAdds = sums_that_fit(kSub, 15);
  static constexpr bool kMins = true;
  Rows scales[2], mins[2], raw[8];
  RowFloats d, dmin;
  static constexpr int sub(int g, int j) { return 2 * g + j; }
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    Rows head[4];
    w.turn(z, at, head);
    d = rows_halves(head[0]);
    dmin = rows_halves(rows_right(head[0], 16));
    scales[0] = rows_and(head[1], 0x3f3f3f3f);
    scales[1] = rows_or(rows_and(head[3], 0x0f0f0f0f), rows_and(rows_right(head[1], 2), 0x30303030));
    mins[0] = rows_and(head[2], 0x3f3f3f3f);
    mins[1] = rows_or(rows_and(rows_right(head[3], 4), 0x0f0f0f0f), rows_and(rows_right(head[2], 2), 0x30303030));
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) {
    w.turn(z, at + 16 + 32 * g, raw);
    w.turn(z, at + 32 + 32 * g, raw + 4);
  }
  Rows codes(int j, int i) const { return rows_and(j == 0 ? raw[i] : rows_right(raw[i], 4), 0x0f0f0f0f); }
  Rows scale(int s) const { return scale_byte(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_two_bytes(mins[i / 2], i % 2); }
};

struct FewQ5K : FewQ4K {
  static constexpr int kMost = few_most(0, 8);
  static constexpr int kBytes = 176, kAdds = sums_that_fit(kSub, 31);
  Rows high[8];
  int first;
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    FewQ4K::begin(w, z, at);
    w.turn(z, at + 16, high);
    w.turn(z, at + 32, high + 4);
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) {
    FewQ4K::group(w, z, at + 32, g);
    first = 2 * g;
  }
  Rows codes(int j, int i) const { return rows_with(FewQ4K::codes(j, i), rows_shifted(high[i], 4 - first - j), 0x10101010); }
};

struct FewQ6K {
  static constexpr int kMost = few_most(3, 6);
  static constexpr int kBytes = 210, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 32, kAdds = sums_that_fit(kSub, 63);
  static constexpr bool kMins = false;
  Rows scales[4], low[2][4], high[4];
  RowFloats d, dmin;
  static constexpr int sub(int g, int j) { return 8 * (g / 2) + g % 2 + 2 * j; }
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    Rows v[4];
    w.turn(z, at + 194, v);
    d = rows_halves(rows_right(v[3], 16));
    w.turn(z, at + 192, scales);
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) {
    const int half = g / 2, c = g % 2;
    w.turn(z, at + 64 * half + 16 * c, low[0]);
    w.turn(z, at + 64 * half + 32 + 16 * c, low[1]);
    w.turn(z, at + 128 + 32 * half + 16 * c, high);
  }
  Rows codes(int j, int i) const {
    const Rows four = rows_and(j < 2 ? low[j][i] : rows_right(low[j - 2][i], 4), 0x0f0f0f0f);
    return rows_with(four, j == 0 ? rows_left(high[i], 4) : j == 1 ? rows_left(high[i], 2) : j == 2 ? high[i] : rows_right(high[i], 2), 0x30303030);
  }
  Rows scale(int s) const { return scale_signed(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_words(scales[i / 2], i % 2); }
};

struct FewQ2K {
  static constexpr int kMost = few_most(6, 6);
  static constexpr int kBytes = 84, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 0, kAdds = sums_that_fit(kSub, 3);
  static constexpr bool kMins = true;
  Rows heads[4], raw[4];
  RowFloats d, dmin;
  static constexpr int sub(int g, int j) { return FewQ6K::sub(g, j); }
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    Rows v[4];
    w.turn(z, at + 68, v);
    d = rows_halves(v[3]);
    dmin = rows_halves(rows_right(v[3], 16));
    w.turn(z, at, heads);
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) { w.turn(z, at + 16 + 16 * g, raw); }
  Rows codes(int j, int i) const { return rows_and(rows_right(raw[i], 2 * j), 0x03030303); }
  Rows scale(int s) const { return scale_byte(rows_and(heads[s / 4], 0x0f0f0f0f), s % 4); }
  Rows pair(int i) const { return dword_two_bytes(rows_and(rows_right(heads[i / 2], 4), 0x0f0f0f0f), i % 2); }
};

struct FewQ3K {
  static constexpr int kMost = few_most(3, 5);
  static constexpr int kBytes = 110, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 4, kAdds = sums_that_fit(kSub, 7);
  static constexpr bool kMins = false;
  Rows scales[4], low[4], high[4];
  RowFloats d, dmin;
  int half;
  static constexpr int sub(int g, int j) { return FewQ6K::sub(g, j); }
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    Rows v[4], bytes[3];
    w.turn(z, at + 94, v);
    d = rows_halves(rows_right(v[3], 16));
    // Low four bits in the nibbles of bytes 0–7, high two in bytes 8–11 (byte j: scales j, j+4, j+8, j+12).
    for (int i = 0; i < 3; i++) bytes[i] = rows_or(rows_right(v[i], 16), rows_left(v[i + 1], 16));
    for (int i = 0; i < 4; i++) {
      const Rows four = rows_and(rows_right(bytes[i % 2], 4 * (i / 2)), 0x0f0f0f0f);
      scales[i] = rows_sub_bytes(rows_with(four, rows_shifted(bytes[2], 4 - 2 * i), 0x30303030), rows_set(0x20202020));
    }
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) {
    w.turn(z, at + 32 + 16 * g, low);
    w.turn(z, at + 16 * (g % 2), high);
    half = g / 2;
    if constexpr (kFewLoops) {
      for (int i = 0; i < 4; i++) high[i] = rows_right(high[i], 4 * half);
      half = 0;
    }
  }
  Rows codes(int j, int i) const {
    return rows_with(rows_and(rows_right(low[i], 2 * j), 0x03030303), rows_shifted(high[i], 2 - j - 4 * half), 0x04040404);
  }
  Rows scale(int s) const { return scale_signed(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_words(scales[i / 2], i % 2); }
};

struct FewIq4Xs {
  static constexpr int kMost = few_most(5, 8);
  static constexpr int kBytes = 136, kSub = 32, kGroups = 8, kSubs = 1;
#if TANDEM_ISA_LEVEL == 2
  static constexpr int kOffset = 128, kAdds = 8;
  static constexpr const void* kLevels = kIq4Raised;
#else
  // Raised levels would not fit.
  static constexpr int kOffset = 0, kAdds = 1;
  static constexpr bool kSigned = true;
  static constexpr const void* kLevels = kIq4Levels;
#endif
  static constexpr bool kMins = false;
  Rows head[4], raw[4];
  RowFloats d, dmin;
  static constexpr int sub(int g, int) { return g; }
  inline __attribute__((always_inline)) void begin(const LaneAt& w, int z, int64_t at) {
    w.turn(z, at, head);
    d = rows_halves(head[0]);
  }
  inline __attribute__((always_inline)) void group(const LaneAt& w, int z, int64_t at, int g) { w.turn(z, at + 8 + 16 * g, raw); }
  Rows codes(int, int i) const {
    return rows_look_up(static_cast<const uint8_t*>(kLevels), rows_and(i < 4 ? raw[i] : rows_right(raw[i - 4], 4), 0x0f0f0f0f));
  }
  Rows six(int s) const {
    const Rows low = rows_and(rows_right(head[1], 4 * s), 15);
    return rows_add(rows_with(low, rows_shifted(head[0], 4 - 16 - 2 * s), 0x30), rows_set(-32));
  }
  Rows scale(int s) const { return scale_whole(six(s)); }
  Rows pair(int i) const { return dword_low_words(six(2 * i), six(2 * i + 1)); }
};

// Sums of the codes of x over sub-blocks; those of 32 columns through `added`.
template <int columns>
static inline const int16_t* sub_block_sums(const int16_t* bsums, int16_t* added) {
  if constexpr (columns == 16) return bsums;
  const __m256i sums = _mm256_madd_epi16(load256(bsums), _mm256_set1_epi16(1));
  _mm_store_si128(reinterpret_cast<__m128i*>(added), _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1)));
  return added;
}

template <typename Format>
constexpr bool has_signs = requires { Format::kSigned; };

constexpr int kGroupsUnrolled = kFewLoops ? 1 : 8;

template <typename Format, int T>
static inline __attribute__((always_inline)) void few_256(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
  constexpr int kZ = kFewVectors, kSubs = 256 / Format::kSub, kQuads = Format::kSub / 4, kAdds = Format::kAdds;
  const LaneAt rows(w);
  RowFloats totals[kZ][T];
  for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { totals[z][t] = zero_row_floats(); });
  for (int64_t b = 0; b < k / 256; b++) {
    const int64_t at = b * Format::kBytes;
    Format block[kZ];
    Rows sums[kZ][T];
    alignas(64) Rows scales[kSubs][kZ];
    for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { sums[z][t] = rows_set(0); });
    for (int z = 0; z < kZ; z++) {
      block[z].begin(rows, z, at);
      if constexpr (!kFewLoops) continue;
#pragma GCC unroll 16
      for (int s = 0; s < kSubs; s++) scales[s][z] = block[z].scale(s);
    }
    if constexpr (kFewLoops) asm("" : "+m"(scales));
    const int8_t* values[T];
    for (int t = 0; t < T; t++) values[t] = few_codes(x[t].codes + b * 256);
    const uint8_t* behind = w.first + at + ahead;
#pragma GCC unroll kGroupsUnrolled
    for (int g = 0; g < Format::kGroups; g++) {
      for (int r = 0; r < kFewRows / Format::kGroups; r++, behind += w.stride) fetch<Format::kBytes>(behind);
      for (int z = 0; z < kZ; z++) block[z].group(rows, z, at, g);
#pragma GCC unroll 4
      for (int j = 0; j < Format::kSubs; j++) {
        const int s = Format::sub(g, j);
#pragma GCC unroll 8
        for (int part = 0; part < kQuads; part += kAdds) {
          Rows products[kZ][T];
#pragma GCC unroll 8
          for (int i = part; i < part + kAdds; i++) {
            Rows codes[kZ];
            for (int z = 0; z < kZ; z++) codes[z] = block[z].codes(j, i);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
              const Rows four = broadcast_codes(values[t] + s * Format::kSub + 4 * i);
              for (int z = 0; z < kZ; z++) {
                products[z][t] = i == part ? first_products<has_signs<Format>>(codes[z], four) : add_products(products[z][t], codes[z], four);
              }
            }
          }
          for (int z = 0; z < kZ; z++) {
            const Rows scale = kFewLoops ? scales[s][z] : block[z].scale(s);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) sums[z][t] = add_scaled(sums[z][t], products[z][t], scale);
          }
        }
      }
    }
    Rows taken[kZ][T];
    for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { taken[z][t] = rows_set(0); });
    if constexpr (Format::kMins || Format::kOffset > 0) {
      alignas(16) int16_t added[T][kSubs];
      const int16_t* code_sums[T];
#pragma GCC unroll 8
      for (int t = 0; t < T; t++) code_sums[t] = sub_block_sums<Format::kSub>(x[t].bsums + b * 16, added[t]);
#pragma GCC unroll 8
      for (int i = 0; i < kSubs / 2; i++) {
        for (int z = 0; z < kZ; z++) {
          const Rows pair = block[z].pair(i);
#pragma GCC unroll 8
          for (int t = 0; t < T; t++) taken[z][t] = add_pairs(taken[z][t], pair, rows_set(load_as<int32_t>(code_sums[t] + 2 * i)));
        }
      }
    }
    for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) {
      if constexpr (Format::kOffset > 0) sums[z][t] = rows_sub(sums[z][t], rows_left(taken[z][t], __builtin_ctz(Format::kOffset)));
      totals[z][t] = fused(rows_float(sums[z][t]), times(block[z].d, x[t].scales[b]), totals[z][t]);
      if constexpr (Format::kMins) totals[z][t] = fused_off(rows_float(taken[z][t]), times(block[z].dmin, x[t].scales[b]), totals[z][t]);
    });
  }
  for_each_sum<T>([&](int z, int t) __attribute__((always_inline)) { store_row_floats(out + t * stride + z * kLaneRows, totals[z][t]); });
}

template <typename Format>
struct Few256 {
  static constexpr int kMost = Format::kMost;
  template <int T>
  static void tile(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
    few_256<Format, T>(w, x, k, ahead, out, stride);
  }
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
