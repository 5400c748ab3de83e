// Formats in blocks of 32 as their kernels see them: codes of a row's consecutive blocks, and their scales. Shared by
// dot_q32 (one row of weights a vector) and panel_q32 (one row a lane).
//
// Codes are taken unsigned where that saves work; by how much they are too large (`kRaise`) is taken off as integers.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Codes of iq4_nl plus 128.
alignas(16) constexpr uint8_t kIq4Unsigned[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};

// The same as they are.
alignas(16) constexpr int8_t kIq4Signed[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Twice the levels of mxfp4, plus 16.
alignas(16) constexpr uint8_t kMxfp4Raised[16] = {16, 17, 18, 19, 20, 22, 24, 28, 16, 15, 14, 13, 12, 10, 8, 4};

// A vector of codes is `kBlockLanes` lanes of 16 bytes, each of another block: at(b) is where lane b's begins. `load_lanes`
// takes 16 bytes of each block, from its byte `offset` on.
#if TANDEM_ISA_LEVEL >= 2

constexpr int kBlockLanes = 4;
using Codes = __m512i;
template <typename At>
static inline __attribute__((always_inline)) Codes load_lanes(At&& at, int offset) {
  // Not by masked broadcasts: each of those is a 512-bit load.
  const __m256i low = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(at(0) + offset)), load128(at(1) + offset), 1);
  const __m256i high = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(at(2) + offset)), load128(at(3) + offset), 1);
  return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}
static inline Codes set_bytes(int value) { return _mm512_set1_epi8(static_cast<char>(value)); }
static inline Codes and_bytes(Codes a, Codes b) { return _mm512_and_si512(a, b); }
static inline Codes xor_bytes(Codes a, Codes b) { return _mm512_xor_si512(a, b); }
static inline Codes high_nibbles(Codes raw) { return _mm512_and_si512(_mm512_srli_epi16(raw, 4), _mm512_set1_epi8(15)); }
// Bytes of a and b in turn: from the first and from the second eight of each lane.
static inline Codes weave_low(Codes a, Codes b) { return _mm512_unpacklo_epi8(a, b); }
static inline Codes weave_high(Codes a, Codes b) { return _mm512_unpackhi_epi8(a, b); }
static inline Codes look_up(const void* table, Codes codes) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(table)), codes);
}
// 16 more where the bit of a code is set; byte `first` of each lane has the bits of its first eight codes, then `first` + 1.
template <int first>
static inline Codes add_fifth(Codes codes, Codes bits) {
  const __m512i holder = _mm512_set4_epi32(0x01010101 * (first + 1), 0x01010101 * (first + 1), 0x01010101 * first, 0x01010101 * first);
  const __m512i bit = _mm512_set1_epi64(static_cast<int64_t>(0x8040201008040201));
  const __mmask64 set = _mm512_test_epi8_mask(_mm512_shuffle_epi8(bits, holder), bit);
  return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(16));
}

#else

constexpr int kBlockLanes = 2;
using Codes = __m256i;
template <typename At>
static inline __attribute__((always_inline)) Codes load_lanes(At&& at, int offset) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load128(at(0) + offset)), load128(at(1) + offset), 1);
}
static inline Codes set_bytes(int value) { return _mm256_set1_epi8(static_cast<char>(value)); }
static inline Codes and_bytes(Codes a, Codes b) { return _mm256_and_si256(a, b); }
static inline Codes xor_bytes(Codes a, Codes b) { return _mm256_xor_si256(a, b); }
static inline Codes high_nibbles(Codes raw) { return _mm256_and_si256(_mm256_srli_epi16(raw, 4), _mm256_set1_epi8(15)); }
static inline Codes weave_low(Codes a, Codes b) { return _mm256_unpacklo_epi8(a, b); }
static inline Codes weave_high(Codes a, Codes b) { return _mm256_unpackhi_epi8(a, b); }
static inline Codes look_up(const void* table, Codes codes) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), codes);
}
template <int first>
static inline Codes add_fifth(Codes codes, Codes bits) {
  const __m128i lane = _mm_set_epi32(0x01010101 * (first + 1), 0x01010101 * (first + 1), 0x01010101 * first, 0x01010101 * first);
  const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201));
  const __m256i bytes = _mm256_shuffle_epi8(bits, _mm256_broadcastsi128_si256(lane));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, bit), bit);
  return _mm256_or_si256(codes, _mm256_and_si256(set, _mm256_set1_epi8(16)));
}

#endif

// `raw` of nibbles is where a block keeps them; both halves: columns 0–15 and 16–31 of its block.
struct CodeHalves {
  Codes low, high;
  Codes header;  // kHeader: the first 16 bytes of each block
  CodeHalves() = default;
  CodeHalves(Codes first, Codes second) : low(first), high(second), header(first) {}
  CodeHalves(Codes first, Codes second, Codes head) : low(first), high(second), header(head) {}
};
// Of bytes that hold weights i and i + 16, and of bytes that hold 2i and 2i + 1.
static inline CodeHalves nibble_halves(Codes raw) { return {and_bytes(raw, set_bytes(15)), high_nibbles(raw)}; }
static inline CodeHalves nibble_pairs(Codes raw) {
  const CodeHalves four = nibble_halves(raw);
  return {weave_low(four.low, four.high), weave_high(four.low, four.high)};
}

// How the scale of a block is kept: before its codes as a half, as an exponent, as the half (and the minimum behind it) of a
// header that is read with the codes; in a tensor of its own as bf16 or as an exponent.
enum class Scale { half, power, header, bf16_apart, power_apart };
constexpr bool is_apart(Scale kind) { return kind == Scale::bf16_apart || kind == Scale::power_apart; }
constexpr int apart_bytes(Scale kind) { return kind == Scale::bf16_apart ? 2 : 1; }

// A format: bytes of a block, its largest code, log2 of what codes are too large by (0: nothing), has it minima, where its scale
// is, and codes(at). AVX2 takes codes of eight bits signed.
struct Q8_0Codes {
  static constexpr int kBytes = 34, kMost = 255, kLogRaise = 7;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::half;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves raw = {load_lanes(at, 2), load_lanes(at, 18)};
#if TANDEM_ISA_LEVEL >= 2
    return {xor_bytes(raw.low, set_bytes(0x80)), xor_bytes(raw.high, set_bytes(0x80))};
#else
    return raw;
#endif
  }
};
struct Q4_0Codes {
  static constexpr int kBytes = 18, kMost = 15, kLogRaise = 3;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::half;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    return nibble_halves(load_lanes(at, 2));
  }
};
struct Q4_1Codes {
  static constexpr int kBytes = 20, kMost = 15, kLogRaise = 0;
  static constexpr bool kMin = true;
  static constexpr Scale kScale = Scale::header;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_halves(load_lanes(at, 4));
    return {four.low, four.high, load_lanes(at, 0)};
  }
};
struct Q5_0Codes {
  static constexpr int kBytes = 22, kMost = 31, kLogRaise = 4;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::header;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_halves(load_lanes(at, 6));
    const Codes header = load_lanes(at, 0);
    return {add_fifth<2>(four.low, header), add_fifth<4>(four.high, header), header};
  }
};
struct Q5_1Codes {
  static constexpr int kBytes = 24, kMost = 31, kLogRaise = 0;
  static constexpr bool kMin = true;
  static constexpr Scale kScale = Scale::header;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_halves(load_lanes(at, 8));
    const Codes header = load_lanes(at, 0);
    return {add_fifth<4>(four.low, header), add_fifth<6>(four.high, header), header};
  }
};
struct Iq4NlCodes {
  static constexpr int kBytes = 18, kMost = 255, kLogRaise = 7;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::half;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_halves(load_lanes(at, 2));
#if TANDEM_ISA_LEVEL >= 2
    return {look_up(kIq4Unsigned, four.low), look_up(kIq4Unsigned, four.high)};
#else
    return {look_up(kIq4Signed, four.low), look_up(kIq4Signed, four.high)};
#endif
  }
};
struct Mxfp4Codes {
  static constexpr int kBytes = 17, kMost = 28, kLogRaise = 4;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::power;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_halves(load_lanes(at, 1));
    return {look_up(kMxfp4Raised, four.low), look_up(kMxfp4Raised, four.high)};
  }
};

struct Int4G32Codes {
  static constexpr int kBytes = 16, kMost = 15, kLogRaise = 3;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::bf16_apart;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    return nibble_pairs(load_lanes(at, 0));
  }
};
struct Mxfp4G32Codes {
  static constexpr int kBytes = 16, kMost = 28, kLogRaise = 4;
  static constexpr bool kMin = false;
  static constexpr Scale kScale = Scale::power_apart;
  template <typename At>
  static inline __attribute__((always_inline)) CodeHalves codes(At&& at) {
    const CodeHalves four = nibble_pairs(load_lanes(at, 0));
    return {look_up(kMxfp4Raised, four.low), look_up(kMxfp4Raised, four.high)};
  }
};

template <typename Format>
constexpr bool is_wide = Format::kMost == 255;

// Half of 2^(e − 127), for the doubled levels of mxfp4; 255 is NaN.
#if TANDEM_ISA_LEVEL >= 2
static inline __m512 half_powers(__m512i e) {
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
  const __m512i subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x00200000), e);  // of e 0 and 1
  const __m512i bits = _mm512_mask_mov_epi32(normal, _mm512_cmple_epi32_mask(e, _mm512_set1_epi32(1)), subnormal);
  return _mm512_castsi512_ps(_mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(e, _mm512_set1_epi32(255)), _mm512_set1_epi32(-1)));
}
#endif
static inline __m256 half_powers(__m256i e) {
  const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
  const __m256i subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);  // of e 0 and 1
  const __m256i bits = _mm256_blendv_epi8(subnormal, normal, _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1)));
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_cmpeq_epi32(e, _mm256_set1_epi32(255))));
}

// Eight halves that lie anywhere, given where each of them is.
template <typename At>
static inline __attribute__((always_inline)) __m128i eight_halves(At&& at) {
  __m128i words = _mm_cvtsi32_si128(load_as<uint16_t>(at(0)));
  words = _mm_insert_epi16(words, load_as<int16_t>(at(1)), 1);
  words = _mm_insert_epi16(words, load_as<int16_t>(at(2)), 2);
  words = _mm_insert_epi16(words, load_as<int16_t>(at(3)), 3);
  words = _mm_insert_epi16(words, load_as<int16_t>(at(4)), 4);
  words = _mm_insert_epi16(words, load_as<int16_t>(at(5)), 5);
  words = _mm_insert_epi16(words, load_as<int16_t>(at(6)), 6);
  return _mm_insert_epi16(words, load_as<int16_t>(at(7)), 7);
}
// As many bytes that lie anywhere.
template <typename At>
static inline __attribute__((always_inline)) __m128i eight_bytes(At&& at) {
  uint64_t bytes = 0;
#pragma GCC unroll 8
  for (int i = 0; i < 8; i++) bytes |= static_cast<uint64_t>(*at(i)) << (8 * i);
  return _mm_cvtsi64_si128(static_cast<int64_t>(bytes));
}

// Eight scales, given where each of them is.
template <Scale kind, typename At>
static inline __attribute__((always_inline)) __m256 eight_scales(At&& at) {
  if constexpr (kind == Scale::power || kind == Scale::power_apart) return half_powers(_mm256_cvtepu8_epi32(eight_bytes(at)));
  if constexpr (kind == Scale::bf16_apart) return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(eight_halves(at)), 16));
  return _mm256_cvtph_ps(eight_halves(at));
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
