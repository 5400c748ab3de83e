// Codes of every weight format for tensor cores: rounded_product(scale, code) − minimum has the bits of the decoder, for any bytes.
#include "cuda/kernels/codes_codebooks.cuh"
#include "test/cuda_kernels_weights.h"

namespace tandem::test {

using namespace tandem::cuda;

// Parts of an f32 begin where bf16 ends: below 2^-109 the last bits are lost.
static bool same_number(float a, float b, float lost = 0) { return a == b || std::abs(a - b) <= lost || (std::isnan(a) && std::isnan(b)); }

template <typename Block>
static void check_codes(const char* format, int64_t k) {
  using C = Codes<Block>;
  Random random(static_cast<uint64_t>(k));
  const Weights w(format, 3, k, random, true);
  const WeightMatrix matrix = w.matrix();
  for (int64_t r = 0; r < w.n; r++) {
    const uint8_t* row = matrix.data + r * matrix.row_bytes;
    const uint8_t* scales = matrix.scales == nullptr ? nullptr : matrix.scales + r / ScaleRows<Block>::value * matrix.scale_stride;
    for (int64_t piece = 0; piece < (k + 31) / 32; piece++) {
      const Runs at = Piece<Block>::runs(piece);
      for (int q = 0; q < 4; q++) {
        uint32_t words[C::kParts][4];
        RunScale of_runs[2];
        C::words(row, piece, q, k - 32 * piece, words);
        for (int run = 0; run < 2; run++) of_runs[run] = C::scale(row, scales, piece, C::kScaleRun == 32 ? 0 : run);
        if (k % 32 == 0 && reinterpret_cast<uintptr_t>(row) % 16 == 0) {
          uint32_t whole[C::kParts][4];
          C::words(row, piece, q, kWholeRow, whole);
          EXPECT_THAT(std::memcmp(whole, words, sizeof words) == 0, std::string(format) + ": the words of whole rows are the same");
        }
        const RunScale first = C::scale(row, scales, piece / C::kScalePieces * C::kScalePieces, 0);
        EXPECT_THAT(same_number(first.scale, of_runs[0].scale), std::string(format) + ": pieces that follow each other share their scales");
        for (int i = 0; i < 8; i++) {
          // Weight 4q + i of its run: pairs are the first and third, the second and fourth.
          const int run = i >> 2, own = i & 3, word = 2 * run + (own & 1);
          float code = 0;
          for (int p = C::kParts - 1; p >= 0; p--) code += quant::bf16_to_f32(static_cast<uint16_t>(words[p][word] >> (own & 2 ? 16 : 0)));
          const int64_t column = (run == 0 ? at.first : at.second) + 4 * q + own;
          const float value = rounded_product(of_runs[run].scale, code) - of_runs[run].minimum;
          const std::string place = std::string(format) + " row " + std::to_string(r) + " column " + std::to_string(column);
          if (column >= k) EXPECT_THAT(code == 0, place + " does not exist");
          else EXPECT_THAT(same_number(value, w.values[static_cast<size_t>(r * k + column)], C::kParts == 3 ? 0x1p-133f : 0), place + ": " + std::to_string(value));
          EXPECT_THAT(C::kMinimum || of_runs[run].minimum == 0, place + " has no minimum");
        }
      }
    }
  }
}

TEST(cuda_codes_of_every_format) {
#define CHECK_CODES(X, format, Block) check_codes<Block>(#format, 1536);
  TANDEM_CUDA_FORMATS(CHECK_CODES, 0)
#undef CHECK_CODES
}

TEST(cuda_codes_at_the_edges) {
  for (int64_t k : {1, 31, 33, 66, 127}) {
    check_codes<F32>("f32", k);
    check_codes<F16>("f16", k);
    check_codes<Bf16>("bf16", k);
    check_codes<F8E4m3>("f8_e4m3", k);
  }
}

}  // namespace tandem::test
