// Pieces of the formats of two and three bits: q2_k, q3_k, and those with code books (quant/grids.h), whose rows are read from a
// table in device memory, through the first-level cache. Blocks are no multiple of 16 bytes: codes come two bytes or one at a time.
#pragma once

#include "cuda/kernels/pieces.cuh"
#include "quant/iq1_m.h"
#include "quant/iq1_s.h"
#include "quant/iq2_s.h"
#include "quant/iq2_xs.h"
#include "quant/iq2_xxs.h"
#include "quant/iq3_s.h"
#include "quant/iq3_xxs.h"
#include "quant/q2_k.h"
#include "quant/q3_k.h"

namespace tandem::cuda {

// Weights of q2_k and q3_k lie 32 bytes to 128: piece p of a block has the bits 2j, 2j + 1 (j = p & 3) of half p >> 2, so sub-blocks
// 2p and 2p + 1.
template <>
struct Piece<BlockQ2K> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockQ2K));
    const int part = static_cast<int>(piece & 7), shift = 2 * (part & 3);
    const float d = load_half(block + 80), dmin = load_half(block + 82);
    TANDEM_UNROLL
    for (int s = 0; s < 2; s++) {
      const uint32_t packed = block[2 * part + s];
      const float scale = d * small_float(packed & 15), min = dmin * small_float(packed >> 4);
      const uint4 codes = load_16<4>(block + 16 + 32 * (part >> 2) + 16 * s);
      TANDEM_UNROLL
      for (int i = 0; i < 16; i++) w[16 * s + i] = rounded_product(scale, small_float(byte_of(codes, i) >> shift & 3)) - min;
    }
  }
};

template <>
struct Piece<BlockQ3K> {
  static constexpr int kWeights = 256;
  static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }
  static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {
    const uint8_t* block = row + (piece >> 3) * static_cast<int64_t>(sizeof(BlockQ3K));
    const int part = static_cast<int>(piece & 7), shift = 2 * (part & 3);
    const float d = load_half(block + 108);
    TANDEM_UNROLL
    for (int s = 0; s < 2; s++) {
      const float scale = d * static_cast<float>(q3_k_scale(*reinterpret_cast<const BlockQ3K*>(block), 2 * part + s));
      const uint4 mask = load_16<2>(block + 16 * s), codes = load_16<2>(block + 32 + 32 * (part >> 2) + 16 * s);
      TANDEM_UNROLL
      for (int i = 0; i < 16; i++) {
        const uint32_t third = byte_of(mask, i) >> part & 1;
        w[16 * s + i] = scale * (small_float((byte_of(codes, i) >> shift & 3) | third << 2) - 4.0f);
      }
    }
  }
};

// A piece is a sub-block of 32, four times eight weights. eight(block, scale of d, sub-block, group, w) decodes one of the four.
template <typename Block, typename Eight>
static TANDEM_DEVICE void decode_eights(const uint8_t* row, int64_t piece, float* w, Eight eight) {
  const Block& block = reinterpret_cast<const Block*>(row)[piece >> 3];
  TANDEM_UNROLL
  for (int l = 0; l < 4; l++) eight(block, static_cast<int>(piece & 7), l, w + 8 * l);
}

#define TANDEM_CUDA_PIECE_OF_EIGHTS(Type, ...)                                                                \
  template <>                                                                                                 \
  struct Piece<Type> {                                                                                        \
    static constexpr int kWeights = 256;                                                                      \
    static TANDEM_DEVICE Runs runs(int64_t piece) { return adjacent_runs(piece); }                            \
    static TANDEM_DEVICE void decode(const uint8_t* row, const uint8_t*, int64_t piece, int64_t, float* w) {  \
      decode_eights<Type>(row, piece, w, [](const Type& block, int s, int l, float* out) { __VA_ARGS__ });    \
    }                                                                                                         \
  };

// 2n + 1, times d, times a power of two.
static TANDEM_DEVICE float odd_scale(const uint8_t* d, uint32_t n, float unit) { return load_half(d) * (small_float(2 * n + 1) * unit); }

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq3Xxs, const uint32_t packed = load_u32(block.packed[s]); const uint8_t* rows = block.rows + 8 * s + 2 * l;
                            const uint64_t levels = iq3_xxs_row(rows[0]) | static_cast<uint64_t>(iq3_xxs_row(rows[1])) << 32;
                            decode_signed(levels, even_signs(packed >> (7 * l) & 127), odd_scale(block.d, packed >> 28, 0.25f), out);)

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq3S, const uint8_t* low = block.low_rows + 8 * s + 2 * l; const int high = block.high_rows[s] >> (2 * l);
                            const uint64_t levels = iq3_s_row(low[0] | (high & 1) << 8) | static_cast<uint64_t>(iq3_s_row(low[1] | (high >> 1 & 1) << 8)) << 32;
                            decode_signed(levels, block.signs[4 * s + l], odd_scale(block.d, block.scales[s >> 1] >> (4 * (s & 1)) & 15, 1.0f), out);)

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq2Xxs, const auto& sub = block.subs[s]; const uint32_t packed = load_u32(sub.packed);
                            decode_signed(iq2_xxs_row(sub.rows[l]), even_signs(packed >> (7 * l) & 127), odd_scale(block.d, packed >> 28, 0.125f), out);)

// Their scales are those of 16 weights.
TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq2Xs, const uint32_t code = load_u16(block.codes[4 * s + l]); const uint32_t scale = block.scales[s] >> (4 * (l >> 1)) & 15;
                            decode_signed(iq2_xs_row(static_cast<int>(code & 511)), even_signs(code >> 9), odd_scale(block.d, scale, 0.125f), out);)

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq2S, const int high = block.high_rows[s] >> (2 * l) & 3; const uint32_t scale = block.scales[s] >> (4 * (l >> 1)) & 15;
                            decode_signed(iq2_s_row(block.low_rows[4 * s + l] | high << 8), block.signs[4 * s + l], odd_scale(block.d, scale, 0.125f), out);)

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq1S, const uint32_t packed = load_u16(block.packed[s]); const int high = static_cast<int>(packed >> (3 * l) & 7);
                            decode_shifted(iq1_s_row(block.low_rows[4 * s + l] | high << 8), packed & 0x8000 ? -0.125f : 0.125f, odd_scale(block.d, packed >> 12 & 7, 1.0f), out);)

TANDEM_CUDA_PIECE_OF_EIGHTS(BlockIq1M, const int high = block.high_rows[2 * s + (l >> 1)] >> (4 * (l & 1)); const int sub = 2 * s + (l >> 1);
                            const float scale = half_float(iq1_m_half(block)) * small_float(2 * (load_u16(block.scales[sub >> 2]) >> (3 * (sub & 3)) & 7) + 1);
                            decode_shifted(iq1_s_row(block.low_rows[4 * s + l] | (high & 7) << 8), high & 8 ? -0.125f : 0.125f, scale, out);)

#undef TANDEM_CUDA_PIECE_OF_EIGHTS

}  // namespace tandem::cuda
