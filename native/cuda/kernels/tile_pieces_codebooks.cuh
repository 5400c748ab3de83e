// Tile pieces of the formats with code books: an eight is a row of the book, or two of four, looked up when it is wanted (pieces_codebooks.cuh
// has the bits).
#pragma once

#include "cuda/kernels/tile_pieces.cuh"

namespace tandem::cuda {

// Levels up to 127, negative where a sign is set, to bytes of 128 plus them.
static TANDEM_DEVICE void pack_levels(uint64_t levels, uint32_t signs, float scale, uint32_t (&words)[4]) {
  TANDEM_UNROLL
  for (int c = 0; c < 2; c++) {
    const uint32_t ones = (signs >> (4 * c) & 15) * 0x00204081u & 0x01010101u;
    pack_scaled((static_cast<uint32_t>(levels >> (32 * c)) ^ 0x80808080u ^ ones * 255) + ones, scale, 128, words + 2 * c);
  }
}

// Levels −1, 0, 1 and an eighth more or less, in eighths.
static TANDEM_DEVICE void pack_shifted_levels(uint64_t levels, bool less, float scale, uint32_t (&words)[4]) {
  TANDEM_UNROLL
  for (int c = 0; c < 2; c++) {
    const uint32_t eighths = (static_cast<uint32_t>(levels >> (32 * c)) << 3 & 0xf8f8f8f8u) ^ 0x80808080u;
    pack_scaled(less ? eighths - 0x01010101u : eighths + 0x01010101u, 0.125f * scale, 128, words + 2 * c);
  }
}

// Piece `s` of a block, eight `l` of it.
#define TANDEM_CUDA_TILE_PIECE_OF_BOOKS(Type, ...)                                                                           \
  template <>                                                                                                                \
  struct TilePiece<Type> {                                                                                                   \
    const uint8_t* row = nullptr;                                                                                            \
    int64_t piece = 0;                                                                                                       \
    TANDEM_DEVICE void fetch(const uint8_t* row_, const uint8_t*, int64_t step, int lane, int64_t k, int j) {                \
      if (j != 0) return;                                                                                                    \
      row = row_, piece = 4 * step + lane;                                                                                   \
      if (32 * piece >= k) piece = 0; /* 256 divides k: there is no such piece to multiply */                                \
      fetch_ahead<Type>(row, piece, k / 32);                                                                                 \
    }                                                                                                                        \
    TANDEM_DEVICE void eight(int l, uint32_t (&words)[4]) const {                                                            \
      const Type& block = reinterpret_cast<const Type*>(row)[piece >> 3];                                                    \
      const int s = static_cast<int>(piece & 7);                                                                             \
      __VA_ARGS__                                                                                                            \
    }                                                                                                                        \
  };

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq3Xxs, const uint32_t packed = load_u32(block.packed[s]); const uint8_t* rows = block.rows + 8 * s + 2 * l;
                                const uint64_t levels = iq3_xxs_row(rows[0]) | static_cast<uint64_t>(iq3_xxs_row(rows[1])) << 32;
                                pack_levels(levels, even_signs(packed >> (7 * l) & 127), odd_scale(block.d, packed >> 28, 0.25f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq3S, const uint8_t* low = block.low_rows + 8 * s + 2 * l; const int high = block.high_rows[s] >> (2 * l);
                                const uint64_t levels = iq3_s_row(low[0] | (high & 1) << 8) | static_cast<uint64_t>(iq3_s_row(low[1] | (high >> 1 & 1) << 8)) << 32;
                                pack_levels(levels, block.signs[4 * s + l], odd_scale(block.d, block.scales[s >> 1] >> (4 * (s & 1)) & 15, 1.0f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq2Xxs, const auto& sub = block.subs[s]; const uint32_t packed = load_u32(sub.packed);
                                pack_levels(iq2_xxs_row(sub.rows[l]), even_signs(packed >> (7 * l) & 127), odd_scale(block.d, packed >> 28, 0.125f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq2Xs, const uint32_t code = load_u16(block.codes[4 * s + l]); const uint32_t scale = block.scales[s] >> (4 * (l >> 1)) & 15;
                                pack_levels(iq2_xs_row(static_cast<int>(code & 511)), even_signs(code >> 9), odd_scale(block.d, scale, 0.125f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq2S, const int high = block.high_rows[s] >> (2 * l) & 3; const uint32_t scale = block.scales[s] >> (4 * (l >> 1)) & 15;
                                pack_levels(iq2_s_row(block.low_rows[4 * s + l] | high << 8), block.signs[4 * s + l], odd_scale(block.d, scale, 0.125f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq1S, const uint32_t packed = load_u16(block.packed[s]); const int high = static_cast<int>(packed >> (3 * l) & 7);
                                pack_shifted_levels(iq1_s_row(block.low_rows[4 * s + l] | high << 8), packed & 0x8000, odd_scale(block.d, packed >> 12 & 7, 1.0f), words);)

TANDEM_CUDA_TILE_PIECE_OF_BOOKS(BlockIq1M, const int high = block.high_rows[2 * s + (l >> 1)] >> (4 * (l & 1)); const int sub = 2 * s + (l >> 1);
                                const float scale = half_float(iq1_m_half(block)) * small_float(2 * (load_u16(block.scales[sub >> 2]) >> (3 * (sub & 3)) & 7) + 1);
                                pack_shifted_levels(iq1_s_row(block.low_rows[4 * s + l] | (high & 7) << 8), high & 8, scale, words);)

#undef TANDEM_CUDA_TILE_PIECE_OF_BOOKS

}  // namespace tandem::cuda
