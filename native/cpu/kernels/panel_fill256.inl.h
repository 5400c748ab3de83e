// One block of 256 columns of many weight rows, unpacked into a panel: a `fill` per format.
//
// Scales of sub-blocks are kept as the multiplication wants them: as f32 (avx512), where they multiply sums below 2^24, or as
// two equal words (avx2), where they multiply pairs of 16-bit sums.
#pragma once

#include "cpu/kernels/dot_q256_formats.inl.h"
#include "cpu/kernels/panel_lanes.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

constexpr int kPanelVectors = 2;                             // of rows
constexpr int kPanel256Rows = kPanelVectors * kLaneRows;

struct Panel256 {
  alignas(64) uint8_t codes[64][kPanelVectors][4 * kLaneRows];  // of four columns; raised by the format's offset
  // Of a sub-block: f32 (avx512), or two equal words (avx2). Formats with kReach (avx512): of two sub-blocks, as words.
  alignas(64) uint32_t scales[16][kPanelVectors][kLaneRows];
  alignas(64) uint32_t pairs[8][kPanelVectors][kLaneRows];      // two words: what meets the sums of two sub-blocks' activations
  alignas(64) float d[kPanelVectors][kLaneRows], dmin[kPanelVectors][kLaneRows];

  void set_codes(int z, int quad, Rows v) { rows_store(codes[quad][z], v); }
  void set_scale(int z, int sub, Rows v) {
#if TANDEM_ISA_LEVEL >= 2
    store_floats(reinterpret_cast<float*>(scales[sub][z]), rows_float(v));
#else
    rows_store(scales[sub][z], rows_or(rows_and(v, 0xffff), rows_left(v, 16)));
#endif
  }
  // Of sub-blocks 2i and 2i + 1.
  template <int reach>
  void set_scales(int z, int i, Rows a, Rows b) {
    if constexpr (reach > 0) {
      rows_store(scales[i][z], rows_or(rows_and(a, 0xffff), rows_left(b, 16)));
    } else {
      set_scale(z, 2 * i, a);
      set_scale(z, 2 * i + 1, b);
    }
  }
  // What the raised codes of sub-blocks 2i and 2i + 1 are too large by. avx512 starts its sums below zero instead.
  void set_raised([[maybe_unused]] int z, [[maybe_unused]] int i, [[maybe_unused]] Rows a, [[maybe_unused]] Rows b,
                  [[maybe_unused]] int offset) {
#if TANDEM_ISA_LEVEL < 2
    rows_store(pairs[i][z], rows_times(rows_or(rows_and(a, 0xffff), rows_left(b, 16)), rows_set(offset * 0x10001)));
#endif
  }
};

constexpr int32_t kNibbles = 0x0f0f0f0f, kTwos = 0x03030303;

// Header of q4_k and q5_k.
template <int reach>
static inline void fill_k_head(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
  Rows head[4];
  lift(rows, at, head);
  store_floats(p.d[z], rows_halves(head[0]));
  store_floats(p.dmin[z], rows_halves(rows_right(head[0], 16)));
  const Rows scales[2] = {rows_and(head[1], 0x3f3f3f3f),
                          rows_or(rows_and(head[3], kNibbles), rows_and(rows_right(head[1], 2), 0x30303030))};
  const Rows mins[2] = {rows_and(head[2], 0x3f3f3f3f),
                        rows_or(rows_and(rows_right(head[3], 4), kNibbles), rows_and(rows_right(head[2], 2), 0x30303030))};
  if constexpr (reach > 0) {
    for (int i = 0; i < 4; i++) rows_store(p.scales[i][z], rows_pair(scales[i / 2], i % 2));
  } else {
    for (int i = 0; i < 8; i++) p.set_scale(z, i, rows_byte(scales[i / 4], i % 4));
  }
  for (int i = 0; i < 4; i++) rows_store(p.pairs[i][z], rows_pair(mins[i / 2], i % 2));
}

constexpr int reach_if_avx512(int reach) { return TANDEM_ISA_LEVEL >= 2 ? reach : 0; }
constexpr int kAnyReach = 16 * 127;

// kSub: columns of a scale. kGroup (avx512): sub-blocks whose Σ scale · code · q stays below 2^24. kAdds (avx2): products of
// four columns whose 16-bit pairs add up without overflow. kReach (avx512): sums of sub-blocks fit 16 bits where no 16
// columns of the activation have a Σ|q| above it; 0: too seldom. kOffset: what codes are raised by. kMins: pairs are minima.
struct PanelQ4K {
  static constexpr int kBytes = 144, kSub = 32, kOffset = 0, kGroup = 4, kAdds = 8;
  static constexpr bool kMins = true;
  static constexpr int kReach = reach_if_avx512(32767 / (2 * 15));
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    fill_k_head<kReach>(rows, at, p, z);
    for (int c = 0; c < 8; c++) {
      Rows v[4];
      lift(rows, at + 16 + 16 * c, v);
      for (int i = 0; i < 4; i++) {
        const int quad = 16 * (c / 2) + 4 * (c % 2) + i;
        p.set_codes(z, quad, rows_and(v[i], kNibbles));
        p.set_codes(z, quad + 8, rows_and(rows_right(v[i], 4), kNibbles));
      }
    }
  }
};

struct PanelQ5K {
  static constexpr int kBytes = 176, kSub = 32, kOffset = 0, kGroup = 2, kAdds = 4;
  static constexpr bool kMins = true;
  static constexpr int kReach = reach_if_avx512(32767 / (2 * 31));
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    fill_k_head<kReach>(rows, at, p, z);
    for (int c = 0; c < 2; c++) {
      Rows high[4];
      lift(rows, at + 16 + 16 * c, high);  // bit s: sub-block s
      for (int g = 0; g < 4; g++) {
        Rows v[4];
        lift(rows, at + 48 + 32 * g + 16 * c, v);
        for (int i = 0; i < 4; i++) {
          const int quad = 16 * g + 4 * c + i;
          const Rows bits = rows_right(high[i], 2 * g);
          p.set_codes(z, quad, rows_or(rows_and(v[i], kNibbles), rows_and(rows_left(bits, 4), 0x10101010)));
          p.set_codes(z, quad + 8, rows_or(rows_and(rows_right(v[i], 4), kNibbles), rows_and(rows_left(bits, 3), 0x10101010)));
        }
      }
    }
  }
};

struct PanelQ6K {
  static constexpr int kBytes = 210, kSub = 16, kOffset = 32, kGroup = 2, kAdds = 2;
  static constexpr bool kMins = false;
  static constexpr int kReach = reach_if_avx512(32767 / 32);
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    Rows v[4];
    lift(rows, at + 194, v);
    store_floats(p.d[z], rows_halves(rows_right(v[3], 16)));
    lift(rows, at + 192, v);
    for (int i = 0; i < 4; i++) {
      Rows scales[4];
      for (int j = 0; j < 4; j++) scales[j] = rows_signed(rows_left(v[i], 24 - 8 * j), 24);
      for (int j = 0; j < 2; j++) {
        p.set_scales<kReach>(z, 2 * i + j, scales[2 * j], scales[2 * j + 1]);
        p.set_raised(z, 2 * i + j, scales[2 * j], scales[2 * j + 1], kOffset);
      }
    }
    for (int half = 0; half < 2; half++) {
      for (int c = 0; c < 2; c++) {
        Rows a[4], b[4], high[4];
        lift(rows, at + 64 * half + 16 * c, a);
        lift(rows, at + 64 * half + 32 + 16 * c, b);
        lift(rows, at + 128 + 32 * half + 16 * c, high);
        for (int i = 0; i < 4; i++) {
          const int quad = 32 * half + 4 * c + i;
          const int32_t twos = 0x30303030;
          p.set_codes(z, quad, rows_or(rows_and(a[i], kNibbles), rows_and(rows_left(high[i], 4), twos)));
          p.set_codes(z, quad + 8, rows_or(rows_and(b[i], kNibbles), rows_and(rows_left(high[i], 2), twos)));
          p.set_codes(z, quad + 16, rows_or(rows_and(rows_right(a[i], 4), kNibbles), rows_and(high[i], twos)));
          p.set_codes(z, quad + 24, rows_or(rows_and(rows_right(b[i], 4), kNibbles), rows_and(rows_right(high[i], 2), twos)));
        }
      }
    }
  }
};

struct PanelQ2K {
  static constexpr int kBytes = 84, kSub = 16, kOffset = 0, kGroup = 16, kAdds = 4;
  static constexpr bool kMins = true;
  static constexpr int kReach = reach_if_avx512(kAnyReach);
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    Rows v[4];
    lift(rows, at + 68, v);
    store_floats(p.d[z], rows_halves(v[3]));
    store_floats(p.dmin[z], rows_halves(rows_right(v[3], 16)));
    lift(rows, at, v);
    for (int i = 0; i < 4; i++) {
      const Rows scales = rows_and(v[i], kNibbles), mins = rows_and(rows_right(v[i], 4), kNibbles);
      if constexpr (kReach > 0) {
        for (int j = 0; j < 2; j++) rows_store(p.scales[2 * i + j][z], rows_pair(scales, j));
      } else {
        for (int j = 0; j < 4; j++) p.set_scale(z, 4 * i + j, rows_byte(scales, j));
      }
      for (int j = 0; j < 2; j++) rows_store(p.pairs[2 * i + j][z], rows_pair(mins, j));
    }
    for (int c = 0; c < 4; c++) {
      lift(rows, at + 16 + 16 * c, v);
      for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) p.set_codes(z, 32 * (c / 2) + 8 * j + 4 * (c % 2) + i, rows_and(rows_right(v[i], 2 * j), kTwos));
      }
    }
  }
};

struct PanelQ3K {
  static constexpr int kBytes = 110, kSub = 16, kOffset = 4, kGroup = 16, kAdds = 4;
  static constexpr bool kMins = false;
  static constexpr int kReach = reach_if_avx512(kAnyReach);
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    Rows v[4];
    lift(rows, at + 94, v);
    store_floats(p.d[z], rows_halves(rows_right(v[3], 16)));
    // Low four bits in the nibbles of bytes 0–7, high two in bytes 8–11 (byte j: scales j, j+4, j+8, j+12).
    Rows bytes[3];
    for (int i = 0; i < 3; i++) bytes[i] = rows_or(rows_right(v[i], 16), rows_left(v[i + 1], 16));
    for (int i = 0; i < 4; i++) {
      const Rows low = rows_and(rows_right(bytes[i % 2], 4 * (i / 2)), kNibbles);
      const Rows six = rows_or(low, rows_left(rows_and(rows_right(bytes[2], 2 * i), kTwos), 4));
      Rows scales[4];
      for (int j = 0; j < 4; j++) scales[j] = rows_add(rows_byte(six, j), rows_set(-32));
      for (int j = 0; j < 2; j++) {
        p.set_scales<kReach>(z, 2 * i + j, scales[2 * j], scales[2 * j + 1]);
        p.set_raised(z, 2 * i + j, scales[2 * j], scales[2 * j + 1], kOffset);
      }
    }
    for (int c = 0; c < 2; c++) {
      Rows high[4];
      lift(rows, at + 16 * c, high);
      for (int half = 0; half < 2; half++) {
        lift(rows, at + 32 + 32 * half + 16 * c, v);
        for (int i = 0; i < 4; i++) {
          const Rows bits = half ? rows_right(high[i], 4) : high[i];
          for (int j = 0; j < 4; j++) {
            const Rows third = j < 2 ? rows_left(bits, 2 - j) : rows_right(bits, j - 2);
            p.set_codes(z, 32 * half + 8 * j + 4 * c + i, rows_or(rows_and(rows_right(v[i], 2 * j), kTwos), rows_and(third, 0x04040404)));
          }
        }
      }
    }
  }
};

struct PanelIq4Xs {
  static constexpr int kBytes = 136, kSub = 32, kGroup = 1, kAdds = 1;
  static constexpr bool kMins = false;
  static constexpr int kReach = reach_if_avx512(0);
#if TANDEM_ISA_LEVEL >= 2
  static constexpr int kOffset = 128;
#else
  static constexpr int kOffset = 0;
  static constexpr bool kSigned = true;  // raised levels would not fit 16-bit pairs
#endif
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
#if TANDEM_ISA_LEVEL >= 2
    const uint8_t* levels = kIq4Raised;
#else
    const uint8_t* levels = reinterpret_cast<const uint8_t*>(kIq4Levels);
#endif
    Rows v[4];
    lift(rows, at, v);
    store_floats(p.d[z], rows_halves(v[0]));
    for (int s = 0; s < 8; s++) {
      const Rows low = rows_and(rows_right(v[1], 4 * s), 15), high = rows_and(rows_right(v[0], 16 + 2 * s), 3);
      p.set_scale(z, s, rows_add(rows_or(low, rows_left(high, 4)), rows_set(-32)));
    }
    for (int s = 0; s < 8; s++) {
      lift(rows, at + 8 + 16 * s, v);
      for (int i = 0; i < 4; i++) {
        p.set_codes(z, 8 * s + i, rows_look_up(levels, rows_and(v[i], kNibbles)));
        p.set_codes(z, 8 * s + 4 + i, rows_look_up(levels, rows_and(rows_right(v[i], 4), kNibbles)));
      }
    }
  }
};

// Formats with code books: rows are unpacked as the tiles do, then turned. kLess: what codes are raised by beyond need.
template <typename Dot, int group, int adds, int less = 0>
struct PanelGrid {
  static constexpr int kBytes = Dot::kBytes, kSub = Dot::kSub, kOffset = Dot::kOffset - less, kGroup = group, kAdds = adds;
  static constexpr bool kMins = false;
  static constexpr int kReach = 0;
  static void fill(const uint8_t* const* rows, int64_t at, Panel256& p, int z) {
    alignas(64) uint8_t codes[kLaneRows][256];
    alignas(64) int32_t scales[kLaneRows][16];
    const uint8_t *code_rows[kLaneRows], *scale_rows[kLaneRows];
    for (int r = 0; r < kLaneRows; r++) {
      const auto head = Dot::head(rows[r] + at);
      for (int g = 0; g < kVectors; g++) {
        Codes v = Dot::codes(head, g);
        if constexpr (less != 0) v = rows_sub_bytes(v, vec_bytes(less));
        rows_store(codes[r] + g * (256 / kVectors), v);
      }
#if TANDEM_ISA_LEVEL >= 2
      rows_store(scales[r], _mm512_cvtepi16_epi32(_mm512_castsi512_si256(head.scales)));
#else
      rows_store(scales[r], _mm256_cvtepi16_epi32(_mm256_castsi256_si128(head.scales.low)));
      rows_store(scales[r] + 8, _mm256_cvtepi16_epi32(_mm256_castsi256_si128(head.scales.high)));
#endif
      p.d[z][r] = head.d;
      code_rows[r] = codes[r];
      scale_rows[r] = reinterpret_cast<const uint8_t*>(scales[r]);
    }
    Rows v[4];
    for (int i = 0; i < 64 / kSub; i++) {
      lift(scale_rows, 16 * i, v);
      for (int j = 0; j < 4; j++) p.set_scale(z, 4 * i + j, v[j]);
      for (int j = 0; j < 2; j++) p.set_raised(z, 2 * i + j, v[2 * j], v[2 * j + 1], kOffset);
    }
    for (int c = 0; c < 16; c++) {
      lift(code_rows, 16 * c, v);
      for (int i = 0; i < 4; i++) p.set_codes(z, 4 * c + i, v[i]);
    }
  }
};

using PanelIq2Xxs = PanelGrid<DotIq2Xxs, 2, 1>;
using PanelIq2Xs = PanelGrid<DotIq2Xs, 4, 1>;
using PanelIq2S = PanelGrid<DotIq2S, 4, 1>;
using PanelIq3Xxs = PanelGrid<DotIq3Xxs, 2, 1>;
using PanelIq3S = PanelGrid<DotIq3S, 8, 4, 48>;  // levels up to 15
using PanelIq1S = PanelGrid<DotIq1S, 8, 4>;
using PanelIq1M = PanelGrid<DotIq1M, 16, 4>;

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
