// Panels: weights of any format as bf16 in tiles of [16 rows][32 columns], the exact f32 weight rounded to nearest even.
//
// Formats of up to 32 levels go by look-up: the levels of a sub-block are computed once, with the f32 roundings of
// native/quant/, rounded to bf16 in a register, and one permutation turns 32 codes into 32 weights. (What would be subnormal is
// zero, as VCVTNE2PS2BF16 has it and as tiles count it anyway.)
#pragma once

#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/dot_grids.inl.h"
#include "cpu/tiles.h"

#if TANDEM_ISA_LEVEL >= 3

namespace tandem::TANDEM_ISA_NAMESPACE {

// Decodes `columns` weights of one row (whole blocks; at most kPieceColumns) into a row of tiles: column i goes to
// out[i / 32 · 512 + i % 32]; columns up to the end of the last tile become zero. `scales` as for `decode_row`, from the first column on.
using PanelPiece = void (*)(const uint8_t* row, int64_t columns, const uint8_t* scales, uint16_t* out);

constexpr int64_t kPieceColumns = 256;  // one block of the k-quants

static inline __m512i round_pair(__m512 low, __m512 high) { return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low)); }
static inline __m512i round_half(__m512 low) {
  return _mm512_castsi256_si512(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(low)));
}
static inline void store_columns(uint16_t* out, __m512i weights) { _mm512_store_si512(out, weights); }
// A table of 32 weights is looked up by bytes: code c finds bytes 2c and 2c + 1. VPERMB is one instruction inside an Intel core,
// VPERMW two, on the one port that permutes; on Zen 4 they are alike.
static inline __m512i twice_each(__m256i bytes) {
  alignas(64) static constexpr uint8_t kPairs[64] = {
      0,  0,  1,  1,  2,  2,  3,  3,  4,  4,  5,  5,  6,  6,  7,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15,
      16, 16, 17, 17, 18, 18, 19, 19, 20, 20, 21, 21, 22, 22, 23, 23, 24, 24, 25, 25, 26, 26, 27, 27, 28, 28, 29, 29, 30, 30, 31, 31};
  return _mm512_permutexvar_epi8(_mm512_load_si512(kPairs), _mm512_castsi256_si512(bytes));
}
static inline __m512i pair_index(__m512i twice) { return _mm512_or_si512(_mm512_add_epi8(twice, twice), _mm512_set1_epi16(0x0100)); }
// 32 codes in bytes → weights.
static inline __m512i look_up(__m512i table, __m256i codes) { return _mm512_permutexvar_epi8(pair_index(twice_each(codes)), table); }
static inline __m256i thirty_two(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
// Nibbles of sixteen bytes: the low ones, then the high ones.
static inline __m256i nibbles_in_turn(const uint8_t* p) {
  const __m128i bytes = sixteen(p);
  return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1), _mm256_set1_epi8(15));
}
// Broadcasts then come from memory and load ports; gcc would rather permute a register, on the one port that look-ups need.
static inline void keep_in_memory(float (&x)[16]) { asm("" : "+m"(x)); }
static inline __m512 first_levels() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
static inline __m512 next_levels() { return _mm512_add_ps(first_levels(), _mm512_set1_ps(16)); }

// --- q4_k, q5_k -----------------------------------------------------------------------------------------------------------
// The eight d·scale, then the eight dmin·min (see quant/k_scales.h).
static inline void k_scales_of(const uint8_t* block, float* out) {
  const uint32_t a = quant::load_u32(block + 4), b = quant::load_u32(block + 8), c = quant::load_u32(block + 12);
  const uint32_t scales_high = (c & 0x0f0f0f0fu) | (a >> 6 & 0x03030303u) << 4, mins_high = (c >> 4 & 0x0f0f0f0fu) | (b >> 6 & 0x03030303u) << 4;
  const __m128i bytes = _mm_setr_epi32(static_cast<int>(a & 0x3f3f3f3fu), static_cast<int>(scales_high),
                                       static_cast<int>(b & 0x3f3f3f3fu), static_cast<int>(mins_high));
  // Two halves as floats: d eight times, dmin eight times.
  const __m128 pair = _mm_cvtph_ps(_mm_cvtsi32_si128(static_cast<int>(quant::load_u32(block))));
  const __m512 d = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1), _mm512_castps128_ps512(pair));
  _mm512_store_ps(out, _mm512_mul_ps(d, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes))));
}

static void panel_q4_k(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  alignas(64) float scales[16];
  k_scales_of(row, scales);
  keep_in_memory(scales);
  const __m512 levels = first_levels();
  const __m512i nibble = _mm512_set1_epi16(0x1e1e), first = _mm512_set1_epi16(0x0100), second = _mm512_set1_epi16(0x2120);
#pragma GCC unroll 4
  for (int g = 0; g < 4; g++, out += 2 * kTileElements) {
    // The products are exact, so fused or not makes no difference.
    const __m512 even = _mm512_fmsub_ps(levels, _mm512_set1_ps(scales[2 * g]), _mm512_set1_ps(scales[2 * g + 8]));
    const __m512 odd = _mm512_fmsub_ps(levels, _mm512_set1_ps(scales[2 * g + 1]), _mm512_set1_ps(scales[2 * g + 9]));
    const __m512i table = round_pair(even, odd), bytes = twice_each(thirty_two(row + 16 + 32 * g));
    // 0xea: (a & b) | c. The first half of the table serves the low nibbles, the second the high ones.
    const __m512i low = _mm512_ternarylogic_epi32(_mm512_add_epi8(bytes, bytes), nibble, first, 0xea);
    const __m512i high = _mm512_ternarylogic_epi32(_mm512_srli_epi16(bytes, 3), nibble, second, 0xea);
    store_columns(out, _mm512_permutexvar_epi8(low, table));
    store_columns(out + kTileElements, _mm512_permutexvar_epi8(high, table));
  }
}

static void panel_q5_k(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  alignas(64) float scales[16];
  k_scales_of(row, scales);
  keep_in_memory(scales);
  const __m256i high = thirty_two(row + 16), low = _mm256_set1_epi8(15), fifth = _mm256_set1_epi8(16);
#pragma GCC unroll 8
  for (int s = 0; s < 8; s++, out += kTileElements) {
    const __m512 scale = _mm512_set1_ps(scales[s]), min = _mm512_set1_ps(scales[s + 8]);
    const __m512i table = round_pair(_mm512_fmsub_ps(first_levels(), scale, min), _mm512_fmsub_ps(next_levels(), scale, min));
    const __m256i bytes = thirty_two(row + 48 + 32 * (s >> 1));
    const __m256i nibbles = _mm256_and_si256(s & 1 ? _mm256_srli_epi16(bytes, 4) : bytes, low);
    const __m256i bit = s < 4 ? _mm256_slli_epi16(high, s < 4 ? 4 - s : 0) : _mm256_srli_epi16(high, s < 4 ? 0 : s - 4);
    store_columns(out, look_up(table, _mm256_or_si256(nibbles, _mm256_and_si256(bit, fifth))));
  }
}

// --- q2_k, q3_k: the levels of several sub-blocks of 16 in one table ----------------------------------------------------------
static void panel_q2_k(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  const __m128i packed = sixteen(row), low = _mm_set1_epi8(15);
  const auto floats = [](__m128i bytes) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)); };
  const __m512 scales = _mm512_mul_ps(_mm512_set1_ps(half_scale(row + 80)), floats(_mm_and_si128(packed, low)));
  const __m512 mins = _mm512_mul_ps(_mm512_set1_ps(half_scale(row + 82)), floats(_mm_and_si128(_mm_srli_epi16(packed, 4), low)));
  const __m512 levels = _mm512_setr_ps(0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3);
  const __m512i four_each = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  for (int h = 0; h < 2; h++) {
    const auto table_of = [&](int first) {
      const __m512i index = _mm512_add_epi32(four_each, _mm512_set1_epi32(first));
      return _mm512_fmsub_ps(levels, _mm512_permutexvar_ps(index, scales), _mm512_permutexvar_ps(index, mins));
    };
    const __m512i table = round_pair(table_of(8 * h), table_of(8 * h + 4));
    const __m256i bytes = thirty_two(row + 16 + 32 * h);
    for (int r = 0; r < 4; r++, out += kTileElements) {
      const __m256i codes = _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(2 * r)), _mm256_set1_epi8(3));
      const __m256i place = _mm256_set_m128i(_mm_set1_epi8(static_cast<char>(8 * r + 4)), _mm_set1_epi8(static_cast<char>(8 * r)));
      store_columns(out, look_up(table, _mm256_or_si256(codes, place)));
    }
  }
}

static void panel_q3_k(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  // Scales, see q3_k_scale.
  const uint64_t lows = quant::load_u32(row + 96) | static_cast<uint64_t>(quant::load_u32(row + 100)) << 32;
  const __m128i nibbles = _mm_and_si128(_mm_set_epi64x(static_cast<int64_t>(lows >> 4), static_cast<int64_t>(lows)), _mm_set1_epi8(15));
  const __m128i pairs = _mm_and_si128(_mm_srlv_epi32(_mm_set1_epi32(static_cast<int>(quant::load_u32(row + 104))), _mm_setr_epi32(0, 2, 4, 6)),
                                      _mm_set1_epi8(3));
  const __m128i codes_of_scales = _mm_sub_epi8(_mm_or_si128(nibbles, _mm_slli_epi16(pairs, 4)), _mm_set1_epi8(32));
  const __m512 scales = _mm512_mul_ps(_mm512_set1_ps(half_scale(row + 108)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes_of_scales)));
  const __m512 levels = _mm512_setr_ps(-4, -3, -2, -1, 0, 1, 2, 3, -4, -3, -2, -1, 0, 1, 2, 3);
  const __m512i eight_each = _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
  const __m256i mask = thirty_two(row);
  for (int t = 0; t < 4; t++) {
    const auto table_of = [&](int first) {
      return _mm512_mul_ps(levels, _mm512_permutexvar_ps(_mm512_add_epi32(eight_each, _mm512_set1_epi32(first)), scales));
    };
    const __m512i table = round_pair(table_of(4 * t), table_of(4 * t + 2));
    const __m256i bytes = thirty_two(row + 32 + 32 * (t >> 1));
    for (int r = 2 * t; r < 2 * t + 2; r++, out += kTileElements) {
      const __m256i low = _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(2 * (r & 3))), _mm256_set1_epi8(3));
      const __m256i bit = _mm256_and_si256(_mm256_srl_epi16(mask, _mm_cvtsi32_si128(r)), _mm256_set1_epi8(1));
      const int first = 16 * (r & 1);
      const __m256i place = _mm256_set_m128i(_mm_set1_epi8(static_cast<char>(first + 8)), _mm_set1_epi8(static_cast<char>(first)));
      store_columns(out, look_up(table, _mm256_or_si256(_mm256_or_si256(low, _mm256_slli_epi16(bit, 2)), place)));
    }
  }
}

// --- more levels than a table holds -------------------------------------------------------------------------------------------
static inline __m512i scale_codes(__m256i codes, __m512 low_scale, __m512 high_scale) {
  const __m512 low = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_castsi256_si128(codes)));
  const __m512 high = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm256_extracti128_si256(codes, 1)));
  return round_pair(_mm512_mul_ps(low, low_scale), _mm512_mul_ps(high, high_scale));
}

static void panel_q6_k(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  alignas(64) float scales[16];
  _mm512_store_ps(scales, _mm512_mul_ps(_mm512_set1_ps(half_scale(row + 208)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(sixteen(row + 192)))));
  keep_in_memory(scales);
#pragma GCC unroll 8
  for (int s = 0; s < 8; s++, out += kTileElements) {
    const int half = s >> 2, run = s & 3;
    const __m256i bytes = thirty_two(row + 64 * half + 32 * (run & 1)), pairs = thirty_two(row + 128 + 32 * half);
    const __m256i low = _mm256_and_si256(run >> 1 ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
    const __m256i moved = run < 2 ? _mm256_slli_epi16(pairs, run < 2 ? 4 - 2 * run : 0) : _mm256_srli_epi16(pairs, run < 2 ? 0 : 2 * run - 4);
    const __m256i codes = _mm256_or_si256(low, _mm256_and_si256(moved, _mm256_set1_epi8(0x30)));
    store_columns(out, scale_codes(_mm256_sub_epi8(codes, _mm256_set1_epi8(32)), _mm512_set1_ps(scales[2 * s]), _mm512_set1_ps(scales[2 * s + 1])));
  }
}

static void panel_q8_0(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockQ8_0), out += kTileElements) {
    const __m512 d = _mm512_set1_ps(half_scale(row));
    store_columns(out, scale_codes(thirty_two(row + 2), d, d));
  }
}

// --- blocks of 32 with a table each --------------------------------------------------------------------------------------------
static void panel_q4_0(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  const __m512 levels = _mm512_sub_ps(first_levels(), _mm512_set1_ps(8));
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockQ4_0), out += kTileElements) {
    store_columns(out, look_up(round_half(_mm512_mul_ps(levels, _mm512_set1_ps(half_scale(row)))), nibbles_in_turn(row + 2)));
  }
}

static void panel_q4_1(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockQ4_1), out += kTileElements) {
    const __m512 values = _mm512_fmadd_ps(first_levels(), _mm512_set1_ps(half_scale(row)), _mm512_set1_ps(half_scale(row + 2)));
    store_columns(out, look_up(round_half(values), nibbles_in_turn(row + 4)));
  }
}

// Codes with their fifth bits from a word.
static inline __m256i with_fifth_bits(__m256i nibbles, uint32_t bits) {
  return _mm256_or_si256(nibbles, _mm256_maskz_mov_epi8(bits, _mm256_set1_epi8(16)));
}

static void panel_q5_0(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  const __m512 low = _mm512_sub_ps(first_levels(), _mm512_set1_ps(16)), high = first_levels();
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockQ5_0), out += kTileElements) {
    const __m512 d = _mm512_set1_ps(half_scale(row));
    const __m512i table = round_pair(_mm512_mul_ps(low, d), _mm512_mul_ps(high, d));
    store_columns(out, look_up(table, with_fifth_bits(nibbles_in_turn(row + 6), quant::load_u32(row + 2))));
  }
}

static void panel_q5_1(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockQ5_1), out += kTileElements) {
    const __m512 d = _mm512_set1_ps(half_scale(row)), m = _mm512_set1_ps(half_scale(row + 2));
    const __m512i table = round_pair(_mm512_fmadd_ps(first_levels(), d, m), _mm512_fmadd_ps(next_levels(), d, m));
    store_columns(out, look_up(table, with_fifth_bits(nibbles_in_turn(row + 8), quant::load_u32(row + 4))));
  }
}

static inline __m512 iq4_levels() { return _mm512_setr_ps(-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113); }

static void panel_iq4_nl(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockIq4Nl), out += kTileElements) {
    store_columns(out, look_up(round_half(_mm512_mul_ps(iq4_levels(), _mm512_set1_ps(half_scale(row)))), nibbles_in_turn(row + 2)));
  }
}

static void panel_iq4_xs(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  const quant::BlockIq4Xs& block = *reinterpret_cast<const quant::BlockIq4Xs*>(row);
  const float d = half_scale(row);
#pragma GCC unroll 8
  for (int s = 0; s < 8; s++, out += kTileElements) {
    const float scale = d * static_cast<float>(quant::iq4_xs_scale(block, s));
    store_columns(out, look_up(round_half(_mm512_mul_ps(iq4_levels(), _mm512_set1_ps(scale))), nibbles_in_turn(block.codes + 16 * s)));
  }
}

static inline __m512 mxfp4_levels() { return _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, 0, -0.5f, -1, -1.5f, -2, -3, -4, -6); }

static void panel_mxfp4(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockMxfp4), out += kTileElements) {
    store_columns(out, look_up(round_half(_mm512_mul_ps(mxfp4_levels(), _mm512_set1_ps(quant::e8m0_to_f32(row[0])))), nibbles_in_turn(row + 1)));
  }
}

// Blocks and scales apart, and nibbles in order: weight 2i in the low nibble of byte i.
static inline __m512i look_up_pairs(__m512i table, const uint8_t* codes) {
  const __m512i bytes = _mm512_cvtepu8_epi32(sixteen(codes));
  const __m512i nibbles = _mm512_and_si512(_mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12)), _mm512_set1_epi32(0x000f000f));
  return _mm512_permutexvar_epi16(nibbles, table);
}

static void panel_int4_g32(const uint8_t* row, int64_t columns, const uint8_t* scales, uint16_t* out) {
  const __m512 levels = _mm512_sub_ps(first_levels(), _mm512_set1_ps(8));
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockInt4G32), scales += 2, out += kTileElements) {
    store_columns(out, look_up_pairs(round_half(_mm512_mul_ps(levels, _mm512_set1_ps(quant::bf16_to_f32(quant::load_u16(scales))))), row));
  }
}

static void panel_mxfp4_g32(const uint8_t* row, int64_t columns, const uint8_t* scales, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, row += sizeof(quant::BlockMxfp4G32), scales++, out += kTileElements) {
    store_columns(out, look_up_pairs(round_half(_mm512_mul_ps(mxfp4_levels(), _mm512_set1_ps(quant::e8m0_to_f32(*scales)))), row));
  }
}

// --- floats ---------------------------------------------------------------------------------------------------------------------
static inline __mmask32 first_columns(int64_t left) { return left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1; }

template <WeightFormat format>
static void panel_floats(const uint8_t* row, int64_t columns, const uint8_t*, uint16_t* out) {
  for (int64_t i = 0; i < columns; i += 32, out += kTileElements) {
    if constexpr (format == WeightFormat::bf16) {
      store_columns(out, _mm512_maskz_loadu_epi16(first_columns(columns - i), row + 2 * i));
    } else {
      const auto lanes = [&](int64_t from) { return from >= columns ? __mmask16{0} : first_lanes(columns - from); };
      store_columns(out, round_pair(load_floats<format>(row, i, lanes(i)), load_floats<format>(row, i + 16, lanes(i + 16))));
    }
  }
}

// The values of e4m3 without their sign.
struct E4m3Levels {
  alignas(64) float values[128];
  constexpr E4m3Levels() : values() {
    for (int i = 0; i < 127; i++) {
      float value = static_cast<float>(i < 8 ? i : 8 + i % 8) / 512;
      for (int e = 1; e < i / 8; e++) value *= 2;
      values[i] = value;
    }
    values[127] = __builtin_nanf("");
  }
};
static constexpr E4m3Levels kE4m3Levels;

// A scale holds for 128 columns: their 128 magnitudes are rounded once, into four registers, and looked up in two halves.
static void panel_f8_e4m3(const uint8_t* row, int64_t columns, const uint8_t* scales, uint16_t* out) {
  __m512i table[4] = {};
  for (int64_t i = 0; i < columns; i += 32, out += kTileElements) {
    if (i % quant::kF8ScaleColumns == 0) {
      const __m512 scale = _mm512_set1_ps(f8_scale(scales, i));
#pragma GCC unroll 4
      for (int t = 0; t < 4; t++) {
        const float* levels = kE4m3Levels.values + 32 * t;
        table[t] = round_pair(_mm512_mul_ps(_mm512_load_ps(levels), scale), _mm512_mul_ps(_mm512_load_ps(levels + 16), scale));
      }
    }
    const __mmask32 present = first_columns(columns - i);
    const __m512i codes = twice_each(_mm256_maskz_loadu_epi8(present, row + i)), index = pair_index(codes);
    const __m512i low = _mm512_permutex2var_epi8(table[0], index, table[1]), high = _mm512_permutex2var_epi8(table[2], index, table[3]);
    const __m512i magnitude = _mm512_mask_mov_epi16(low, _mm512_test_epi16_mask(codes, _mm512_set1_epi16(0x4000)), high);
    // 0x6a: (a & b) ^ c, the sign.
    const __m512i weights = _mm512_ternarylogic_epi32(codes, _mm512_set1_epi16(static_cast<int16_t>(0x8000)), magnitude, 0x6a);
    store_columns(out, _mm512_maskz_mov_epi16(present, weights));
  }
}

// --- code books: integers in units of d, as the dot kernels unpack them; exact in f32 whatever the order of the products -----------
template <typename Book>
static void panel_book(const uint8_t* row, int64_t, const uint8_t*, uint16_t* out) {
  const auto head = Book::head(row);
  alignas(64) float scales[16];
  _mm512_store_ps(scales, _mm512_mul_ps(_mm512_set1_ps(head.d), _mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm512_castsi512_si256(head.scales)))));
  keep_in_memory(scales);
  for (int g = 0; g < kVectors; g++, out += 2 * kTileElements) {
    const __m512i codes = _mm512_sub_epi8(Book::codes(head, g), vec_bytes(Book::kOffset));
    const auto scale_of = [&](int sixteen) { return _mm512_set1_ps(scales[Book::kSub == 16 ? 4 * g + sixteen : 2 * g + sixteen / 2]); };
    store_columns(out, scale_codes(_mm512_castsi512_si256(codes), scale_of(0), scale_of(1)));
    store_columns(out + kTileElements, scale_codes(_mm512_extracti64x4_epi64(codes, 1), scale_of(2), scale_of(3)));
  }
}

// Every format has one; the panel of a format of more than 256 levels would be its row decoder and a rounding.
static inline PanelPiece panel_piece(WeightFormat format) {
  switch (format) {
    case WeightFormat::q4_k: return panel_q4_k;
    case WeightFormat::q5_k: return panel_q5_k;
    case WeightFormat::q6_k: return panel_q6_k;
    case WeightFormat::q2_k: return panel_q2_k;
    case WeightFormat::q3_k: return panel_q3_k;
    case WeightFormat::q8_0: return panel_q8_0;
    case WeightFormat::q4_0: return panel_q4_0;
    case WeightFormat::q4_1: return panel_q4_1;
    case WeightFormat::q5_0: return panel_q5_0;
    case WeightFormat::q5_1: return panel_q5_1;
    case WeightFormat::iq4_nl: return panel_iq4_nl;
    case WeightFormat::iq4_xs: return panel_iq4_xs;
    case WeightFormat::mxfp4: return panel_mxfp4;
    case WeightFormat::mxfp4_g32: return panel_mxfp4_g32;
    case WeightFormat::int4_g32: return panel_int4_g32;
    case WeightFormat::f32: return panel_floats<WeightFormat::f32>;
    case WeightFormat::f16: return panel_floats<WeightFormat::f16>;
    case WeightFormat::bf16: return panel_floats<WeightFormat::bf16>;
    case WeightFormat::f8_e4m3: return panel_f8_e4m3;
    case WeightFormat::iq2_xxs: return panel_book<DotIq2Xxs>;
    case WeightFormat::iq2_xs: return panel_book<DotIq2Xs>;
    case WeightFormat::iq2_s: return panel_book<DotIq2S>;
    case WeightFormat::iq3_xxs: return panel_book<DotIq3Xxs>;
    case WeightFormat::iq3_s: return panel_book<DotIq3S>;
    case WeightFormat::iq1_s: return panel_book<DotIq1S>;
    case WeightFormat::iq1_m: return panel_book<DotIq1M>;
  }
  return nullptr;
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
#endif
