// Blocks of q2_k q3_k q4_k q5_k q6_k iq4_xs as vectors of codes: the formats of dot_q256 without code books.
#pragma once

#include "cpu/kernels/dot_codes256.inl.h"
#include "cpu/kernels/dot_grids.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

// Level + 128 (avx512) or the level itself (avx2) of the codes of iq4_xs.
alignas(16) constexpr uint8_t kIq4Raised[16] = {1, 24, 45, 63, 79, 93, 106, 118, 129, 141, 153, 166, 181, 197, 217, 241};
alignas(16) constexpr int8_t kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// The twelve bytes of q4_k and q5_k: eight scales and eight minima of six bits.
static inline BlockHead k_head(const uint8_t* block) {
  const uint32_t a = load_as<uint32_t>(block + 4), b = load_as<uint32_t>(block + 8), c = load_as<uint32_t>(block + 12);
  const uint32_t scale_low = a & 0x3f3f3f3f, scale_high = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030);
  const uint32_t min_low = b & 0x3f3f3f3f, min_high = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
  const __m128i scales = _mm_cvtsi64_si128(static_cast<int64_t>(scale_low | static_cast<uint64_t>(scale_high) << 32));
  const __m128i mins = _mm_cvtsi64_si128(static_cast<int64_t>(min_low | static_cast<uint64_t>(min_high) << 32));
  const __m128i twice = _mm_unpacklo_epi8(mins, mins);  // a minimum per 16 columns
  return {half_at(block), half_at(block + 2), widen_scales(_mm256_cvtepu8_epi16(scales)), _mm256_cvtepu8_epi16(twice)};
}

struct DotQ4K {
  static constexpr int kBytes = 144, kOffset = 0, kSub = 32;
  static constexpr bool kMins = true;
  static BlockHead head(const uint8_t* block) { return k_head(block); }
  static Codes codes(const uint8_t* block, int g) {
#if TANDEM_ISA_LEVEL >= 2
    return both(shift_halves(both_halves(block + 16 + 32 * g), 0, 4), 15);
#else
    return both(shift_right(load256(block + 16 + 32 * (g / 2)), 4 * (g & 1)), 15);
#endif
  }
};

struct DotQ5K {
  static constexpr int kBytes = 176, kOffset = 0, kSub = 32;
  static constexpr bool kMins = true;
  static BlockHead head(const uint8_t* block) { return k_head(block); }
  static Codes codes(const uint8_t* block, int g) {
#if TANDEM_ISA_LEVEL >= 2
    const Codes low = both(shift_halves(both_halves(block + 48 + 32 * g), 0, 4), 15);
    return either(low, where_bits(both_halves(block + 16), 2 * g, 2 * g + 1, 16));
#else
    const Codes low = both(shift_right(load256(block + 48 + 32 * (g / 2)), 4 * (g & 1)), 15);
    return either(low, where_bit(load256(block + 16), g, 16));
#endif
  }
};

struct DotQ2K {
  static constexpr int kBytes = 84, kOffset = 0, kSub = 16;
  static constexpr bool kMins = true;
  static BlockHead head(const uint8_t* block) {
    const __m128i packed = load128(block), low = _mm_set1_epi8(15);
    return {half_at(block + 80), half_at(block + 82), widen_scales(_mm256_cvtepu8_epi16(_mm_and_si128(packed, low))),
            _mm256_cvtepu8_epi16(_mm_and_si128(_mm_srli_epi16(packed, 4), low))};
  }
  static Codes codes(const uint8_t* block, int g) {
#if TANDEM_ISA_LEVEL >= 2
    return both(shift_halves(both_halves(block + 16 + 32 * (g / 2)), 4 * (g & 1), 4 * (g & 1) + 2), 3);
#else
    return both(shift_right(load256(block + 16 + 32 * (g / 4)), 2 * (g & 3)), 3);
#endif
  }
};

struct DotQ3K {
  static constexpr int kBytes = 110, kOffset = 4, kSub = 16;
  static constexpr bool kMins = false;
  static BlockHead head(const uint8_t* block) {
    // Low four bits in the nibbles of bytes 0–7, high two in bytes 8–11 (byte j: scales j, j+4, j+8, j+12).
    const uint64_t low = load_as<uint64_t>(block + 96);
    const uint64_t high = load_as<uint32_t>(block + 104) * 0x100000001ull;
    const uint64_t nibbles = 0x0f0f0f0f0f0f0f0full;
    const uint64_t shifted = (high & 0x03030303ull) | (high >> 2 & 0x0303030300000000ull);
    const uint64_t shifted8 = (high >> 4 & 0x03030303ull) | (high >> 6 & 0x0303030300000000ull);
    const __m128i six = _mm_set_epi64x(static_cast<int64_t>((low >> 4 & nibbles) | shifted8 << 4),
                                       static_cast<int64_t>((low & nibbles) | shifted << 4));
    const __m256i words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(six), _mm256_set1_epi16(32));
    return {half_at(block + 108), 0.0f, widen_scales(words), _mm256_setzero_si256()};
  }
  static Codes codes(const uint8_t* block, int g) {
#if TANDEM_ISA_LEVEL >= 2
    const Codes low = both(shift_halves(both_halves(block + 32 + 32 * (g / 2)), 4 * (g & 1), 4 * (g & 1) + 2), 3);
    return either(low, where_bits(both_halves(block), 2 * g, 2 * g + 1, 4));
#else
    const Codes low = both(shift_right(load256(block + 32 + 32 * (g / 4)), 2 * (g & 3)), 3);
    return either(low, where_bit(load256(block), g, 4));
#endif
  }
};

struct DotQ6K {
  static constexpr int kBytes = 210, kOffset = 32, kSub = 16;
  static constexpr bool kMins = false;
  static BlockHead head(const uint8_t* block) {
    return {half_at(block + 208), 0.0f, widen_scales(_mm256_cvtepi8_epi16(load128(block + 192))), _mm256_setzero_si256()};
  }
  static Codes codes(const uint8_t* block, int g) {
#if TANDEM_ISA_LEVEL >= 2
    const Codes nibbles = _mm512_loadu_si512(block + 64 * (g / 2)), pairs = both_halves(block + 128 + 32 * (g / 2));
    if (g % 2 == 0) return either(both(nibbles, 15), both(shift_halves_left(pairs, 4, 2), 0x30));
    return either(both(_mm512_srli_epi16(nibbles, 4), 15), both(shift_halves(pairs, 0, 2), 0x30));
#else
    const int half = g / 4, quarter = g % 4;
    const Codes nibbles = load256(block + 64 * half + 32 * (quarter & 1)), pairs = load256(block + 128 + 32 * half);
    const Codes low = both(shift_right(nibbles, quarter < 2 ? 0 : 4), 15);
    const Codes high = quarter < 2 ? shift_left(pairs, 4 - 2 * quarter) : shift_right(pairs, 2 * quarter - 4);
    return either(low, both(high, 0x30));
#endif
  }
};

struct DotIq4Xs {
  static constexpr int kBytes = 136, kOffset = 128, kSub = 32;
  static constexpr bool kMins = false;
  static BlockHead head(const uint8_t* block) {
    // Nibble s of the four bytes and two bits of the u16, minus 32.
    uint64_t low = load_as<uint32_t>(block + 4), high = load_as<uint16_t>(block + 2);
    // Spread eight nibbles, and eight pairs of bits, over eight bytes.
    low = (low | low << 16) & 0x0000ffff0000ffffull;
    low = (low | low << 8) & 0x00ff00ff00ff00ffull;
    low = (low | low << 4) & 0x0f0f0f0f0f0f0f0full;
    high = (high | high << 24) & 0x000000ff000000ffull;
    high = (high | high << 12) & 0x000f000f000f000full;
    high = (high | high << 6) & 0x0303030303030303ull;
    const __m128i six = _mm_cvtsi64_si128(static_cast<int64_t>(low | high << 4));
    const __m256i words = _mm256_sub_epi16(_mm256_cvtepu8_epi16(six), _mm256_set1_epi16(32));
    return {half_at(block), 0.0f, widen_scales(words), _mm256_setzero_si256()};
  }
#if TANDEM_ISA_LEVEL >= 2
  static Codes codes(const uint8_t* block, int g) {
    const uint8_t* p = block + 8 + 32 * g;
    __m512i v = _mm512_broadcast_i32x4(load128(p));
    v = _mm512_mask_broadcast_i32x4(v, 0xff00, load128(p + 16));
    v = both(_mm512_srlv_epi64(v, _mm512_set_epi64(4, 4, 0, 0, 4, 4, 0, 0)), 15);
    return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(kIq4Raised)), v);
  }
#else
  static Codes codes(const uint8_t* block, int g) {
    const __m128i raw = load128(block + 8 + 16 * g);
    const Codes v = both(_mm256_inserti128_si256(_mm256_castsi128_si256(raw), _mm_srli_epi16(raw, 4), 1), 15);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(kIq4Levels)), v);
  }
#endif
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
