// Weights as the tile product takes them: a lane has 32 of a row (the columns of ColumnOrder), eight at a time, each eight as four words of
// bf16, rounded once from the f32 bits of quant/*.h.
//
//     fetch(row, scales, step, lane, k, j)   loads what eight j of step `step` (128 columns) needs and is not there yet; zeros past K
//     eight(j, words)                        that eight
//
// What is fetched stays in registers, so that it may be on its way while products run. `scales`: the row's, of formats with scales apart.
#pragma once

#include "cuda/kernels/column_order.h"
#include "cuda/kernels/pieces.cuh"
#include "cuda/kernels/pieces_codebooks.cuh"

namespace tandem::cuda {

static constexpr int64_t kAhead = 8;  // pieces: two steps

// What is rare is kept short.
#ifdef __CUDACC__
#define TANDEM_ROLLED _Pragma("unroll 1")
#else
#define TANDEM_ROLLED
#endif

// Asks for a line to come to the second cache.
static TANDEM_DEVICE void prefetch_line([[maybe_unused]] const uint8_t* at) {
#ifdef __CUDA_ARCH__
  asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#endif
}

// Asks for the piece two steps on, where there is one.
template <typename Block>
static TANDEM_DEVICE void fetch_ahead(const uint8_t* row, int64_t piece, int64_t pieces) {
  constexpr int64_t kPieces = Piece<Block>::kWeights > 32 ? Piece<Block>::kWeights / 32 : 1, kBytes = Piece<Block>::kWeights == 1 ? 32 * sizeof(Block) : sizeof(Block);
  if (piece + kAhead < pieces) prefetch_line(row + (piece + kAhead) * kBytes / kPieces);
}

// 16 bytes of any alignment: the two aligned sixteens that hold them, the second only where it does. Through the first cache, which
// neighbours share.
static TANDEM_DEVICE uint4 load_16_anywhere(const uint8_t* at) {
  uint4 v;
#ifdef __CUDA_ARCH__
  const uint32_t offset = static_cast<uint32_t>(reinterpret_cast<uintptr_t>(at)) & 15;
  const uint4* base = reinterpret_cast<const uint4*>(at - offset);
  const uint4 low = __ldg(base), high = offset == 0 ? low : __ldg(base + 1);
  const bool two = offset & 8, one = offset & 4;
  const uint32_t a0 = two ? low.z : low.x, a1 = two ? low.w : low.y, a2 = two ? high.x : low.z, a3 = two ? high.y : low.w, a4 = two ? high.z : high.x, a5 = two ? high.w : high.y;
  const uint32_t b0 = one ? a1 : a0, b1 = one ? a2 : a1, b2 = one ? a3 : a2, b3 = one ? a4 : a3, b4 = one ? a5 : a4;
  const uint32_t bits = 8 * (offset & 3);
  v.x = __funnelshift_r(b0, b1, bits), v.y = __funnelshift_r(b1, b2, bits), v.z = __funnelshift_r(b2, b3, bits), v.w = __funnelshift_r(b3, b4, bits);
#else
  memcpy(&v, at, 16);
#endif
  return v;
}

// A float of any alignment.
static TANDEM_DEVICE float load_float_anywhere(const uint8_t* at) { return aligned(at, 4) ? *reinterpret_cast<const float*>(at) : bits_float(load_u32(at)); }

// 2^23 + byte i of a word, as a float.
static TANDEM_DEVICE float byte_float(uint32_t word, int i) { return bits_float(byte_permute(word, 0x4b000000u, 0x7440u | static_cast<uint32_t>(i))); }
static constexpr float kByteBase = 8388608.0f;

// 128 + byte i of a word, which is at most 127, as a float: eight bits, so that its product with a scale of up to sixteen is exact.
static TANDEM_DEVICE float short_byte_float(uint32_t word, int i) { return bits_float(byte_permute(word, 0x43000000u, 0x7044u | static_cast<uint32_t>(i) << 8)); }

// a·b + c where a·b is exact in f32, so that one rounding or two give the same bits.
static TANDEM_DEVICE float exact_product_sum(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return a * b + c;
#endif
}

// Four codes, a byte each, to two words; value(2^23 + code).
template <typename Value>
static TANDEM_DEVICE void pack_four(uint32_t codes, uint32_t* words, Value value) {
  words[0] = pack_bf16(value(byte_float(codes, 0)), value(byte_float(codes, 1)));
  words[1] = pack_bf16(value(byte_float(codes, 2)), value(byte_float(codes, 3)));
}
static TANDEM_DEVICE void pack_signed(uint32_t codes, float scale, uint32_t* words) {
  pack_four(codes ^ 0x80808080u, words, [&](float v) { return scale * (v - (kByteBase + 128)); });
}
static TANDEM_DEVICE void pack_scaled(uint32_t codes, float scale, float zero, uint32_t* words) {
  pack_four(codes, words, [&](float v) { return scale * (v - (kByteBase + zero)); });
}
// scale · (code − zero) of codes up to 127 and scales of up to sixteen bits, by one operation; `offset`: −(128 + zero) · scale.
static TANDEM_DEVICE float centered(float code, float scale, float offset) { return exact_product_sum(scale, code, offset); }
static TANDEM_DEVICE void pack_shifted(uint32_t codes, float scale, float shift, uint32_t* words) {
  pack_four(codes, words, [&](float v) { return exact_product_sum(scale, v - kByteBase, shift); });
}

// Word c (0, 1) of eight j of sixteen bytes of nibbles, low ones the first sixteen weights: four codes.
static TANDEM_DEVICE uint32_t nibbles_of(const uint4& codes, int j, int c) { return word_of(codes, 2 * (j & 1) + c) >> (4 * (j >> 1)) & 0x0f0f0f0fu; }

// Four bits to bit 4 of four bytes.
static TANDEM_DEVICE uint32_t fifth_bits(uint32_t bits) { return (bits & 15) * 0x02040810u & 0x10101010u; }

template <typename Block>
struct TilePiece;

// --- plain floats ---------------------------------------------------------------------------------------------------------

template <typename T>
struct FloatTilePiece {
  uint32_t values[4] = {};
  TANDEM_DEVICE void fetch(const uint8_t* row, const uint8_t*, int64_t step, int lane, int64_t k, int j) {
    const int64_t column = kTileStep * step + eight_columns(ColumnOrder::plain, lane, j).first;
    const T* at = reinterpret_cast<const T*>(row) + column;
    if (column + 8 <= k && aligned(at, 16)) {
      if constexpr (sizeof(T) == 2 && !std::is_same_v<T, F16>) {
        const uint4 v = load_16<16>(reinterpret_cast<const uint8_t*>(at));
        values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
      } else {
        constexpr int kPerLoad = 16 / sizeof(T);
        float w[8];
        TANDEM_UNROLL
        for (int i = 0; i < 8; i += kPerLoad) unpack(at, load_16<16>(reinterpret_cast<const uint8_t*>(at + i)), w + i);
        pack(w);
      }
    } else {
      TANDEM_ROLLED
      for (int i = 0; i < 8; i++) {  // each pushes the others down
        TANDEM_UNROLL
        for (int word = 0; word < 3; word++) values[word] = values[word] >> 16 | values[word + 1] << 16;
        values[3] = values[3] >> 16 | pack_bf16(0, column + i < k ? float_at(at, i) : 0.0f);
      }
    }
  }
  TANDEM_DEVICE void eight(int, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) words[i] = values[i];
  }

 private:
  TANDEM_DEVICE void pack(const float (&w)[8]) {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) values[i] = pack_bf16(w[2 * i], w[2 * i + 1]);
  }
};
template <>
struct TilePiece<F32> : FloatTilePiece<F32> {};
template <>
struct TilePiece<F16> : FloatTilePiece<F16> {};
template <>
struct TilePiece<Bf16> : FloatTilePiece<Bf16> {};

// Sixteen bytes a lane and half; one scale a step. A weight that is no number makes all sums of its row none: the scale serves as well.
template <>
struct TilePiece<F8E4m3> {
  uint4 codes[2] = {};
  float scale = 0;  // times 2^8; finite up to scales of 2^119
  TANDEM_DEVICE void fetch(const uint8_t* row, const uint8_t* scales, int64_t step, int lane, int64_t k, int j) {
    if (j != 0) return;
    scale = kTileStep * step < k ? 256 * load_float_anywhere(scales + 4 * step) : 0.0f;
    fetch_ahead<F8E4m3>(row, 4 * step + lane, k / 32);
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) {
      const int64_t column = kTileStep * step + eight_columns(ColumnOrder::halves, lane, 2 * h).first;
      const uint8_t* at = row + column;
      codes[h] = {};
      if (column + 16 <= k && aligned(at, 16)) {
        codes[h] = load_16<16>(at);
      } else {
        uint32_t words[4] = {};
        TANDEM_ROLLED
        for (int i = 0; i < 16; i++) {
          TANDEM_UNROLL
          for (int word = 0; word < 3; word++) words[word] = words[word] >> 8 | words[word + 1] << 24;
          words[3] = words[3] >> 8 | (column + i < k ? static_cast<uint32_t>(at[i]) << 24 : 0u);
        }
        codes[h] = {words[0], words[1], words[2], words[3]};
      }
      if ((not_numbers(codes[h].x) | not_numbers(codes[h].y) | not_numbers(codes[h].z) | not_numbers(codes[h].w)) != 0) scale = bits_float(0x7fc00000u);
    }
  }
  // By way of f16, which has the same subnormals 2^8 lower.
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) {
      const uint32_t two = byte_permute(word_of(codes[j >> 1], 2 * (j & 1) + (i >> 1)), 0u, i & 1 ? 0x3424u : 0x1404u), halves = (two >> 1 & 0x3f803f80u) | (two & 0x80008000u);
      words[i] = pack_bf16(half_float(static_cast<uint16_t>(halves)) * scale, half_float(static_cast<uint16_t>(halves >> 16)) * scale);
    }
  }

 private:
  // Not 0 where one of four codes is the one that is no number.
  static TANDEM_DEVICE uint32_t not_numbers(uint32_t four) { return ((four & 0x7f7f7f7fu) + 0x01010101u) & 0x80808080u; }
};

// --- blocks of 32 ---------------------------------------------------------------------------------------------------------

// fetch of a format whose piece is loaded whole: Derived::load(row, scales, piece), zeros where it is none.
template <typename Derived, typename Block>
struct WholePiece {
  TANDEM_DEVICE void fetch(const uint8_t* row, const uint8_t* scales, int64_t step, int lane, int64_t k, int j) {
    if (j != 0) return;
    Derived& self = *static_cast<Derived*>(this);
    const int64_t piece = 4 * step + lane, pieces = k / 32;
    fetch_ahead<Block>(row, piece, pieces);
    if (piece < pieces) self.load(row, scales, piece);
    else self = Derived();
  }
  static TANDEM_DEVICE const uint8_t* block_of(const uint8_t* row, int64_t piece) { return row + piece / (Piece<Block>::kWeights / 32) * static_cast<int64_t>(sizeof(Block)); }
};

template <>
struct TilePiece<BlockQ8_0> : WholePiece<TilePiece<BlockQ8_0>, BlockQ8_0> {
  uint4 low = {}, high = {};
  float scale = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scale = load_half(block), low = load_16_anywhere(block + 2), high = load_16_anywhere(block + 18);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_signed(word_of(j < 2 ? low : high, 2 * (j & 1) + c), scale, words + 2 * c);
  }
};

template <>
struct TilePiece<BlockQ4_0> : WholePiece<TilePiece<BlockQ4_0>, BlockQ4_0> {
  uint4 codes = {};
  float scale = 0, offset = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scale = load_half(block), offset = -136 * scale, codes = load_16_anywhere(block + 2);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) {
      const uint32_t four = nibbles_of(codes, j, i >> 1);
      words[i] = pack_bf16(centered(short_byte_float(four, 2 * (i & 1)), scale, offset), centered(short_byte_float(four, 2 * (i & 1) + 1), scale, offset));
    }
  }
};

template <>
struct TilePiece<BlockQ4_1> : WholePiece<TilePiece<BlockQ4_1>, BlockQ4_1> {
  uint4 codes = {};
  float scale = 0, shift = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scale = load_half(block), shift = load_half(block + 2), codes = load_16_anywhere(block + 4);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_shifted(nibbles_of(codes, j, c), scale, shift, words + 2 * c);
  }
};

template <>
struct TilePiece<BlockQ5_0> : WholePiece<TilePiece<BlockQ5_0>, BlockQ5_0> {
  uint4 codes = {};
  uint32_t fifth = 0;
  float scale = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(block + 2);
    scale = load_half(block), fifth = halves[0] | static_cast<uint32_t>(halves[1]) << 16, codes = load_16_anywhere(block + 6);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_scaled(nibbles_of(codes, j, c) | fifth_bits(fifth >> (8 * j + 4 * c)), scale, 16, words + 2 * c);
  }
};

template <>
struct TilePiece<BlockQ5_1> : WholePiece<TilePiece<BlockQ5_1>, BlockQ5_1> {
  uint4 codes = {};
  uint32_t fifth = 0;
  float scale = 0, shift = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scale = load_half(block), shift = load_half(block + 2), fifth = *reinterpret_cast<const uint32_t*>(block + 4), codes = load_16<8>(block + 8);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_shifted(nibbles_of(codes, j, c) | fifth_bits(fifth >> (8 * j + 4 * c)), scale, shift, words + 2 * c);
  }
};

// Levels of iq4_nl and iq4_xs plus 128 by four nibbles: the lower eight codes have −127 … −10, the upper eight 1 … 113, and each table
// gives 0 for the codes of the other.
static TANDEM_DEVICE uint32_t iq4_four(uint32_t nibbles) {
  return (signs_permute(0x26190d01u, 0x71594535u, nibbles ^ 0x8888u) | 0x80808080u) - signs_permute(0x4153687fu, 0x0a162331u, nibbles);
}
static TANDEM_DEVICE void iq4_eight(uint32_t nibbles, float scale, uint32_t (&words)[4]) {
  pack_scaled(iq4_four(nibbles), scale, 128, words);
  pack_scaled(iq4_four(nibbles >> 16), scale, 128, words + 2);
}

template <>
struct TilePiece<BlockIq4Nl> : WholePiece<TilePiece<BlockIq4Nl>, BlockIq4Nl> {
  uint4 codes = {};
  float scale = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scale = load_half(block), codes = load_16_anywhere(block + 2);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const { iq4_eight(word_of(codes, j), scale, words); }
};

// Two products of bf16 by bf16.
static TANDEM_DEVICE uint32_t multiply_bf16(uint32_t a, uint32_t b) {
#ifdef __CUDA_ARCH__
  uint32_t product;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(a), "r"(b), "r"(0x80008000u));
  return product;
#else
  const auto half = [&](int shift) { return quant::bf16_to_f32(static_cast<uint16_t>(a >> shift)) * quant::bf16_to_f32(static_cast<uint16_t>(b >> shift)); };
  return pack_bf16(half(0), half(16));
#endif
}

// Four e2m1 nibbles to their levels in bf16: bytes of 0 ½ 1 1½ 2 3 4 6 by the lower three bits, the sign over them.
static TANDEM_DEVICE void e2m1_levels(uint32_t nibbles, uint32_t& first, uint32_t& second) {
  const uint32_t signs = signs_permute(0x80808080u, 0x80808080u, nibbles) << 1 & 0x80808080u, sizes = nibbles & 0x7777u;
  const uint32_t high = byte_permute(0x3f3f3f00u, 0x40404040u, sizes) | signs, low = byte_permute(0xc0800000u, 0xc0804000u, sizes);
  first = byte_permute(low, high, 0x5140u), second = byte_permute(low, high, 0x7362u);
}

// An e8m0 scale, a power of two, as bf16 in both halves: products with levels are exact.
static TANDEM_DEVICE uint32_t e8m0_scales(uint8_t bits) { return (float_bits(e8m0_to_f32(bits)) >> 16) * 0x10001u; }
static TANDEM_DEVICE void e2m1_eight(uint32_t nibbles, uint32_t scales, uint32_t (&words)[4]) {
  TANDEM_UNROLL
  for (int c = 0; c < 2; c++) {
    uint32_t first, second;
    e2m1_levels(nibbles >> (16 * c), first, second);
    words[2 * c] = multiply_bf16(first, scales), words[2 * c + 1] = multiply_bf16(second, scales);
  }
}

template <>
struct TilePiece<BlockMxfp4> : WholePiece<TilePiece<BlockMxfp4>, BlockMxfp4> {
  uint4 codes = {};
  uint32_t scales = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    scales = e8m0_scales(block[0]), codes = load_16_anywhere(block + 1);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const { e2m1_eight(word_of(codes, j), scales, words); }
};

// Weight 2i in the low nibble of byte i: word j has an eight.
template <>
struct TilePiece<BlockMxfp4G32> : WholePiece<TilePiece<BlockMxfp4G32>, BlockMxfp4G32> {
  uint4 codes = {};
  uint32_t factors = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t* scales, int64_t piece) { factors = e8m0_scales(scales[piece]), codes = load_16<16>(row + 16 * piece); }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const { e2m1_eight(word_of(codes, j), factors, words); }
};

template <>
struct TilePiece<BlockInt4G32> : WholePiece<TilePiece<BlockInt4G32>, BlockInt4G32> {
  uint4 codes = {};
  float scale = 0, offset = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t* scales, int64_t piece) {
    scale = bf16_to_f32(load_u16(scales + 2 * piece)), offset = -136 * scale, codes = load_16<16>(row + 16 * piece);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    const uint32_t even = word_of(codes, j) & 0x0f0f0f0fu, odd = word_of(codes, j) >> 4 & 0x0f0f0f0fu;
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) words[i] = pack_bf16(centered(short_byte_float(even, i), scale, offset), centered(short_byte_float(odd, i), scale, offset));
  }
};

// --- blocks of 256 --------------------------------------------------------------------------------------------------------

// d·scale and −dmin·min of the two sub-blocks of a piece: all eight of a block's half at once, then two of them.
struct StepScales {
  float scale[2] = {}, shift[2] = {};
  TANDEM_DEVICE void load(const uint8_t* block, int part) {
    const uint4 head = load_16<16>(block);
    const float d = half_float(static_cast<uint16_t>(head.x)), dmin = half_float(static_cast<uint16_t>(head.x >> 16));
    const bool upper = part >= 4;
    const uint32_t scales = upper ? (head.w & 0x0f0f0f0fu) | (head.y >> 2 & 0x30303030u) : head.y & 0x3f3f3f3fu;
    const uint32_t mins = upper ? (head.w >> 4 & 0x0f0f0f0fu) | (head.z >> 2 & 0x30303030u) : head.z & 0x3f3f3f3fu;
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) scale[i] = d * (byte_float(scales, (part & 2) + i) - kByteBase), shift[i] = -dmin * (byte_float(mins, (part & 2) + i) - kByteBase);
  }
};

template <>
struct TilePiece<BlockQ4K> : WholePiece<TilePiece<BlockQ4K>, BlockQ4K> {
  uint4 codes = {};
  StepScales s;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int part = static_cast<int>(piece & 7);
    codes = load_16<16>(block + 16 + 16 * part), s.load(block, part);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_shifted(nibbles_of(codes, j, c), s.scale[j >> 1], s.shift[j >> 1], words + 2 * c);
  }
};

template <>
struct TilePiece<BlockQ5K> : WholePiece<TilePiece<BlockQ5K>, BlockQ5K> {
  uint4 codes = {}, high = {};  // the fifth bits of the piece are bits 0 (first run) and 1 of the bytes
  StepScales s;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int part = static_cast<int>(piece & 7), bit = part & 6;
    codes = load_16<16>(block + 48 + 16 * part), s.load(block, part);
    high = load_16<16>(block + 16 + 16 * (part & 1));
    high.x >>= bit, high.y >>= bit, high.z >>= bit, high.w >>= bit;
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) {
      const uint32_t fifth = (word_of(high, 2 * (j & 1) + c) >> (j >> 1) & 0x01010101u) << 4;
      pack_shifted(nibbles_of(codes, j, c) | fifth, s.scale[j >> 1], s.shift[j >> 1], words + 2 * c);
    }
  }
};

template <>
struct TilePiece<BlockQ6K> : WholePiece<TilePiece<BlockQ6K>, BlockQ6K> {
  uint4 codes = {}, high = {};  // the upper bits of the piece are bits 0, 1 (first run) and 4, 5 of the bytes
  float scale[2] = {};
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int half = static_cast<int>(piece >> 2 & 1), run = static_cast<int>(piece >> 1 & 1), part = static_cast<int>(piece & 1);
    codes = load_16_anywhere(block + 64 * half + 32 * run + 16 * part), high = load_16_anywhere(block + 128 + 32 * half + 16 * part);
    high.x >>= 2 * run, high.y >>= 2 * run, high.z >>= 2 * run, high.w >>= 2 * run;
    const uint8_t* scales = block + 192 + 8 * half + 2 * run + part;
    const float d = load_half(block + 208);
    scale[0] = d * signed_float(scales[0]), scale[1] = d * signed_float(scales[4]);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) {
      const uint32_t upper = (word_of(high, 2 * (j & 1) + c) >> (4 * (j >> 1)) & 0x03030303u) << 4;
      pack_scaled(nibbles_of(codes, j, c) | upper, scale[j >> 1], 32, words + 2 * c);
    }
  }
};

template <>
struct TilePiece<BlockIq4Xs> : WholePiece<TilePiece<BlockIq4Xs>, BlockIq4Xs> {
  uint4 codes = {};
  float scale = 0;
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int part = static_cast<int>(piece & 7);
    check_aligned(block, 8);
    const uint2 head = *reinterpret_cast<const uint2*>(block);  // as Piece<BlockIq4Xs>
    const uint32_t six = (head.y >> (4 * part) & 15) | (head.x >> (16 + 2 * part) & 3) << 4;
    scale = half_float(static_cast<uint16_t>(head.x)) * (small_float(six) - 32.0f), codes = load_16_anywhere(block + 8 + 16 * part);
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const { iq4_eight(word_of(codes, j), scale, words); }
};

// The four lanes of a step share 32 bytes: each has two bits of every one.
template <>
struct TilePiece<BlockQ2K> : WholePiece<TilePiece<BlockQ2K>, BlockQ2K> {
  uint4 codes[2] = {};
  float scale[2] = {}, shift[2] = {};
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int part = static_cast<int>(piece & 7), bits = 2 * (part & 3);
    const float d = load_half(block + 80), dmin = load_half(block + 82);
    TANDEM_UNROLL
    for (int r = 0; r < 2; r++) {
      const uint32_t packed = block[2 * part + r];
      scale[r] = d * small_float(packed & 15), shift[r] = -(dmin * small_float(packed >> 4));
      codes[r] = load_16_anywhere(block + 16 + 32 * (part >> 2) + 16 * r);
      codes[r].x >>= bits, codes[r].y >>= bits, codes[r].z >>= bits, codes[r].w >>= bits;
    }
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_shifted(word_of(codes[j >> 1], 2 * (j & 1) + c) & 0x03030303u, scale[j >> 1], shift[j >> 1], words + 2 * c);
  }
};

template <>
struct TilePiece<BlockQ3K> : WholePiece<TilePiece<BlockQ3K>, BlockQ3K> {
  uint4 codes[2] = {};
  float scale[2] = {};
  TANDEM_DEVICE void load(const uint8_t* row, const uint8_t*, int64_t piece) {
    const uint8_t* block = block_of(row, piece);
    const int part = static_cast<int>(piece & 7), bits = 2 * (part & 3);
    const float d = load_half(block + 108);
    TANDEM_UNROLL
    for (int r = 0; r < 2; r++) {
      scale[r] = d * static_cast<float>(q3_k_scale(*reinterpret_cast<const BlockQ3K*>(block), 2 * part + r));
      const uint4 third = load_16_anywhere(block + 16 * r), two = load_16_anywhere(block + 32 + 32 * (part >> 2) + 16 * r);
      const auto together = [&](uint32_t low, uint32_t high) { return (low >> bits & 0x03030303u) | (high >> part & 0x01010101u) << 2; };
      codes[r] = {together(two.x, third.x), together(two.y, third.y), together(two.z, third.z), together(two.w, third.w)};
    }
  }
  TANDEM_DEVICE void eight(int j, uint32_t (&words)[4]) const {
    TANDEM_UNROLL
    for (int c = 0; c < 2; c++) pack_scaled(word_of(codes[j >> 1], 2 * (j & 1) + c), scale[j >> 1], 4, words + 2 * c);
  }
};

}  // namespace tandem::cuda
