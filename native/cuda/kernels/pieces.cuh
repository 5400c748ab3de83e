// Weight formats for a thread: a piece is 32 weights of a row, as many as one 16-byte load of four-bit codes brings, in two
// runs of 16 adjacent columns. The bits are those of quant/*.h; scales are decoded once a piece.
//
//     Piece<Block>::kWeights            columns of a row are a multiple of it
//     Piece<Block>::runs(piece)         where the piece lies: w[i] is column first + i, w[16 + i] column second + i
//     Piece<Block>::decode(row, …, w)   the piece
#pragma once

#include "cuda/kernels/dialect.cuh"
#include "quant/float_rows.h"
#include "quant/int4_g32.h"
#include "quant/iq4_nl.h"
#include "quant/iq4_xs.h"
#include "quant/k_scales.h"
#include "quant/mxfp4.h"
#include "quant/mxfp4_g32.h"
#include "quant/q4_0.h"
#include "quant/q4_1.h"
#include "quant/q4_k.h"
#include "quant/q5_0.h"
#include "quant/q5_1.h"
#include "quant/q5_k.h"
#include "quant/q6_k.h"
#include "quant/q8_0.h"

namespace tandem::cuda {

using namespace tandem::quant;

struct Runs {
  int64_t first, second;
};

template <typename Block>
struct Piece;

// Rows of a matrix that share a row of scales, in formats with scales apart.
template <typename Block>
struct ScaleRows {
  static constexpr int value = 1;
};
template <>
struct ScaleRows<F8E4m3> {
  static constexpr int value = kF8ScaleRows;
};

static TANDEM_DEVICE Runs adjacent_runs(int64_t piece) { return {32 * piece, 32 * piece + 16}; }

static TANDEM_DEVICE uint32_t word_of(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

// Byte i of 16.
static TANDEM_DEVICE uint32_t byte_of(const uint4& v, int i) { return word_of(v, i >> 2) >> (8 * (i & 3)) & 255; }

static TANDEM_DEVICE float load_half(const uint8_t* at) {
  check_aligned(at, 2);
  return half_float(*reinterpret_cast<const uint16_t*>(at));
}

// --- plain floats ------------------------------------------------------------------------------------------------------
// Columns are any number and rows are aligned to nothing: what lies past the end is 0.

static TANDEM_DEVICE float float_at(const F32* row, int64_t i) { return bits_float(load_u32(row[i].bits)); }
static TANDEM_DEVICE float float_at(const F16* row, int64_t i) { return half_float(load_u16(row[i].bits)); }
static TANDEM_DEVICE float float_at(const Bf16* row, int64_t i) { return bf16_to_f32(load_u16(row[i].bits)); }
static TANDEM_DEVICE float float_at(const F8E4m3* row, int64_t i) { return e4m3_to_f32(row[i].bits); }

// The values in 16 bytes.
static TANDEM_DEVICE void unpack(const F32*, const uint4& v, float* w) {
  for (int i = 0; i < 4; i++) w[i] = bits_float(word_of(v, i));
}
static TANDEM_DEVICE void unpack(const F16*, const uint4& v, float* w) {
  for (int i = 0; i < 8; i++) w[i] = half_float(static_cast<uint16_t>(word_of(v, i >> 1) >> (16 * (i & 1))));
}
static TANDEM_DEVICE void unpack(const Bf16*, const uint4& v, float* w) {
  for (int i = 0; i < 8; i++) w[i] = bits_float(i & 1 ? word_of(v, i >> 1) & 0xffff0000u : word_of(v, i >> 1) << 16);
}
static TANDEM_DEVICE void unpack(const F8E4m3*, const uint4& v, float* w) {
  for (int i = 0; i < 16; i++) w[i] = e4m3_to_f32(static_cast<uint8_t>(byte_of(v, i)));
}

template <typename T>
struct FloatPiece {
  static constexpr int kWeights = 1;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t k, float* w) {
    const T* values = reinterpret_cast<const T*>(row) + 32 * piece;
    const int64_t left = k - 32 * piece;
    if (left >= 32 && aligned(values, 16)) {
      constexpr int kPerLoad = 16 / sizeof(T);
      TANDEM_UNROLL
      for (int i = 0; i < 32; i += kPerLoad) unpack(values, load_16<16>(reinterpret_cast<const uint8_t*>(values + i)), w + i);
    } else {
      TANDEM_UNROLL
      for (int i = 0; i < 32; i++) w[i] = i < left ? float_at(values, i) : 0.0f;
    }
  }
};

template <>
struct Piece<F32> : FloatPiece<F32> {};
template <>
struct Piece<F16> : FloatPiece<F16> {};
template <>
struct Piece<Bf16> : FloatPiece<Bf16> {};

// One f32 scale per 128 columns, so one a piece; it is aligned to nothing.
template <>
struct Piece<F8E4m3> : FloatPiece<F8E4m3> {
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t* scales, int64_t piece, int64_t k, float* w) {
    FloatPiece<F8E4m3>::decode(row, scales, piece, k, w);
    const float scale = bits_float(load_u32(scales + 4 * (piece / (kF8ScaleColumns / 32))));
    TANDEM_UNROLL
    for (int i = 0; i < 32; i++) w[i] *= scale;
  }
};

// --- blocks of 32 ------------------------------------------------------------------------------------------------------

// Sixteen bytes of nibbles: low ones are the first run, high ones the second. value(q, i): code q of weight i.
template <typename Value>
static TANDEM_DEVICE void nibbles(const uint4& codes, float* w, Value value) {
  TANDEM_UNROLL
  for (int i = 0; i < 16; i++) {
    const uint32_t pair = byte_of(codes, i);
    w[i] = value(pair & 15, i);
    w[16 + i] = value(pair >> 4, 16 + i);
  }
}

template <>
struct Piece<BlockQ8_0> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ8_0));
    const float d = load_half(block);
    const uint4 low = load_16<2>(block + 2), high = load_16<2>(block + 18);
    TANDEM_UNROLL
    for (int i = 0; i < 16; i++) {
      w[i] = d * signed_float(byte_of(low, i));
      w[16 + i] = d * signed_float(byte_of(high, i));
    }
  }
};

template <>
struct Piece<BlockQ4_0> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ4_0));
    const float d = load_half(block);
    nibbles(load_16<2>(block + 2), w, [&](uint32_t q, int) { return d * (small_float(q) - 8.0f); });
  }
};

template <>
struct Piece<BlockQ4_1> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ4_1));
    const float d = load_half(block), m = load_half(block + 2);
    nibbles(load_16<4>(block + 4), w, [&](uint32_t q, int) { return rounded_product(d, small_float(q)) + m; });
  }
};

template <>
struct Piece<BlockQ5_0> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ5_0));
    const float d = load_half(block);
    const uint16_t* halves = reinterpret_cast<const uint16_t*>(block + 2);
    const uint32_t fifth = halves[0] | static_cast<uint32_t>(halves[1]) << 16;
    nibbles(load_16<2>(block + 6), w, [&](uint32_t q, int i) { return d * (small_float(q | (fifth >> i & 1) << 4) - 16.0f); });
  }
};

template <>
struct Piece<BlockQ5_1> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockQ5_1));
    const float d = load_half(block), m = load_half(block + 2);
    const uint32_t fifth = *reinterpret_cast<const uint32_t*>(block + 4);
    nibbles(load_16<8>(block + 8), w, [&](uint32_t q, int i) { return rounded_product(d, small_float(q | (fifth >> i & 1) << 4)) + m; });
  }
};

// Sixteen int8 of a table by four codes at once (one a byte).
static TANDEM_DEVICE uint32_t table_bytes(uint32_t codes, uint32_t t0, uint32_t t1, uint32_t t2, uint32_t t3) {
  uint32_t selector = (codes | codes >> 4) & 0x00ff00ffu;
  selector = (selector | selector >> 8) & 0x7777u;
  const uint32_t upper = (codes >> 3 & 0x01010101u) * 255u;
  return (byte_permute(t0, t1, selector) & ~upper) | (byte_permute(t2, t3, selector) & upper);
}

// Sixteen bytes of nibbles through the levels of iq4_nl and iq4_xs, times a scale.
static TANDEM_DEVICE void iq4_levels(const uint4& codes, float scale, float* w) {
  TANDEM_UNROLL
  for (int i = 0; i < 4; i++) {
    const uint32_t four = word_of(codes, i);
    // -127 -104 -83 -65 | -49 -35 -22 -10 | 1 13 25 38 | 53 69 89 113
    const uint32_t low = table_bytes(four & 0x0f0f0f0fu, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
    const uint32_t high = table_bytes(four >> 4 & 0x0f0f0f0fu, 0xbfad9881u, 0xf6eaddcfu, 0x26190d01u, 0x71594535u);
    TANDEM_UNROLL
    for (int j = 0; j < 4; j++) {
      w[4 * i + j] = scale * signed_float(low >> (8 * j));
      w[16 + 4 * i + j] = scale * signed_float(high >> (8 * j));
    }
  }
}

template <>
struct Piece<BlockIq4Nl> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockIq4Nl));
    iq4_levels(load_16<2>(block + 2), load_half(block), w);
  }
};

// Four e2m1 codes to their levels doubled: 0 1 2 3 | 4 6 8 12 | 0 -1 -2 -3 | -4 -6 -8 -12.
static TANDEM_DEVICE uint32_t mxfp4_doubled(uint32_t codes) { return table_bytes(codes, 0x03020100u, 0x0c080604u, 0xfdfeff00u, 0xf4f8fafcu); }

template <>
struct Piece<BlockMxfp4> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + piece * static_cast<int64_t>(sizeof(BlockMxfp4));
    const float half_scale = e8m0_to_f32(block[0]) * 0.5f;  // exact, also where the scale is subnormal
    const uint4 codes = load_16<1>(block + 1);
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) {
      const uint32_t low = mxfp4_doubled(word_of(codes, i) & 0x0f0f0f0fu), high = mxfp4_doubled(word_of(codes, i) >> 4 & 0x0f0f0f0fu);
      TANDEM_UNROLL
      for (int j = 0; j < 4; j++) {
        w[4 * i + j] = half_scale * signed_float(low >> (8 * j));
        w[16 + 4 * i + j] = half_scale * signed_float(high >> (8 * j));
      }
    }
  }
};

// Weight 2i in the low nibble of byte i; the scales are apart.
template <>
struct Piece<BlockMxfp4G32> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t* scales, int64_t piece, int64_t, float* w) {
    const float half_scale = e8m0_to_f32(scales[piece]) * 0.5f;
    const uint4 codes = load_16<16>(row + 16 * piece);
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) {
      const uint32_t low = mxfp4_doubled(word_of(codes, i) & 0x0f0f0f0fu), high = mxfp4_doubled(word_of(codes, i) >> 4 & 0x0f0f0f0fu);
      TANDEM_UNROLL
      for (int j = 0; j < 4; j++) {
        w[8 * i + 2 * j] = half_scale * signed_float(low >> (8 * j));
        w[8 * i + 2 * j + 1] = half_scale * signed_float(high >> (8 * j));
      }
    }
  }
};

template <>
struct Piece<BlockInt4G32> {
  static constexpr int kWeights = 32;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t* scales, int64_t piece, int64_t, float* w) {
    const float scale = bf16_to_f32(load_u16(scales + 2 * piece));
    const uint4 codes = load_16<16>(row + 16 * piece);
    TANDEM_UNROLL
    for (int i = 0; i < 32; i++) w[i] = scale * (small_float(byte_of(codes, i >> 1) >> (4 * (i & 1)) & 15) - 8.0f);
  }
};

// --- blocks of 256 -----------------------------------------------------------------------------------------------------

// Piece p of a block of q4_k or q5_k: half h = p & 1 of the 32 bytes of pair g = p >> 1, which hold sub-blocks 2g and 2g + 1.
static TANDEM_DEVICE Runs pair_runs(int64_t piece) {
  const int64_t first = 256 * (piece >> 3) + 64 * (piece >> 1 & 3) + 16 * (piece & 1);
  return {first, first + 32};
}

// scale and min of sub-block j, from the twelve bytes as words (quant/k_scales.h).
static TANDEM_DEVICE void k_scale_min(uint32_t s0, uint32_t s1, uint32_t s2, int j, float d, float dmin, float& scale, float& min) {
  const int shift = 8 * (j & 3);
  uint32_t a, b;
  if (j < 4) {
    a = s0 >> shift & 63;
    b = s1 >> shift & 63;
  } else {
    a = (s2 >> shift & 15) | (s0 >> (shift + 6) & 3) << 4;
    b = (s2 >> (shift + 4) & 15) | (s1 >> (shift + 6) & 3) << 4;
  }
  scale = d * small_float(a);
  min = dmin * small_float(b);
}

struct PairScales {
  float scale[2], min[2];
};

// d, dmin and the scales are the first 16 bytes of a block: one load.
static TANDEM_DEVICE PairScales pair_scales(const uint8_t* block, int pair) {
  const uint4 head = load_16<16>(block);
  const float d = half_float(static_cast<uint16_t>(head.x)), dmin = half_float(static_cast<uint16_t>(head.x >> 16));
  PairScales scales;
  k_scale_min(head.y, head.z, head.w, 2 * pair, d, dmin, scales.scale[0], scales.min[0]);
  k_scale_min(head.y, head.z, head.w, 2 * pair + 1, d, dmin, scales.scale[1], scales.min[1]);
  return scales;
}

template <>
struct Piece<BlockQ4K> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return pair_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockQ4K));
    const int part = static_cast<int>(piece & 7);
    const PairScales s = pair_scales(block, part >> 1);
    nibbles(load_16<16>(block + 16 + 16 * part), w, [&](uint32_t q, int i) { return rounded_product(s.scale[i >> 4], small_float(q)) - s.min[i >> 4]; });
  }
};

template <>
struct Piece<BlockQ5K> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return pair_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockQ5K));
    const int part = static_cast<int>(piece & 7);
    const PairScales s = pair_scales(block, part >> 1);
    const uint4 high = load_16<16>(block + 16 + 16 * (part & 1));
    const int bit = part & 6;
    nibbles(load_16<16>(block + 48 + 16 * part), w, [&](uint32_t q, int i) {
      const uint32_t fifth = byte_of(high, i & 15) >> (bit + (i >> 4)) & 1;
      return rounded_product(s.scale[i >> 4], small_float(q | fifth << 4)) - s.min[i >> 4];
    });
  }
};

// Piece p of a block of q6_k: half p >> 2, runs a = p >> 1 & 1 and a + 2 of it, their 16 weights p & 1.
template <>
struct Piece<BlockQ6K> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) {
    const int64_t first = 256 * (piece >> 3) + 128 * (piece >> 2 & 1) + 32 * (piece >> 1 & 1) + 16 * (piece & 1);
    return {first, first + 64};
  }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockQ6K));
    const int half = static_cast<int>(piece >> 2 & 1), run = static_cast<int>(piece >> 1 & 1), part = static_cast<int>(piece & 1);
    const uint4 high = load_16<2>(block + 128 + 32 * half + 16 * part);
    const uint8_t* scales = block + 192 + 8 * half + 2 * run + part;
    const float d = load_half(block + 208);
    const float scale[2] = {d * signed_float(scales[0]), d * signed_float(scales[4])};
    nibbles(load_16<2>(block + 64 * half + 32 * run + 16 * part), w, [&](uint32_t q, int i) {
      const uint32_t upper = byte_of(high, i & 15) >> (2 * run + (i >> 4) * 4) & 3;
      return scale[i >> 4] * (small_float(q | upper << 4) - 32.0f);
    });
  }
};

template <>
struct Piece<BlockIq4Xs> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockIq4Xs));
    const int part = static_cast<int>(piece & 7);
    check_aligned(block, 8);
    const uint2 head = *reinterpret_cast<const uint2*>(block);  // d, high scales | low scales
    const uint32_t six = (head.y >> (4 * part) & 15) | (head.x >> (16 + 2 * part) & 3) << 4;
    const float scale = half_float(static_cast<uint16_t>(head.x)) * (small_float(six) - 32.0f);
    iq4_levels(load_16<8>(block + 8 + 16 * part), scale, w);
  }
};

}  // namespace tandem::cuda
