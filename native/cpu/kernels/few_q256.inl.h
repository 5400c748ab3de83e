// A few tokens with sixteen rows of weights in blocks of 256 (q2_k q3_k q4_k q5_k q6_k iq4_xs). An element, as in dot_q256: the sum of
// a block complete as an integer, then times d_w · d_x; minima likewise.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"
#include "cpu/kernels/few_lanes.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

// Formats: begin(w, at) reads the header of the blocks at byte `at` of each row; group(w, at, g) their codes of sub-blocks
// [g · kSubs, (g + 1) · kSubs) in the order of `sub`; codes(j, i): columns 4i … 4i + 3 of the group's j-th; scale(s); pair(i): two
// words that meet the sums of x over columns [32i, 32i + 16) and the sixteen behind: minima, or where codes are raised, scales.
struct FewQ4K {
  static constexpr int kBytes = 144, kSub = 32, kGroups = 4, kSubs = 2, kOffset = 0;
  static constexpr bool kMins = true;
  Rows scales[2], mins[2], raw[8];
  __m512 d, dmin;
  static constexpr int sub(int g, int j) { return 2 * g + j; }
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    Rows head[4];
    turn(w, at, head);
    d = rows_halves(head[0]);
    dmin = rows_halves(rows_right(head[0], 16));
    scales[0] = rows_and(head[1], 0x3f3f3f3f);
    scales[1] = rows_or(rows_and(head[3], 0x0f0f0f0f), rows_and(rows_right(head[1], 2), 0x30303030));
    mins[0] = rows_and(head[2], 0x3f3f3f3f);
    mins[1] = rows_or(rows_and(rows_right(head[3], 4), 0x0f0f0f0f), rows_and(rows_right(head[2], 2), 0x30303030));
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) {
    Rows v[4];
    turn(w, at + 16 + 32 * g, v);
    for (int i = 0; i < 4; i++) raw[i] = v[i];
    turn(w, at + 32 + 32 * g, v);
    for (int i = 0; i < 4; i++) raw[4 + i] = v[i];
  }
  Rows codes(int j, int i) const { return rows_and(j == 0 ? raw[i] : rows_right(raw[i], 4), 0x0f0f0f0f); }
  Rows scale(int s) const { return dword_byte(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_byte_twice(mins[i / 4], i % 4); }
};

struct FewQ5K : FewQ4K {
  static constexpr int kBytes = 176;
  Rows high[8];
  int first;
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    FewQ4K::begin(w, at);
    Rows v[4];
    turn(w, at + 16, v);
    for (int i = 0; i < 4; i++) high[i] = v[i];
    turn(w, at + 32, v);
    for (int i = 0; i < 4; i++) high[4 + i] = v[i];
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) {
    FewQ4K::group(w, at + 32, g);
    first = 2 * g;
  }
  Rows codes(int j, int i) const {
    const int s = first + j;
    return rows_with(FewQ4K::codes(j, i), s < 4 ? rows_left(high[i], 4 - s) : rows_right(high[i], s - 4), 0x10101010);
  }
};

struct FewQ6K {
  static constexpr int kBytes = 210, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 32;
  static constexpr bool kMins = false;
  Rows scales[4], low[2][4], high[4];
  __m512 d, dmin;
  static constexpr int sub(int g, int j) { return 8 * (g / 2) + g % 2 + 2 * j; }
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    Rows v[4];
    turn(w, at + 194, v);
    d = rows_halves(rows_right(v[3], 16));
    turn(w, at + 192, scales);
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) {
    const int half = g / 2, c = g % 2;
    turn(w, at + 64 * half + 16 * c, low[0]);
    turn(w, at + 64 * half + 32 + 16 * c, low[1]);
    turn(w, at + 128 + 32 * half + 16 * c, high);
  }
  Rows codes(int j, int i) const {
    const Rows four = rows_and(j < 2 ? low[j][i] : rows_right(low[j - 2][i], 4), 0x0f0f0f0f);
    return rows_with(four, j == 0 ? rows_left(high[i], 4) : j == 1 ? rows_left(high[i], 2) : j == 2 ? high[i] : rows_right(high[i], 2), 0x30303030);
  }
  Rows scale(int s) const { return dword_signed(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_words(scales[i / 2], i % 2); }
};

struct FewQ2K {
  static constexpr int kBytes = 84, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 0;
  static constexpr bool kMins = true;
  Rows heads[4], raw[4];
  __m512 d, dmin;
  static constexpr int sub(int g, int j) { return FewQ6K::sub(g, j); }
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    Rows v[4];
    turn(w, at + 68, v);
    d = rows_halves(v[3]);
    dmin = rows_halves(rows_right(v[3], 16));
    turn(w, at, heads);
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) { turn(w, at + 16 + 16 * g, raw); }
  Rows codes(int j, int i) const { return rows_and(rows_right(raw[i], 2 * j), 0x03030303); }
  Rows scale(int s) const { return dword_byte(rows_and(heads[s / 4], 0x0f0f0f0f), s % 4); }
  Rows pair(int i) const { return dword_two_bytes(rows_and(rows_right(heads[i / 2], 4), 0x0f0f0f0f), i % 2); }
};

struct FewQ3K {
  static constexpr int kBytes = 110, kSub = 16, kGroups = 4, kSubs = 4, kOffset = 4;
  static constexpr bool kMins = false;
  Rows scales[4], low[4], high[4];
  __m512 d, dmin;
  int half;
  static constexpr int sub(int g, int j) { return FewQ6K::sub(g, j); }
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    Rows v[4], bytes[3];
    turn(w, at + 94, v);
    d = rows_halves(rows_right(v[3], 16));
    // Low four bits in the nibbles of bytes 0–7, high two in bytes 8–11 (byte j: scales j, j+4, j+8, j+12).
    for (int i = 0; i < 3; i++) bytes[i] = rows_or(rows_right(v[i], 16), rows_left(v[i + 1], 16));
    for (int i = 0; i < 4; i++) {
      const Rows four = rows_and(rows_right(bytes[i % 2], 4 * (i / 2)), 0x0f0f0f0f);
      scales[i] = rows_sub_bytes(rows_with(four, rows_shifted(bytes[2], 4 - 2 * i), 0x30303030), rows_set(0x20202020));
    }
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) {
    half = g / 2;
    turn(w, at + 32 + 32 * half + 16 * (g % 2), low);
    turn(w, at + 16 * (g % 2), high);
  }
  Rows codes(int j, int i) const {
    return rows_with(rows_and(rows_right(low[i], 2 * j), 0x03030303), rows_shifted(high[i], 2 - j - 4 * half), 0x04040404);
  }
  Rows scale(int s) const { return dword_signed(scales[s / 4], s % 4); }
  Rows pair(int i) const { return dword_words(scales[i / 2], i % 2); }
};

struct FewIq4Xs {
  static constexpr int kBytes = 136, kSub = 32, kGroups = 8, kSubs = 1, kOffset = 128;
  static constexpr bool kMins = false;
  Rows head[4], raw[4];
  __m512 d, dmin;
  static constexpr int sub(int g, int) { return g; }
  inline __attribute__((always_inline)) void begin(const LaneRows& w, int64_t at) {
    turn(w, at, head);
    d = rows_halves(head[0]);
  }
  inline __attribute__((always_inline)) void group(const LaneRows& w, int64_t at, int g) { turn(w, at + 8 + 16 * g, raw); }
  Rows codes(int, int i) const { return rows_look_up(kIq4Raised, rows_and(i < 4 ? raw[i] : rows_right(raw[i - 4], 4), 0x0f0f0f0f)); }
  Rows scale(int s) const {
    const Rows low = rows_and(rows_right(head[1], 4 * s), 15);
    return rows_add(rows_with(low, rows_shifted(head[0], 4 - 16 - 2 * s), 0x30), rows_set(-32));
  }
  Rows pair(int i) const {
    const Rows one = scale(i);
    return rows_or(rows_and(one, 0xffff), rows_left(one, 16));
  }
};

template <typename Format, int T>
static __attribute__((noinline)) void few_256(const LaneRows& w, const ActivationRow* x, int64_t k, int64_t ahead, float* out, int64_t stride) {
  __m512 totals[T];
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) totals[t] = _mm512_setzero_ps();
  for (int64_t b = 0; b < k / 256; b++) {
    const int64_t at = b * Format::kBytes;
    Format block;
    block.begin(w, at);
    Rows sums[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) sums[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int g = 0; g < Format::kGroups; g++) {
      for (int r = 16 * g / Format::kGroups; r < 16 * (g + 1) / Format::kGroups; r++) fetch<Format::kBytes>(w.at(r) + at + ahead);
      block.group(w, at, g);
#pragma GCC unroll 4
      for (int j = 0; j < Format::kSubs; j++) {
        const int s = Format::sub(g, j);
        Rows acc[T];
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) acc[t] = _mm512_setzero_si512();
#pragma GCC unroll 8
        for (int i = 0; i < Format::kSub / 4; i++) {
          const Rows codes = block.codes(j, i);
#pragma GCC unroll 8
          for (int t = 0; t < T; t++)
            acc[t] = _mm512_dpbusd_epi32(acc[t], codes, rows_set(load_as<int32_t>(x[t].codes + b * 256 + s * Format::kSub + 4 * i)));
        }
        const Rows scale = block.scale(s);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) sums[t] = _mm512_add_epi32(sums[t], _mm512_mullo_epi32(acc[t], scale));
      }
    }
    Rows taken[T];
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) taken[t] = _mm512_setzero_si512();
    if constexpr (Format::kMins || Format::kOffset > 0) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; i++) {
        const Rows pair = block.pair(i);
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) taken[t] = _mm512_dpwssd_epi32(taken[t], pair, rows_set(load_as<int32_t>(x[t].bsums + b * 16 + 2 * i)));
      }
    }
#pragma GCC unroll 8
    for (int t = 0; t < T; t++) {
      const __m512 dx = _mm512_set1_ps(x[t].scales[b]);
      if constexpr (Format::kOffset > 0) sums[t] = _mm512_sub_epi32(sums[t], _mm512_mullo_epi32(taken[t], rows_set(Format::kOffset)));
      totals[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[t]), _mm512_mul_ps(block.d, dx), totals[t]);
      if constexpr (Format::kMins) totals[t] = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(taken[t]), _mm512_mul_ps(block.dmin, dx), totals[t]);
    }
  }
#pragma GCC unroll 8
  for (int t = 0; t < T; t++) _mm512_storeu_ps(out + t * stride, totals[t]);
}

// For sub-blocks of 16 a panel is faster from seven tokens on (measured on Zen 4).
template <typename Format, int most = Format::kSub == 16 ? 6 : 8>
struct Few256 {
  static constexpr FewTile tiles[most] = {few_256<Format, 1>, few_256<Format, 2>, few_256<Format, 3>,
                                          few_256<Format, 4>, few_256<Format, 5>, few_256<Format, 6>};
};
template <typename Format>
struct Few256<Format, 8> {
  static constexpr FewTile tiles[8] = {few_256<Format, 1>, few_256<Format, 2>, few_256<Format, 3>, few_256<Format, 4>,
                                       few_256<Format, 5>, few_256<Format, 6>, few_256<Format, 7>, few_256<Format, 8>};
};

#else

struct FewQ2K;
struct FewQ3K;
struct FewQ4K;
struct FewQ5K;
struct FewQ6K;
struct FewIq4Xs;

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
