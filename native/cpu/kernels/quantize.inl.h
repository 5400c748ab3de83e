// Activations as the weights see them: rounded once per step, then read by every row of the weight.
//
// q8_32 / q8_256 (docs/reference/ops.md): per block amax = max|x|, d = amax / 127, q = round(x · (1 / d)), half to even;
// d below 2^-126 counts as zero; a block with a non-finite value has d = NaN and q = 0. Every operation is rounded to f32 by
// itself, so that codes equal those of the TypeScript reference.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/kernel.h"
#include "quant/half.h"

#if TANDEM_ISA_LEVEL > 0
#include <immintrin.h>
#endif

namespace tandem::TANDEM_ISA_NAMESPACE {

// One row as a dot product reads it. f32, bf16: `values`. q8_32, q8_256: the others.
struct ActivationRow {
  const float* values;   // [K]
  const int8_t* codes;   // [K], zeros up to a multiple of 64
  const float* scales;   // [K / block], zeros up to a multiple of 8
  const float* sums;     // q8_32: d · Σq of each block, zeros up to a multiple of 8
  const int32_t* raise;  // q8_32: −128 · Σq of each block, what weight codes that are 128 too large add too much; zeros likewise
  const int16_t* bsums;  // q8_256: [K / 16] Σq of each 16 columns, then (avx512) [K / 256] the largest Σ|q| of 16 columns of each block
  const int8_t* folded;  // q8_256: [K], of each block the codes of columns 64j + 16i + (0 … 15), by i, then by j
};

constexpr int64_t round_up(int64_t n, int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

static inline int64_t activation_block(Activation format) {
  return format == Activation::q8_256 ? 256 : format == Activation::q8_32 ? 32 : 1;
}

// amax as the bits of |x|: as integers they order like the numbers, and everything non-finite is above the rest.
static inline uint32_t largest_magnitude(const float* x, int64_t count) {
#if TANDEM_ISA_LEVEL >= 2
  __m512i best = _mm512_setzero_si512();
  for (int64_t i = 0; i < count; i += 16) {
    best = _mm512_max_epi32(best, _mm512_and_si512(_mm512_loadu_si512(x + i), _mm512_set1_epi32(0x7fffffff)));
  }
  return static_cast<uint32_t>(_mm512_reduce_max_epi32(best));
#elif TANDEM_ISA_LEVEL == 1
  __m256i best = _mm256_setzero_si256();
  for (int64_t i = 0; i < count; i += 8) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(x + i));
    best = _mm256_max_epi32(best, _mm256_and_si256(bits, _mm256_set1_epi32(0x7fffffff)));
  }
  __m128i four = _mm_max_epi32(_mm256_castsi256_si128(best), _mm256_extracti128_si256(best, 1));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(four));
#else
  uint32_t best = 0;
  for (int64_t i = 0; i < count; i++) {
    const uint32_t bits = quant::float_bits(x[i]) & 0x7fffffffu;
    if (bits > best) best = bits;
  }
  return best;
#endif
}

// Codes of 16 values and their sum. |x · inverse| ≤ 127.00002, so that the conversion itself is the clamp.
static inline int32_t quantize16(const float* x, float inverse, int8_t* codes) {
#if TANDEM_ISA_LEVEL >= 2
  const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), _mm512_set1_ps(inverse)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), _mm512_cvtsepi32_epi8(whole));
  return _mm512_reduce_add_epi32(whole);
#elif TANDEM_ISA_LEVEL == 1
  const __m256 scale = _mm256_set1_ps(inverse);
  const __m256i a = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x), scale));
  const __m256i b = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(x + 8), scale));
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(codes), bytes);
  const __m256i pairs = _mm256_add_epi32(a, b);
  __m128i four = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  four = _mm_add_epi32(four, _mm_shuffle_epi32(four, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
#else
  int32_t sum = 0;
  for (int i = 0; i < 16; i++) {
    // Adding and taking away 1.5·2^23 leaves no room for a fraction: rounds half to even.
    const float shifted = x[i] * inverse + 12582912.0f;
    const int32_t code = static_cast<int32_t>(shifted - 12582912.0f);
    codes[i] = static_cast<int8_t>(code);
    sum += code;
  }
  return sum;
#endif
}

// One block of 32 or 256 columns. `sums` (32) gets d · Σq, `raise` (32) −128 · Σq, `bsums` (256) sixteen sums of codes,
// `folded` (256) the codes once more.
static inline void quantize_block(const float* x, int64_t block, int8_t* codes, float* scale, float* sums, int32_t* raise, int16_t* bsums,
                                  int8_t* folded) {
  const uint32_t magnitude = largest_magnitude(x, block);
  const bool finite = magnitude < 0x7f800000u;
  float d = finite ? quant::bits_float(magnitude) / 127.0f : quant::bits_float(0x7fc00000u);
  if (d < 0x1p-126f) d = 0.0f;
  *scale = d;
  int32_t total = 0;
  if (finite && d > 0.0f) {
    const float inverse = 1.0f / d;
    for (int64_t i = 0; i < block; i += 16) {
      const int32_t sum = quantize16(x + i, inverse, codes + i);
      if (bsums) bsums[i / 16] = static_cast<int16_t>(sum);
      total += sum;
    }
  } else {
    std::memset(codes, 0, static_cast<size_t>(block));
    if (bsums) std::memset(bsums, 0, static_cast<size_t>(block / 16) * sizeof(int16_t));
  }
  if (folded) {
    for (int i = 0; i < 16; i++) std::memcpy(folded + 64 * (i % 4) + 16 * (i / 4), codes + 16 * i, 16);
  }
  if (sums) *sums = d * static_cast<float>(total);
  if (raise) *raise = -128 * total;
}

#if TANDEM_ISA_LEVEL >= 2
// The largest Σ|q| of 16 columns of a block of 256.
static inline int16_t reach_of(const int8_t* codes) {
  __m512i most = _mm512_setzero_si512();
  for (int i = 0; i < 256; i += 64) {
    const __m512i eights = _mm512_sad_epu8(_mm512_abs_epi8(_mm512_loadu_si512(codes + i)), _mm512_setzero_si512());
    most = _mm512_max_epi32(most, _mm512_add_epi32(eights, _mm512_shuffle_epi32(eights, static_cast<_MM_PERM_ENUM>(0x4e))));
  }
  return static_cast<int16_t>(_mm512_reduce_max_epi32(most));
}
#endif

// Rows of rounded activations in scratch memory.
struct Activations {
  Activation format = Activation::f32;
  int64_t rows = 0, columns = 0;
  int64_t stride = 0;        // of values, codes: elements between rows
  int64_t scale_stride = 0;  // of scales, sums
  int64_t bsum_stride = 0;
  float* values = nullptr;   // f32 may borrow the input's own memory
  int8_t* codes = nullptr;
  float* scales = nullptr;
  float* sums = nullptr;
  int32_t* raise = nullptr;
  int16_t* bsums = nullptr;
  int8_t* folded = nullptr;

  bool quantized() const { return format == Activation::q8_32 || format == Activation::q8_256; }

  ActivationRow row(int64_t r) const {
    ActivationRow row{};
    if (!quantized()) {
      row.values = values + r * stride;
      return row;
    }
    row.codes = codes + r * stride;
    row.scales = scales + r * scale_stride;
    if (sums) row.sums = sums + r * scale_stride;
    if (raise) row.raise = raise + r * scale_stride;
    if (bsums) row.bsums = bsums + r * bsum_stride;
    if (folded) row.folded = folded + r * stride;
    return row;
  }

  // Memory for `row_count` rows; f32 needs none when the rows lie in `borrowed`. Sets the zeros behind each row.
  Status reserve(Scratch& scratch, Activation kind, int64_t row_count, int64_t column_count, const MatrixView* borrowed) {
    format = kind;
    rows = row_count;
    columns = column_count;
    if (kind == Activation::f32 && borrowed) {
      values = borrowed->data;
      stride = borrowed->stride;
      return {};
    }
    const auto refused = [] {
      return Status(Code::out_of_memory, "[native] activations of a pass need scratch memory; the machine gave none; "
                                         "use a smaller batch or fewer pages");
    };
    stride = round_up(column_count, 64);
    const size_t count = static_cast<size_t>(row_count);
    if (!quantized()) {
      values = scratch.take_array<float>(count * static_cast<size_t>(stride));
      return values ? Status() : refused();
    }
    const int64_t blocks = column_count / activation_block(kind);
    scale_stride = round_up(blocks, 8);
    codes = scratch.take_array<int8_t>(count * static_cast<size_t>(stride));
    scales = scratch.take_array<float>(count * static_cast<size_t>(scale_stride));
    if (!codes || !scales) return refused();
    if (kind == Activation::q8_32) {
      sums = scratch.take_array<float>(count * static_cast<size_t>(scale_stride));
      raise = scratch.take_array<int32_t>(count * static_cast<size_t>(scale_stride));
      if (!sums || !raise) return refused();
    } else {
      bsum_stride = round_up(blocks * 17, 16);
      bsums = scratch.take_array<int16_t>(count * static_cast<size_t>(bsum_stride));
      folded = scratch.take_array<int8_t>(count * static_cast<size_t>(stride));
      if (!bsums || !folded) return refused();
    }
    for (int64_t r = 0; r < row_count; r++) {
      std::memset(codes + r * stride + columns, 0, static_cast<size_t>(stride - columns));
      for (int64_t b = blocks; b < scale_stride; b++) {
        scales[r * scale_stride + b] = 0.0f;
        if (sums) sums[r * scale_stride + b] = 0.0f;
        if (raise) raise[r * scale_stride + b] = 0;
      }
    }
    return {};
  }

  // Rounds columns [begin, begin + count) of row r from x: whole blocks. Different spans may be written at once.
  void round_span(int64_t r, int64_t begin, int64_t count, const float* x) {
    if (format == Activation::f32) {
      float* to = values + r * stride + begin;
      if (to != x) std::memmove(to, x, static_cast<size_t>(count) * sizeof(float));
    } else if (format == Activation::bf16) {
      float* to = values + r * stride + begin;
      for (int64_t i = 0; i < count; i++) to[i] = quant::bf16_to_f32(quant::f32_to_bf16(x[i]));
    } else {
      const int64_t block = activation_block(format);
      for (int64_t i = 0; i < count; i += block) {
        const int64_t b = (begin + i) / block;
        quantize_block(x + i, block, codes + r * stride + begin + i, scales + r * scale_stride + b,
                       sums ? sums + r * scale_stride + b : nullptr,
                       raise ? raise + r * scale_stride + b : nullptr, bsums ? bsums + r * bsum_stride + b * 16 : nullptr, folded ? folded + r * stride + begin + i : nullptr);
#if TANDEM_ISA_LEVEL >= 2
        if (bsums) bsums[r * bsum_stride + columns / 16 + b] = reach_of(codes + r * stride + begin + i);
#endif
      }
    }
  }
  // True where the row was rounded in place of being borrowed.
  bool owns(const MatrixView& x) const { return quantized() || values != x.data; }
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
