// Rows of any weight format as f32, exactly the bits of native/quant/ (only NaN payloads may differ).
//
// The formats' scalar decoders are compiled here with this ISA's instructions. Formats in which files keep embeddings and
// the latent matrices of `mla`, where decoding is most of the work, have vector code of their own.
#pragma once

#include <cstdint>
#include <string_view>

#include "core/kernel.h"
#include "quant/formats.h"

#if TANDEM_ISA_LEVEL > 0
#include <immintrin.h>
#endif

namespace tandem::TANDEM_ISA_NAMESPACE {

// A format by its place in quant::kFormats, so that hot code compares integers.
enum class WeightFormat : int {
  f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, iq4_nl, q2_k, q3_k, q4_k, q5_k, q6_k, iq4_xs, f8_e4m3,
  iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s, iq1_s, iq1_m, mxfp4, mxfp4_g32, int4_g32
};
constexpr const quant::FormatInfo& format_info(WeightFormat format) { return quant::kFormats[static_cast<int>(format)]; }
static_assert(std::string_view(format_info(WeightFormat::q8_0).name) == "q8_0" &&
              std::string_view(format_info(WeightFormat::q2_k).name) == "q2_k" &&
              std::string_view(format_info(WeightFormat::f8_e4m3).name) == "f8_e4m3" &&
              std::string_view(format_info(WeightFormat::mxfp4).name) == "mxfp4" &&
              std::string_view(format_info(WeightFormat::int4_g32).name) == "int4_g32");

static inline WeightFormat weight_format(const quant::FormatInfo& format) {
  int i = 0;
  while (std::string_view(quant::kFormats[i].name) != format.name) i++;  // every FormatInfo is a copy of one of these
  return static_cast<WeightFormat>(i);
}

// The scale of column i of a row of f8_e4m3.
static inline float f8_scale(const uint8_t* scales, int64_t i) {
  return quant::bits_float(quant::load_u32(scales + 4 * (i / quant::kF8ScaleColumns)));
}

#if TANDEM_ISA_LEVEL >= 2

static inline __mmask16 first_lanes(int64_t count) {
  return count >= 16 ? __mmask16(0xffff) : static_cast<__mmask16>((1u << count) - 1);
}

// Sixteen weights of a row of plain floats from column i on; lanes outside `lanes` are zero and not read.
template <WeightFormat format>
static inline __m512 load_floats(const uint8_t* row, int64_t i, __mmask16 lanes) {
  if constexpr (format == WeightFormat::f32) {
    return _mm512_maskz_loadu_ps(lanes, row + 4 * i);
  } else if constexpr (format == WeightFormat::f16) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(lanes, row + 2 * i));
  } else if constexpr (format == WeightFormat::bf16) {
    const __m256i raw = _mm256_maskz_loadu_epi16(lanes, row + 2 * i);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(raw), 16));
  } else {
    // e4m3 as the half 2^-8 times as large: sign moves by 8, exponent and mantissa by 7; 0x7f and 0xff are NaN.
    const __m256i wide = _mm256_cvtepu8_epi16(_mm_maskz_loadu_epi8(lanes, row + i));
    const __m256i sign = _mm256_and_si256(_mm256_slli_epi16(wide, 8), _mm256_set1_epi16(static_cast<int16_t>(0x8000)));
    const __m256i magnitude = _mm256_and_si256(_mm256_slli_epi16(wide, 7), _mm256_set1_epi16(0x3f80));
    const __mmask16 nan = _mm256_cmpeq_epi16_mask(magnitude, _mm256_set1_epi16(0x3f80));
    const __m256i half = _mm256_mask_mov_epi16(_mm256_or_si256(sign, magnitude), nan, _mm256_set1_epi16(0x7e00));
    return _mm512_cvtph_ps(half);
  }
}

template <WeightFormat format>
static inline void decode_floats(const uint8_t* row, float* out, int64_t k, const uint8_t* scales) {
  for (int64_t i = 0; i < k; i += 16) {
    const __mmask16 lanes = first_lanes(k - i);
    __m512 w = load_floats<format>(row, i, lanes);
    // First the value itself (exact), then the one rounding of the product with its scale.
    if constexpr (format == WeightFormat::f8_e4m3) {
      w = _mm512_mul_ps(_mm512_mul_ps(w, _mm512_set1_ps(256.0f)), _mm512_set1_ps(f8_scale(scales, i)));
    }
    _mm512_mask_storeu_ps(out + i, lanes, w);
  }
}

// Sixteen codes times d, minus min.
static inline void store_scaled(float* out, __m128i codes, float d) {
  _mm512_storeu_ps(out, _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))));
}
static inline void store_lowered(float* out, __m128i codes, float d, float min) {
  const __m512 product = _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)));
  _mm512_storeu_ps(out, _mm512_sub_ps(product, _mm512_set1_ps(min)));
}

#elif TANDEM_ISA_LEVEL == 1

// Eight weights of a row of plain floats from column i on.
template <WeightFormat format>
static inline __m256 load_floats(const uint8_t* row, int64_t i) {
  if constexpr (format == WeightFormat::f32) {
    return _mm256_loadu_ps(reinterpret_cast<const float*>(row + 4 * i));
  } else if constexpr (format == WeightFormat::f16) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * i)));
  } else if constexpr (format == WeightFormat::bf16) {
    const __m128i raw = _mm_loadu_si128(reinterpret_cast<const __m128i*>(row + 2 * i));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(raw), 16));
  } else {
    // e4m3 as the half 2^-8 times as large: sign moves by 8, exponent and mantissa by 7; 0x7f and 0xff are NaN.
    const __m128i wide = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(row + i)));
    const __m128i sign = _mm_and_si128(_mm_slli_epi16(wide, 8), _mm_set1_epi16(static_cast<int16_t>(0x8000)));
    const __m128i top = _mm_set1_epi16(0x3f80);
    const __m128i magnitude = _mm_and_si128(_mm_slli_epi16(wide, 7), top);
    const __m128i nan = _mm_and_si128(_mm_cmpeq_epi16(magnitude, top), _mm_set1_epi16(0x7e00));
    return _mm256_cvtph_ps(_mm_or_si128(_mm_or_si128(sign, magnitude), nan));
  }
}

template <WeightFormat format>
static inline void decode_floats(const uint8_t* row, float* out, int64_t k, const uint8_t* scales) {
  constexpr int bytes = format == WeightFormat::f32 ? 4 : format == WeightFormat::f8_e4m3 ? 1 : 2;
  for (int64_t i = 0; i < k; i += 8) {
    alignas(32) uint8_t padded[32] = {};
    const bool whole = k - i >= 8;
    if (!whole) memcpy(padded, row + bytes * i, static_cast<size_t>(bytes * (k - i)));
    __m256 w = whole ? load_floats<format>(row, i) : load_floats<format>(padded, 0);
    // First the value itself (exact), then the one rounding of the product with its scale.
    if constexpr (format == WeightFormat::f8_e4m3) {
      w = _mm256_mul_ps(_mm256_mul_ps(w, _mm256_set1_ps(256.0f)), _mm256_set1_ps(f8_scale(scales, i)));
    }
    if (whole) {
      _mm256_storeu_ps(out + i, w);
    } else {
      alignas(32) float tail[8];
      _mm256_store_ps(tail, w);
      memcpy(out + i, tail, static_cast<size_t>(k - i) * sizeof(float));
    }
  }
}

// Sixteen codes times d, minus min.
static inline void store_scaled(float* out, __m128i codes, float d) {
  for (int i = 0; i < 16; i += 8, codes = _mm_srli_si128(codes, 8)) {
    _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes))));
  }
}
static inline void store_lowered(float* out, __m128i codes, float d, float min) {
  for (int i = 0; i < 16; i += 8, codes = _mm_srli_si128(codes, 8)) {
    const __m256 product = _mm256_mul_ps(_mm256_set1_ps(d), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)));
    _mm256_storeu_ps(out + i, _mm256_sub_ps(product, _mm256_set1_ps(min)));
  }
}

#endif

#if TANDEM_ISA_LEVEL > 0

static inline float half_scale(const uint8_t* p) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(quant::load_u16(p)))); }
static inline __m128i sixteen(const uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
// Nibbles `half` (0: low, 1: high) of sixteen bytes.
static inline __m128i nibbles_of(__m128i bytes, int half) {
  return _mm_and_si128(_mm_srl_epi16(bytes, _mm_cvtsi32_si128(4 * half)), _mm_set1_epi8(15));
}

static inline void decode_q8_0(const uint8_t* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, row += sizeof(quant::BlockQ8_0), out += 32) {
    const float d = half_scale(row);
    for (int i = 0; i < 32; i += 16) store_scaled(out + i, sixteen(row + 2 + i), d);
  }
}

static inline void decode_q4_0(const uint8_t* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 32; b++, row += sizeof(quant::BlockQ4_0), out += 32) {
    const __m128i bytes = sixteen(row + 2);
    for (int h = 0; h < 2; h++) store_scaled(out + 16 * h, _mm_sub_epi8(nibbles_of(bytes, h), _mm_set1_epi8(8)), half_scale(row));
  }
}

static inline void decode_q5_0(const uint8_t* row, float* out, int64_t k) {
  // Byte i of a vector: which byte holds fifth bit i, and which bit of it that is.
  const __m128i holder = _mm_set_epi64x(0x0101010101010101, 0), bit = _mm_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  for (int64_t b = 0; b < k / 32; b++, row += sizeof(quant::BlockQ5_0), out += 32) {
    const __m128i bytes = sixteen(row + 6);
    for (int h = 0; h < 2; h++) {
      const __m128i high = _mm_shuffle_epi8(_mm_cvtsi32_si128(quant::load_u16(row + 2 + 2 * h)), holder);
      // Without its fifth bit a code is 16 too small.
      const __m128i lowered = _mm_andnot_si128(_mm_cmpeq_epi8(_mm_and_si128(high, bit), bit), _mm_set1_epi8(16));
      store_scaled(out + 16 * h, _mm_sub_epi8(nibbles_of(bytes, h), lowered), half_scale(row));
    }
  }
}

// q4_k and q5_k: the second has 32 bytes of fifth bits before the nibbles.
template <typename Block>
static inline void decode_k_minima(const uint8_t* row, float* out, int64_t k) {
  constexpr bool five = sizeof(Block) == sizeof(quant::BlockQ5K);
  for (int64_t b = 0; b < k / 256; b++, row += sizeof(Block)) {
    const float d = half_scale(row), dmin = half_scale(row + 2);
#pragma GCC unroll 8
    for (int s = 0; s < 8; s++, out += 32) {
      const float scale = d * static_cast<float>(quant::k_scale(row + 4, s)), min = dmin * static_cast<float>(quant::k_min(row + 4, s));
      for (int i = 0; i < 32; i += 16) {
        __m128i codes = nibbles_of(sixteen(row + (five ? 48 : 16) + 32 * (s >> 1) + i), s & 1);
        if constexpr (five) {
          const __m128i bit = _mm_set1_epi8(static_cast<char>(1 << s));
          const __m128i set = _mm_cmpeq_epi8(_mm_and_si128(sixteen(row + 16 + i), bit), bit);
          codes = _mm_or_si128(codes, _mm_and_si128(set, _mm_set1_epi8(16)));
        }
        store_lowered(out + i, codes, scale, min);
      }
    }
  }
}

static inline void decode_q6_k(const uint8_t* row, float* out, int64_t k) {
  for (int64_t b = 0; b < k / 256; b++, row += sizeof(quant::BlockQ6K)) {
    const float d = half_scale(row + 208);
#pragma GCC unroll 16
    for (int s = 0; s < 16; s++, out += 16) {
      const int half = s >> 3, run = s >> 1 & 3, first = 16 * (s & 1);
      const __m128i low = nibbles_of(sixteen(row + 64 * half + 32 * (run & 1) + first), run >> 1);
      const __m128i pairs = _mm_srl_epi16(sixteen(row + 128 + 32 * half + first), _mm_cvtsi32_si128(2 * run));
      const __m128i high = _mm_slli_epi16(_mm_and_si128(pairs, _mm_set1_epi8(3)), 4);
      const float scale = d * static_cast<float>(static_cast<int8_t>(row[192 + s]));
      store_scaled(out, _mm_sub_epi8(_mm_or_si128(low, high), _mm_set1_epi8(32)), scale);
    }
  }
}

#endif

// Decodes k weights (a multiple of the format's block). `scales`: those of this part of the row, where the format has some.
static inline void decode_row(WeightFormat format, const uint8_t* row, float* out, int64_t k, const uint8_t* scales) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0
    case WeightFormat::f32: return decode_floats<WeightFormat::f32>(row, out, k, scales);
    case WeightFormat::f16: return decode_floats<WeightFormat::f16>(row, out, k, scales);
    case WeightFormat::bf16: return decode_floats<WeightFormat::bf16>(row, out, k, scales);
    case WeightFormat::f8_e4m3: return decode_floats<WeightFormat::f8_e4m3>(row, out, k, scales);
    case WeightFormat::q8_0: return decode_q8_0(row, out, k);
    case WeightFormat::q4_0: return decode_q4_0(row, out, k);
    case WeightFormat::q5_0: return decode_q5_0(row, out, k);
    case WeightFormat::q4_k: return decode_k_minima<quant::BlockQ4K>(row, out, k);
    case WeightFormat::q5_k: return decode_k_minima<quant::BlockQ5K>(row, out, k);
    case WeightFormat::q6_k: return decode_q6_k(row, out, k);
#endif
    default: return format_info(format).decode_row(row, out, k, scales);
  }
}

// The same by the format's description.
static inline void decode_row(const quant::FormatInfo& format, const uint8_t* row, float* out, int64_t k,
                              const uint8_t* scales) {
  decode_row(weight_format(format), row, out, k, scales);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
