// Codes of the formats of two and three bits: q2_k, q3_k, and those with code books (pieces_codebooks.cuh).
#pragma once

#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/pieces_codebooks.cuh"

namespace tandem::cuda {

// Formats of 256 weights whose runs of 16 have scales of their own, and those where 32 share one.
struct RunCodes {
  static constexpr int kParts = 1, kScaleRun = 16, kScalePieces = 1;
  static constexpr bool kScaled = true, kMinimum = false, kScalesApart = false;
};

template <>
struct Codes<BlockQ2K> : RunCodes {
  static constexpr bool kMinimum = true;
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* codes = block_of<BlockQ2K>(row, piece) + 16 + 32 * (piece >> 2 & 1) + 4 * q;
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) {
      const uint32_t bytes = load_word(codes + 16 * run, 4) >> (2 * (piece & 3));
      words[0][2 * run] = small_codes<0>(and_or(bytes, 0x00030003u, k128));
      words[0][2 * run + 1] = small_codes<0>(and_or(bytes >> 8, 0x00030003u, k128));
    }
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int run) {
    const uint8_t* block = block_of<BlockQ2K>(row, piece);
    const uint32_t packed = block[2 * (piece & 7) + run];
    return {load_half(block + 80) * small_float(packed & 15), load_half(block + 82) * small_float(packed >> 4)};
  }
};

template <>
struct Codes<BlockQ3K> : RunCodes {
  static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {
    const uint8_t* block = block_of<BlockQ3K>(row, piece) + 4 * q;
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) {
      const uint32_t bytes = load_word(block + 32 + 32 * (piece >> 2 & 1) + 16 * run, 2) >> (2 * (piece & 3)), third = load_word(block + 16 * run, 2) >> (piece & 7);
      words[0][2 * run] = small_codes<4>(and_or(third << 2, 0x00040004u, and_or(bytes, 0x00030003u, k128)));
      words[0][2 * run + 1] = small_codes<4>(and_or(third >> 6, 0x00040004u, and_or(bytes >> 8, 0x00030003u, k128)));
    }
  }
  static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, int run) {
    const uint8_t* block = block_of<BlockQ3K>(row, piece);
    return {load_half(block + 108) * static_cast<float>(q3_k_scale(*reinterpret_cast<const BlockQ3K*>(block), static_cast<int>(2 * (piece & 7) + run))), 0};
  }
};

// --- code books -----------------------------------------------------------------------------------------------------------
// A sub-block of 32 is four times eight weights; of run r lane q has half q & 1 of eight number 2r + (q >> 1).

static TANDEM_DEVICE uint32_t half_row(uint64_t row, int q) { return static_cast<uint32_t>(q & 1 ? row >> 32 : row); }

// Four levels, negative where the eight signs of both halves say so.
static TANDEM_DEVICE void level_words(uint32_t levels, uint32_t signs, int q, uint32_t* words) {
  const uint32_t own = signs >> (4 * (q & 1));
  words[0] = small_codes<0>(and_or(levels, 0x007f007fu, k128)) ^ and_or(own << 29, 0x80000000u, own << 15 & 0x8000u);
  words[1] = small_codes<0>(and_or(levels >> 8, 0x007f007fu, k128)) ^ and_or(own << 28, 0x80000000u, own << 14 & 0x8000u);
}

// Four levels of −1, 0, 1, plus or minus 1/8.
static TANDEM_DEVICE void shifted_words(uint32_t levels, bool minus, uint32_t* words) {
  const uint32_t delta = minus ? 0xbe00be00u : 0x3e003e00u;
  words[0] = add_bf16x2(signed_codes(levels), delta);
  words[1] = add_bf16x2(signed_codes(levels >> 8), delta);
}

// words_of(block, sub-block, eight, q, words): one run of the piece.
template <typename Block, typename Run>
static TANDEM_DEVICE void both_runs(const uint8_t* row, int64_t piece, int q, uint32_t* words, Run words_of) {
  const Block& block = reinterpret_cast<const Block*>(row)[piece >> 3];
  TANDEM_UNROLL
  for (int run = 0; run < 2; run++) words_of(block, static_cast<int>(piece & 7), 2 * run + (q >> 1), words + 2 * run);
}

#define TANDEM_CUDA_CODES_OF_BOOKS(Type, Shared, Scale, ...)                                                                 \
  template <>                                                                                                                \
  struct Codes<Type> : Shared {                                                                                              \
    static TANDEM_DEVICE void words(const uint8_t* row, int64_t piece, int q, int64_t, uint32_t (&words)[1][4]) {            \
      both_runs<Type>(row, piece, q, words[0], [q](const Type& block, int s, int l, uint32_t* out) { __VA_ARGS__ });         \
    }                                                                                                                        \
    static TANDEM_DEVICE RunScale scale(const uint8_t* row, const uint8_t*, int64_t piece, [[maybe_unused]] int run) {       \
      const Type& block = reinterpret_cast<const Type*>(row)[piece >> 3];                                                    \
      const int s = static_cast<int>(piece & 7);                                                                             \
      return {Scale, 0};                                                                                                     \
    }                                                                                                                        \
  };

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq3Xxs, BlockCodes, odd_scale(block.d, load_u32(block.packed[s]) >> 28, 0.25f),
                           level_words(iq3_xxs_row(block.rows[8 * s + 2 * l + (q & 1)]), even_signs(load_u32(block.packed[s]) >> (7 * l) & 127), q, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq3S, BlockCodes, odd_scale(block.d, block.scales[s >> 1] >> (4 * (s & 1)) & 15, 1.0f),
                           const int low = 8 * s + 2 * l + (q & 1); const int high = block.high_rows[s] >> (2 * l + (q & 1)) & 1;
                           level_words(iq3_s_row(block.low_rows[low] | high << 8), block.signs[4 * s + l], q, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq2Xxs, BlockCodes, odd_scale(block.d, load_u32(block.subs[s].packed) >> 28, 0.125f),
                           level_words(half_row(iq2_xxs_row(block.subs[s].rows[l]), q), even_signs(load_u32(block.subs[s].packed) >> (7 * l) & 127), q, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq2Xs, RunCodes, odd_scale(block.d, block.scales[s] >> (4 * run) & 15, 0.125f), const uint32_t code = load_u16(block.codes[4 * s + l]);
                           level_words(half_row(iq2_xs_row(static_cast<int>(code & 511)), q), even_signs(code >> 9), q, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq2S, RunCodes, odd_scale(block.d, block.scales[s] >> (4 * run) & 15, 0.125f), const int high = block.high_rows[s] >> (2 * l) & 3;
                           level_words(half_row(iq2_s_row(block.low_rows[4 * s + l] | high << 8), q), block.signs[4 * s + l], q, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq1S, BlockCodes, odd_scale(block.d, load_u16(block.packed[s]) >> 12 & 7, 1.0f), const uint32_t packed = load_u16(block.packed[s]);
                           shifted_words(half_row(iq1_s_row(block.low_rows[4 * s + l] | (packed >> (3 * l) & 7) << 8), q), packed >> 15, out);)

TANDEM_CUDA_CODES_OF_BOOKS(BlockIq1M, RunCodes, half_float(iq1_m_half(block)) * small_float(2 * (load_u16(block.scales[s >> 1]) >> (3 * ((2 * s + run) & 3)) & 7) + 1),
                           const int high = block.high_rows[2 * s + (l >> 1)] >> (4 * (l & 1));
                           shifted_words(half_row(iq1_s_row(block.low_rows[4 * s + l] | (high & 7) << 8), q), high & 8, out);)

#undef TANDEM_CUDA_CODES_OF_BOOKS

}  // namespace tandem::cuda
