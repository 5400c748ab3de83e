// Weight formats for tensor cores: w = scale·code − minimum, where a code is exact in bf16 and goes to the product as it is.
//
// A lane takes of a piece (pieces.cuh) four weights of each of its two runs, which is what a row of an mma operand wants of it:
//
//     lane q of 4      weights 4q … 4q + 3 of run 0, then of run 1
//     words[.][2r]     of run r weights 4q, 4q + 2: two bf16, the first in the low half
//     words[.][2r + 1] of run r weights 4q + 1, 4q + 3
//
// The other operand has its columns in the same order; a sum does not care. rounded_product(scale, code) − minimum has the bits of the
// decoder of native/quant. f16 and f32 are no bf16: they are the sum of kParts numbers that are.
//
//     Codes<Block>::kParts            bf16 numbers a weight: words[part][…]; else 1
//     Codes<Block>::kScaleRun         32: the runs of a piece share their scale; 16: each has its own
//     Codes<Block>::kScalePieces      so many pieces in a row (from a multiple of it on) share their scales
//     Codes<Block>::kScaled, kMinimum whether there are scales (else all are 1), and minima
//     Codes<Block>::kScalesApart      whether the scales are a tensor of their own
//     Codes<Block>::words(row, piece, q, left, words)   left: columns from the piece on; what lies past them is 0 (plain floats alone);
//                                                       kWholeRow: all are there, and the row begins at a multiple of 16 bytes (mxfp4: 4)
//     Codes<Block>::scale(row, scales, piece, run)      of one run
//
// Rows may lie in global or in shared memory, at their own alignment, which is that of pieces.cuh: nothing else is read than the block.
#pragma once

#include "cuda/kernels/pieces.cuh"


namespace tandem::cuda {

template <typename Block>
struct Codes;

struct RunScale {
  float scale, minimum;
};

// As `left` it is a constant for the compiler, which leaves out what rows of any length and place need.
static constexpr int64_t kWholeRow = INT64_MAX;

// --- two bf16 a word ------------------------------------------------------------------------------------------------------

// a·b + c, each half by itself, rounded once.
static TANDEM_DEVICE uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
#ifdef __CUDA_ARCH__
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
#else
  const auto half = [](uint32_t word, int i) { return static_cast<double>(quant::bf16_to_f32(static_cast<uint16_t>(word >> (16 * i)))); };
  uint32_t d = 0;
  for (int i = 0; i < 2; i++) d |= static_cast<uint32_t>(quant::f32_to_bf16(static_cast<float>(half(a, i) * half(b, i) + half(c, i)))) << (16 * i);
  return d;
#endif
}

// (a & mask) | bits, as one instruction.
static TANDEM_DEVICE uint32_t and_or(uint32_t a, uint32_t mask, uint32_t bits) {
#ifdef __CUDA_ARCH__
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(d) : "r"(a), "r"(mask), "r"(bits));
  return d;
#else
  return (a & mask) | bits;
#endif
}

static TANDEM_DEVICE uint32_t add_bf16x2(uint32_t a, uint32_t b) { return fma_bf16x2(a, 0x3f803f80u, b); }

// −n twice, n = 128 … 255.
static TANDEM_DEVICE constexpr uint32_t minus_bf16x2(uint32_t n) { return 0x80008000u | (0x4300u | (n - 128)) * 0x10001u; }

// A code n of 0 … 127 in the lowest bits of each half makes 128 + n; less 128 + Zero it is exact.
static constexpr uint32_t k128 = 0x43004300u;
template <int Zero>
static TANDEM_DEVICE uint32_t small_codes(uint32_t halves_and_128) {
  return add_bf16x2(halves_and_128, minus_bf16x2(128 + Zero));
}

// int8 in the low byte of each half (what lies above it does not count): its seven low bits, less 128 where its sign is set.
static TANDEM_DEVICE uint32_t signed_codes(uint32_t halves) { return add_bf16x2(and_or(halves, 0x007f007fu, k128), and_or(halves, 0x00800080u, 0xc300c300u)); }

// Four int8 to the two words of a run.
static TANDEM_DEVICE void signed_words(uint32_t bytes, uint32_t* words) {
  words[0] = signed_codes(bytes);
  words[1] = signed_codes(bytes >> 8);
}

// e2m1 in the low nibble of each half, doubled: its exponent and mantissa are the lowest ones of a bf16 that is 2^127 too small, also where it is subnormal.
static TANDEM_DEVICE uint32_t e2m1_doubled(uint32_t halves) {
  return fma_bf16x2(and_or(halves << 12, 0x80008000u, halves << 6 & 0x01c001c0u), 0x7f007f00u, 0);
}

// e4m3 in the low byte of each half, likewise 2^120 too small; 0x7f and 0xff are nan.
static TANDEM_DEVICE uint32_t e4m3_codes(uint32_t halves) {
  const uint32_t magnitude = halves << 4 & 0x07f007f0u;
  const uint32_t nan = ((magnitude + 0x00100010u) >> 5 & 0x00400040u) * 511;  // 0x7fc0 where the magnitude is 0x7f
  return fma_bf16x2(and_or(halves << 8, 0x80008000u, magnitude), 0x7b807b80u, nan);
}

// Four bytes of nibbles: low ones are of run 0, high ones of run 1. code(v): two codes from the low nibbles of both halves; what lies above them does not count.
template <typename Code>
static TANDEM_DEVICE void nibble_words(uint32_t bytes, uint32_t* words, Code code) {
  TANDEM_UNROLL
  for (int i = 0; i < 4; i++) words[i] = code(bytes >> (i == 0 ? 0 : i == 1 ? 8 : i == 2 ? 4 : 12));
}

template <int Zero>
static TANDEM_DEVICE uint32_t nibble_codes(uint32_t halves) {
  return small_codes<Zero>(and_or(halves, 0x000f000fu, k128));
}

// Four nibbles that follow each other in 16 bits, to the two words of a run.
template <typename Code>
static TANDEM_DEVICE void adjacent_words(uint32_t half, uint32_t* words, Code code) {
  const uint32_t both = half | half << 8;
  words[0] = code(both);
  words[1] = code(both >> 4);
}

static TANDEM_DEVICE uint32_t load_word(const uint8_t* at, int alignment) {
  check_aligned(at, alignment);
  if (alignment >= 4) return *reinterpret_cast<const uint32_t*>(at);
  if (alignment == 1) return load_u32(at);
  const uint16_t* halves = reinterpret_cast<const uint16_t*>(at);
  return halves[0] | static_cast<uint32_t>(halves[1]) << 16;
}

// Four bytes at an offset of a row that is aligned to four: of words that are.
static TANDEM_DEVICE uint32_t load_across(const uint8_t* row, int offset) {
  const uint32_t first = load_word(row + (offset & ~3), 4);
  if ((offset & 3) == 0) return first;
  return byte_permute(first, load_word(row + (offset & ~3) + 4, 4), 0x3210 + 0x1111 * (offset & 3));
}

// What formats of blocks of 32, with a scale apiece, share.
struct BlockCodes {
  static constexpr int kParts = 1, kScaleRun = 32, kScalePieces = 1;
  static constexpr bool kScaled = true, kMinimum = false, kScalesApart = false;
};

// --- plain floats ---------------------------------------------------------------------------------------------------------

// Sums begin anew every 128 columns, as with scales: tensor cores cut off what does not fit, which few terms survive.
struct FloatCodes {
  static constexpr int kScaleRun = 32, kScalePieces = 4;
  static constexpr bool kScaled = false, kMinimum = false, kScalesApart = false;
};

// Four values to two words a part: part p is what the upper half of a float holds of what the parts before it have left.
template <int Parts>
static TANDEM_DEVICE void split_words(const float (&values)[4], uint32_t (*words)[4], int run) {
  uint32_t rest[4];
  TANDEM_UNROLL
  for (int i = 0; i < 4; i++) rest[i] = float_bits(values[i]);
  TANDEM_UNROLL
  for (int p = 0; p < Parts; p++) {
    words[p][2 * run] = byte_permute(rest[0], rest[2], 0x7632);
    words[p][2 * run + 1] = byte_permute(rest[1], rest[3], 0x7632);
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) rest[i] = float_bits(bits_float(rest[i]) - bits_float(rest[i] & 0xffff0000u));
  }
}

template <typename T, int Parts>
struct SplitCodes : FloatCodes {
  static constexpr int kParts = Parts;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t left, uint32_t (&words)[Parts][4]) {
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) {
      const int first = 16 * run + 4 * q;
      const T* values = reinterpret_cast<const T*>(row) + 32 * piece + first;
      float four[4];
      if (left == kWholeRow || (first + 4 <= left && aligned(values, 4 * sizeof(T)))) {
        four_floats(values, four);
      } else {
        TANDEM_UNROLL
        for (int i = 0; i < 4; i++) four[i] = first + i < left ? float_at(values, i) : 0.0f;
      }
      split_words<Parts>(four, words, run);
    }
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t*, const uint8_t*, int64_t, int) { return {1, 0}; }

 private:
  static TANDEM_DEVICE void four_floats(const F32* at, float* to) {
    const float4 v = load_float4(reinterpret_cast<const float*>(at));
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
  static TANDEM_DEVICE void four_floats(const F16* at, float* to) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) to[i] = half_float(static_cast<uint16_t>((i < 2 ? v.x : v.y) >> (16 * (i & 1))));
  }
};

template <>
struct Codes<F32> : SplitCodes<F32, 3> {};
template <>
struct Codes<F16> : SplitCodes<F16, 2> {};

template <>
struct Codes<Bf16> : FloatCodes {
  static constexpr int kParts = 1;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t left, uint32_t (&words)[1][4]) {
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) {
      const int first = 16 * run + 4 * q;
      const uint8_t* at = row + 2 * (32 * piece + first);
      uint2 four = {0, 0};
      if (left == kWholeRow || (first + 4 <= left && aligned(at, 8))) {
        four = *reinterpret_cast<const uint2*>(at);
      } else {
        TANDEM_UNROLL
        for (int i = 0; i < 4; i++) {
          if (first + i < left) (i < 2 ? four.x : four.y) |= static_cast<uint32_t>(load_u16(at + 2 * i)) << (16 * (i & 1));
        }
      }
      words[0][2 * run] = byte_permute(four.x, four.y, 0x5410);
      words[0][2 * run + 1] = byte_permute(four.x, four.y, 0x7632);
    }
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t*, const uint8_t*, int64_t, int) { return {1, 0}; }
};

template <>
struct Codes<F8E4m3> : FloatCodes {
  static constexpr int kParts = 1;
  static constexpr bool kScaled = true, kScalesApart = true;
  static_assert(kF8ScaleColumns == 32 * kScalePieces);
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t left, uint32_t (&words)[1][4]) {
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) {
      const int first = 16 * run + 4 * q;
      const uint8_t* at = row + 32 * piece + first;
      uint32_t four = 0;
      if (left == kWholeRow || (first + 4 <= left && aligned(at, 4))) {
        four = *reinterpret_cast<const uint32_t*>(at);
      } else {
        TANDEM_UNROLL
        for (int i = 0; i < 4; i++) {
          if (first + i < left) four |= static_cast<uint32_t>(at[i]) << (8 * i);
        }
      }
      words[0][2 * run] = e4m3_codes(four);
      words[0][2 * run + 1] = e4m3_codes(four >> 8);
    }
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t*, const uint8_t* scales, int64_t piece, int) { return {bits_float(load_u32(scales + 4 * (piece / kScalePieces))), 0}; }
};

// --- blocks of 32 ---------------------------------------------------------------------------------------------------------

template <>
struct Codes<BlockQ8_0> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* codes = row + piece * static_cast<int64_t>(sizeof(BlockQ8_0)) + 2 + 4 * q;
    signed_words(load_word(codes, 2), words[0]);
    signed_words(load_word(codes + 16, 2), words[0] + 2);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) { return {load_half(row + piece * static_cast<int64_t>(sizeof(BlockQ8_0))), 0}; }
};

template <>
struct Codes<BlockQ4_0> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    nibble_words(load_word(row + piece * static_cast<int64_t>(sizeof(BlockQ4_0)) + 2 + 4 * q, 2), words[0], [](uint32_t v) { return nibble_codes<8>(v); });
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) { return {load_half(row + piece * static_cast<int64_t>(sizeof(BlockQ4_0))), 0}; }
};

template <>
struct Codes<BlockQ4_1> : BlockCodes {
  static constexpr bool kMinimum = true;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    nibble_words(load_word(row + piece * static_cast<int64_t>(sizeof(BlockQ4_1)) + 4 + 4 * q, 4), words[0], [](uint32_t v) { return nibble_codes<0>(v); });
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ4_1));
    return {load_half(block), -load_half(block + 2)};
  }
};

// Nibbles and a fifth bit each: bit i of `fifth` is of weight i.
template <int Zero>
static TANDEM_DEVICE void fifth_words(uint32_t bytes, uint32_t fifth, int q, uint32_t* words) {
  const uint32_t own = fifth >> (4 * q);  // bits 0 … 3 and 16 … 19
  TANDEM_UNROLL
  for (int i = 0; i < 4; i++) {
    const uint32_t bits = own >> ((i & 1) + 8 * (i & 2));
    const uint32_t upper = and_or(bits << 18, 0x100000u, and_or(bits << 4, 0x10u, k128));
    words[i] = small_codes<Zero>(and_or(bytes >> (i == 0 ? 0 : i == 1 ? 8 : i == 2 ? 4 : 12), 0x000f000fu, upper));
  }
}

template <>
struct Codes<BlockQ5_0> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ5_0));
    fifth_words<16>(load_word(block + 6 + 4 * q, 2), load_word(block + 2, 2), q, words[0]);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) { return {load_half(row + piece * static_cast<int64_t>(sizeof(BlockQ5_0))), 0}; }
};

template <>
struct Codes<BlockQ5_1> : BlockCodes {
  static constexpr bool kMinimum = true;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ5_1));
    fifth_words<0>(load_word(block + 8 + 4 * q, 4), load_word(block + 4, 4), q, words[0]);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ5_1));
    return {load_half(block), -load_half(block + 2)};
  }
};

// Codes of weights i and i + 2 of both runs to two bf16 each: eight levels by the lower three bits of a code, from tables of their upper
// and of their lower bytes, and the eighth bit says which eight.
static TANDEM_DEVICE void iq4_pair(uint32_t codes, uint32_t upper_half, uint32_t* words) {
  // -127 -104 -83 -65 | -49 -35 -22 -10 | 1 13 25 38 | 53 69 89 113
  const uint32_t upper = byte_permute(0xc2c2c2c2u, 0xc1c1c2c2u, codes), lower = byte_permute(0x82a6d0feu, 0x20b00c44u, codes);
  const uint32_t upper_8 = byte_permute(0x4241413fu, 0x42424242u, codes), lower_8 = byte_permute(0x18c85080u, 0xe2b28a54u, codes);
  const uint32_t high = (upper & ~upper_half) | (upper_8 & upper_half), low = (lower & ~upper_half) | (lower_8 & upper_half);
  words[0] = byte_permute(low, high, 0x6240);
  words[2] = byte_permute(low, high, 0x7351);
}

// Four bytes of nibbles to the words of both runs.
static TANDEM_DEVICE void iq4_words(uint32_t bytes, uint32_t* words) {
  const uint32_t even_odd = byte_permute(bytes, 0, 0x3120), codes = even_odd & 0x77777777u, up = even_odd << 4;
  iq4_pair(codes & 0xffffu, signs_permute(up, even_odd, 0xd9c8), words);
  iq4_pair(codes >> 16, signs_permute(up, even_odd, 0xfbea), words + 1);
}

template <>
struct Codes<BlockIq4Nl> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    iq4_words(load_word(row + piece * static_cast<int64_t>(sizeof(BlockIq4Nl)) + 2 + 4 * q, 2), words[0]);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) { return {load_half(row + piece * static_cast<int64_t>(sizeof(BlockIq4Nl))), 0}; }
};

template <>
struct Codes<BlockMxfp4> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t left, uint32_t (&words)[1][4]) {
    const int64_t codes = piece * static_cast<int64_t>(sizeof(BlockMxfp4)) + 1;
    nibble_words(left == kWholeRow ? load_across(row + 4 * q, static_cast<int>(codes)) : load_word(row + codes + 4 * q, 1), words[0], e2m1_doubled);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) { return {e8m0_to_f32(row[piece * static_cast<int64_t>(sizeof(BlockMxfp4))]) * 0.5f, 0}; }
};

// Weight 2i in the low nibble of byte i, here and in int4_g32; the scales are apart.
template <typename Code>
static TANDEM_DEVICE void group_words(const uint8_t* row, int64_t piece, int q, uint32_t* words, Code code) {
  const uint8_t* codes = row + 16 * piece + 2 * q;
  check_aligned(codes, 2);
  adjacent_words(*reinterpret_cast<const uint16_t*>(codes), words, code);
  adjacent_words(*reinterpret_cast<const uint16_t*>(codes + 8), words + 2, code);
}

template <>
struct Codes<BlockMxfp4G32> : BlockCodes {
  static constexpr bool kScalesApart = true;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) { group_words(row, piece, q, words[0], e2m1_doubled); }
  static TANDEM_DEVICE RunScale scale(const uint8_t*, const uint8_t* scales, int64_t piece, int) { return {e8m0_to_f32(scales[piece]) * 0.5f, 0}; }
};

template <>
struct Codes<BlockInt4G32> : BlockCodes {
  static constexpr bool kScalesApart = true;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    group_words(row, piece, q, words[0], [](uint32_t v) { return nibble_codes<8>(v); });
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t*, const uint8_t* scales, int64_t piece, int) { return {bf16_to_f32(load_u16(scales + 2 * piece)), 0}; }
};

// --- blocks of 256 --------------------------------------------------------------------------------------------------------

template <typename Block>
static TANDEM_DEVICE const uint8_t* block_of(const uint8_t* row, int64_t piece) {
  return row + (piece >> 3) * static_cast<int64_t>(sizeof(Block));
}

// d, dmin and the scales of sub-block j of q4_k and q5_k: the first 16 bytes.
static TANDEM_DEVICE RunScale pair_scale(const uint8_t* block, int j) {
  check_aligned(block, 16);
  const uint4 head = *reinterpret_cast<const uint4*>(block);
  RunScale s;
  k_scale_min(head.y, head.z, head.w, j, half_float(static_cast<uint16_t>(head.x)), half_float(static_cast<uint16_t>(head.x >> 16)), s.scale, s.minimum);
  return s;
}

struct PairCodes {
  static constexpr int kParts = 1, kScaleRun = 16, kScalePieces = 2;
  static constexpr bool kScaled = true, kMinimum = true, kScalesApart = false;
};

template <>
struct Codes<BlockQ4K> : PairCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    nibble_words(load_word(block_of<BlockQ4K>(row, piece) + 16 + 16 * (piece & 7) + 4 * q, 4), words[0], [](uint32_t v) { return nibble_codes<0>(v); });
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int run) {
    return pair_scale(block_of<BlockQ4K>(row, piece), static_cast<int>(piece & 6) + run);
  }
};

template <>
struct Codes<BlockQ5K> : PairCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* block = block_of<BlockQ5K>(row, piece);
    const uint32_t low = load_word(block + 48 + 16 * (piece & 7) + 4 * q, 4), fifth = load_word(block + 16 + 16 * (piece & 1) + 4 * q, 4) >> (piece & 6);
    words[0][0] = small_codes<0>(and_or(fifth << 4, 0x00100010u, and_or(low, 0x000f000fu, k128)));
    words[0][1] = small_codes<0>(and_or(fifth >> 4, 0x00100010u, and_or(low >> 8, 0x000f000fu, k128)));
    words[0][2] = small_codes<0>(and_or(fifth << 3, 0x00100010u, and_or(low >> 4, 0x000f000fu, k128)));
    words[0][3] = small_codes<0>(and_or(fifth >> 5, 0x00100010u, and_or(low >> 12, 0x000f000fu, k128)));
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int run) {
    return pair_scale(block_of<BlockQ5K>(row, piece), static_cast<int>(piece & 6) + run);
  }
};

template <>
struct Codes<BlockQ6K> {
  static constexpr int kParts = 1, kScaleRun = 16, kScalePieces = 1;
  static constexpr bool kScaled = true, kMinimum = false, kScalesApart = false;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* block = block_of<BlockQ6K>(row, piece);
    const int half = static_cast<int>(piece >> 2 & 1), run = static_cast<int>(piece >> 1 & 1), part = static_cast<int>(piece & 1);
    const uint32_t low = load_word(block + 64 * half + 32 * run + 16 * part + 4 * q, 2), upper = load_word(block + 128 + 32 * half + 16 * part + 4 * q, 2) >> (2 * run);
    words[0][0] = small_codes<32>(and_or(upper << 4, 0x00300030u, and_or(low, 0x000f000fu, k128)));
    words[0][1] = small_codes<32>(and_or(upper >> 4, 0x00300030u, and_or(low >> 8, 0x000f000fu, k128)));
    words[0][2] = small_codes<32>(and_or(upper, 0x00300030u, and_or(low >> 4, 0x000f000fu, k128)));
    words[0][3] = small_codes<32>(and_or(upper >> 8, 0x00300030u, and_or(low >> 12, 0x000f000fu, k128)));
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int run) {
    const uint8_t* block = block_of<BlockQ6K>(row, piece);
    return {load_half(block + 208) * signed_float(block[192 + 8 * (piece >> 2 & 1) + 2 * (piece >> 1 & 1) + (piece & 1) + 4 * run]), 0};
  }
};

template <>
struct Codes<BlockIq4Xs> : BlockCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    iq4_words(load_word(block_of<BlockIq4Xs>(row, piece) + 8 + 16 * (piece & 7) + 4 * q, 4), words[0]);
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int) {
    const uint8_t* block = block_of<BlockIq4Xs>(row, piece);
    const int part = static_cast<int>(piece & 7);
    check_aligned(block, 8);
    const uint2 head = *reinterpret_cast<const uint2*>(block);  // d, high scales | low scales
    const uint32_t six = (head.y >> (4 * part) & 15) | (head.x >> (16 + 2 * part) & 3) << 4;
    return {half_float(static_cast<uint16_t>(head.x)) * (small_float(six) - 32.0f), 0};
  }
};

}  // namespace tandem::cuda
