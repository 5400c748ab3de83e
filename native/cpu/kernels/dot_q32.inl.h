// Weights in blocks of 32 (q8_0 q4_0 q4_1 q5_0 q5_1 iq4_nl mxfp4) with q8_32 activations, over the blocks as they lie in the file.
//
// Per block: an exact int32 sum of code products, then one fused multiply-add with d_w · d_x into f32 lanes. Codes are taken
// unsigned; what they are too large by (`kOffset`) is taken off as integers too, so that nothing cancels in f32. Formats
// with a minimum add m · (d_x · Σq_x) in accumulators of their own.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Codes of iq4_nl plus 128, as `kOffset` expects.
alignas(16) constexpr uint8_t kIq4Unsigned[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// Twice the levels of mxfp4, plus 16.
alignas(16) constexpr uint8_t kMxfp4Raised[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

#if TANDEM_ISA_LEVEL >= 2

// A vector holds two blocks: 0–31 of `a`, then of `b`.
constexpr int kBlocksOfVector = 2;
using Codes = __m512i;
using Lanes = __m512;

static inline Codes nibbles(const uint8_t* a, const uint8_t* b) {
  __m512i v = _mm512_broadcast_i32x4(load128(a));
  v = _mm512_mask_broadcast_i32x4(v, 0xff00, load128(b));
  v = _mm512_srlv_epi64(v, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0));
  return _mm512_and_si512(v, _mm512_set1_epi8(15));
}
static inline Codes fifth_bits(Codes codes, const uint8_t* a, const uint8_t* b) {
  const uint64_t bits = load_as<uint32_t>(a) | static_cast<uint64_t>(load_as<uint32_t>(b)) << 32;
  return _mm512_mask_add_epi8(codes, bits, codes, _mm512_set1_epi8(16));
}
static inline Codes load_codes(const int8_t* x) { return _mm512_loadu_si512(x); }
static inline Codes look_up(const uint8_t* table, Codes codes) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(table)), codes);
}
static inline Codes join_bytes(const uint8_t* a, const uint8_t* b) {
  const __m512i v = _mm512_inserti64x4(_mm512_castsi256_si512(load256(a)), load256(b), 1);
  return _mm512_xor_si512(v, _mm512_set1_epi8(static_cast<char>(0x80)));
}
// −offset · Σx of each four codes: where the sums of products start from.
template <int offset>
static inline Codes start_of(Codes x) {
  if constexpr (offset == 0) return _mm512_setzero_si512();
  const __m512i sum = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(static_cast<char>(offset)), x);
  return _mm512_sub_epi32(_mm512_setzero_si512(), sum);
}
template <int offset>
static inline Lanes products(Codes w, Codes x, Codes start) {
  return _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, w, x));
}
// Scales of blocks p and p + 1 in the lanes of their products.
static inline Lanes spread(__m256 scales, int p) {
  const __m512i index = _mm512_add_epi32(_mm512_set1_epi32(p), _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0));
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(scales));
}
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
static inline Lanes zero_lanes() { return _mm512_setzero_ps(); }

#else

constexpr int kBlocksOfVector = 1;
using Codes = __m256i;
using Lanes = __m256;

static inline Codes nibbles(const uint8_t* a, const uint8_t*) {
  const __m128i raw = load128(a);
  return _mm256_and_si256(_mm256_inserti128_si256(_mm256_castsi128_si256(raw), _mm_srli_epi16(raw, 4), 1), _mm256_set1_epi8(15));
}
static inline Codes fifth_bits(Codes codes, const uint8_t* a, const uint8_t*) {
  // Byte i of the vector gets the byte that holds bit i, then all but that bit is masked.
  const __m256i bytes = _mm256_shuffle_epi8(_mm256_set1_epi32(load_as<int32_t>(a)),
                                            _mm256_set_epi64x(0x0303030303030303, 0x0202020202020202, 0x0101010101010101, 0));
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  return _mm256_or_si256(codes, _mm256_and_si256(set, _mm256_set1_epi8(16)));
}
static inline Codes load_codes(const int8_t* x) { return load256(x); }
static inline Codes look_up(const uint8_t* table, Codes codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}
static inline Codes join_bytes(const uint8_t* a, const uint8_t*) {
  return _mm256_xor_si256(load256(a), _mm256_set1_epi8(static_cast<char>(0x80)));
}
// Pairs of products must fit 16 bits: five-bit codes do (2·31·127), and the offset is taken off there. Eight-bit codes
// do not; they go back to signed ones, whose sign moves to x (2·128·127 < 2^15).
template <int offset>
static inline Codes start_of(Codes x) {
  if constexpr (offset == 0 || offset == 128) return _mm256_setzero_si256();
  return _mm256_maddubs_epi16(_mm256_set1_epi8(static_cast<char>(offset)), x);
}
template <int offset>
static inline Lanes products(Codes w, Codes x, Codes start) {
  __m256i pairs;
  if constexpr (offset == 128) {
    const __m256i code = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code), _mm256_sign_epi8(x, code));
  } else {
    pairs = _mm256_maddubs_epi16(w, x);
    if constexpr (offset != 0) pairs = _mm256_sub_epi16(pairs, start);
  }
  return _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
static inline Lanes spread(__m256 scales, int p) { return _mm256_permutevar8x32_ps(scales, _mm256_set1_epi32(p)); }
static inline Lanes multiply_add(Lanes a, Lanes b, Lanes c) { return _mm256_fmadd_ps(a, b, c); }
static inline Lanes zero_lanes() { return _mm256_setzero_ps(); }

#endif

// A block format: bytes, where its d (and m) lie, how far unsigned codes are too large, and its unsigned codes.
struct DotQ8_0 {
  static constexpr int kBytes = 34, kMin = 0, kOffset = 128;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return join_bytes(a + 2, b + 2); }
};
struct DotQ4_0 {
  static constexpr int kBytes = 18, kMin = 0, kOffset = 8;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return nibbles(a + 2, b + 2); }
};
struct DotQ4_1 {
  static constexpr int kBytes = 20, kMin = 2, kOffset = 0;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return nibbles(a + 4, b + 4); }
};
struct DotQ5_0 {
  static constexpr int kBytes = 22, kMin = 0, kOffset = 16;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return fifth_bits(nibbles(a + 6, b + 6), a + 2, b + 2); }
};
struct DotQ5_1 {
  static constexpr int kBytes = 24, kMin = 2, kOffset = 0;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return fifth_bits(nibbles(a + 8, b + 8), a + 4, b + 4); }
};
struct DotIq4Nl {
  static constexpr int kBytes = 18, kMin = 0, kOffset = 128;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return look_up(kIq4Unsigned, nibbles(a + 2, b + 2)); }
};

struct DotMxfp4 {
  static constexpr int kBytes = 17, kMin = 0, kOffset = 16;
  static Codes codes(const uint8_t* a, const uint8_t* b) { return look_up(kMxfp4Raised, nibbles(a + 1, b + 1)); }
};

// d of eight blocks, or of the first `count` (what stands behind meets scales of zero).
template <typename Format>
static inline __m256 block_scales(const uint8_t* row, int count) {
  return load_halves(row, Format::kBytes, count);
}
// Half of 2^(e − 127), for the doubled levels; 255 is NaN.
template <>
inline __m256 block_scales<DotMxfp4>(const uint8_t* row, int count) {
  uint64_t bytes = 0;
  for (int i = 0; i < count; i++) bytes |= static_cast<uint64_t>(row[i * DotMxfp4::kBytes]) << (8 * i);
  const __m256i e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)));
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);  // of e 0 and 1
  const __m256i bits = _mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1)));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255))));
}

template <typename Format, int R, int M>
struct DotQ32 {
  // Eight blocks, or the last `count` of a row.
  template <bool whole>
  static inline __attribute__((always_inline)) void group(const uint8_t* const* w, int64_t ahead, const ActivationRow* x, int64_t first, int count,
                                                          Lanes (&sums)[R][M], __m256 (&mins)[R][M]) {
    __m256 scales[R][M];
    if constexpr (whole) count = 8;
    for (int r = 0; r < R; r++) {
      const uint8_t* row = w[r] + first * Format::kBytes;
      if constexpr (whole) fetch<8 * Format::kBytes>(row + ahead);
      const __m256 d = block_scales<Format>(row, count);
      for (int m = 0; m < M; m++) scales[r][m] = _mm256_mul_ps(d, _mm256_loadu_ps(x[m].scales + first));
      if constexpr (Format::kMin != 0) {
        const __m256 min = load_halves(row + Format::kMin, Format::kBytes, count);
        for (int m = 0; m < M; m++) mins[r][m] = _mm256_fmadd_ps(min, _mm256_loadu_ps(x[m].sums + first), mins[r][m]);
      }
    }
    const auto pair = [&](int p) __attribute__((always_inline)) {
      // Where the row ends with half a vector its block stands in for the missing one, whose scale is zero.
      const int second = whole || p + 1 < count ? p + kBlocksOfVector - 1 : p;
      Codes codes[R];
      for (int r = 0; r < R; r++) {
        const uint8_t* row = w[r] + first * Format::kBytes;
        codes[r] = Format::codes(row + p * Format::kBytes, row + second * Format::kBytes);
      }
      for (int m = 0; m < M; m++) {
        const Codes values = load_codes(x[m].codes + (first + p) * 32);
        const Codes start = start_of<Format::kOffset>(values);
        for (int r = 0; r < R; r++) {
          sums[r][m] = multiply_add(products<Format::kOffset>(codes[r], values, start), spread(scales[r][m], p), sums[r][m]);
        }
      }
    };
    if constexpr (whole) {
#pragma GCC unroll 8
      for (int p = 0; p < 8; p += kBlocksOfVector) pair(p);
    } else {
      for (int p = 0; p < count; p += kBlocksOfVector) pair(p);
    }
  }

  static void tile(const WeightRow* rows, const ActivationRow* x, int64_t k, float* out) {
    const uint8_t* w[R];
    for (int r = 0; r < R; r++) w[r] = rows[r].data;
    Lanes sums[R][M];
    __m256 mins[R][M];
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) {
        sums[r][m] = zero_lanes();
        mins[r][m] = _mm256_setzero_ps();
      }
    }
    const int64_t blocks = k / 32;
    int64_t first = 0;
    for (; first + 8 <= blocks; first += 8) group<true>(w, rows[0].ahead, x, first, 8, sums, mins);
    if (first < blocks) group<false>(w, rows[0].ahead, x, first, static_cast<int>(blocks - first), sums, mins);
    for (int r = 0; r < R; r++) {
      for (int m = 0; m < M; m++) {
        out[r * M + m] = sum_lanes(sums[r][m]);
        if constexpr (Format::kMin != 0) out[r * M + m] += sum_lanes(mins[r][m]);
      }
    }
  }
};

template <typename Format>
#if TANDEM_ISA_LEVEL >= 2
static constexpr DotKernel kQ32 = make_kernel<DotQ32, Format, Format::kBytes >= 32 ? 2 : 4, 4, 4, 4>();
#else
static constexpr DotKernel kQ32 = make_kernel<DotQ32, Format, Format::kBytes >= 32 ? 2 : 4, 2, 2, 2>();
#endif

#endif

const DotKernel* dot_q32(WeightFormat format) {
  switch (format) {
#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3
    case WeightFormat::q8_0: return &kQ32<DotQ8_0>;
    case WeightFormat::q4_0: return &kQ32<DotQ4_0>;
    case WeightFormat::q4_1: return &kQ32<DotQ4_1>;
    case WeightFormat::q5_0: return &kQ32<DotQ5_0>;
    case WeightFormat::q5_1: return &kQ32<DotQ5_1>;
    case WeightFormat::iq4_nl: return &kQ32<DotIq4Nl>;
    case WeightFormat::mxfp4: return &kQ32<DotMxfp4>;
#endif
    default: return nullptr;
  }
}

// Reached through `find_dot`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_dot_q32() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
