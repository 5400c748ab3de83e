// Products of a matrix with one to eight vectors, bound by the bytes of the matrix: linear for few rows, visits of experts.
//
// A warp takes sixteen rows of the matrix, the left operand of tensor cores, and every so-manyth span of their columns. The bytes of a
// span come to shared memory as they are, a few spans ahead; codes go to the product unscaled, exact in bf16, and x goes there in three
// parts that lose nothing (fragments.cuh). Each run of one scale begins at zero, is multiplied by the scale of its row in f32, and
// joins the sums: so x is not rounded, weights are those of the format, sums are f32. Minima meet the sums of x over their run,
// which a product with ones gives in the same places. The order of sums is one of the columns alone.
#pragma once

#include <type_traits>

#include "cuda/kernels/codes_codebooks.cuh"
#include "cuda/kernels/fragments.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/rows_layout.h"
#include "cuda/kernels/shared.cuh"

namespace tandem::cuda {

template <typename Block>
struct RowsFormat {
  static constexpr RowsLayout kLayout = rows_layout(Piece<Block>::kWeights, static_cast<int>(sizeof(Block)));
  static constexpr int kPieces = kLayout.columns / 32;
  static constexpr int kRuns = 32 / Codes<Block>::kScaleRun;                                                          // of a piece, with scales of their own
  static constexpr int kGroupPieces = Codes<Block>::kScalePieces < kPieces ? Codes<Block>::kScalePieces : kPieces;    // that share their scales
  static constexpr int kNumbers = kRuns * (Codes<Block>::kMinimum ? 2 : 1);                                           // of a group and row in the table
  static constexpr int kTableGroups = 16 / kNumbers < kPieces / kGroupPieces ? 16 / kNumbers : kPieces / kGroupPieces;  // that the table holds at once
  static constexpr int kTableStride = kTableGroups * kNumbers + kNumbers;
  static_assert(kTableStride <= kRowsTable);
};

// What a warp keeps of its sixteen rows. row(i): row i of the sixteen, scales(i): its scales.
template <typename Block, typename Row, typename Scales>
class RowsTile {
  using Format = RowsFormat<Block>;
  using C = Codes<Block>;
  static constexpr RowsLayout L = Format::kLayout;

 public:
  TANDEM_DEVICE RowsTile(uint8_t* memory, int row_bytes, Row row, Scales scales) : memory_(memory), row_bytes_(row_bytes), scales_(scales) {
    const int lane = threadIdx.x & 31;
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) {
      brought_[h] = row((lane >> 2) + 8 * h);
      shift_[h] = shift_of(brought_[h]);
    }
    scaled_shift_ = shift_of(row(lane & 15));
  }

  // Begins to copy a span: four lanes a row.
  TANDEM_DEVICE void fetch(int span) {
    const int lane = threadIdx.x & 31, first = span * L.bytes, left = row_bytes_ - first < L.bytes ? row_bytes_ - first : L.bytes;
    uint8_t* stage = memory_ + fetched_ * (kRowsTile * L.stride) + (lane >> 2) * L.stride + 16 * (lane & 3);
    fetched_ = fetched_ + 1 == L.stages ? 0 : fetched_ + 1;
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) {
      const int shift = in_chunk(shift_[h] + first), count = left <= 0 ? 0 : left + shift - 16 * (lane & 3);
      const uint8_t* from = brought_[h] + (first - shift) + 16 * (lane & 3);
      TANDEM_UNROLL
      for (int c = 0; c < L.chunks; c += 4) {
        if (16 * c < count) cp_async_part(stage + 8 * h * L.stride + 16 * c, from + 16 * c, count - 16 * c < 16 ? count - 16 * c : 16);
      }
    }
    cp_async_commit();
  }

  // A span that has come, for the whole warp; the one before is free then.
  TANDEM_DEVICE void enter(int span) {
    cp_async_wait<L.stages - 2>();
    __syncwarp();
    const uint8_t* stage = memory_ + entered_ * (kRowsTile * L.stride);
    entered_ = entered_ + 1 == L.stages ? 0 : entered_ + 1;
    const int first = span * L.bytes, g = threadIdx.x >> 2 & 7;
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) at_[h] = stage + (g + 8 * h) * L.stride + in_chunk(shift_[h] + first);
    scaled_ = stage + (threadIdx.x & 15) * L.stride + in_chunk(scaled_shift_ + first);
  }

  // Scales that lie apart come a span ahead, too.
  TANDEM_DEVICE void fetch_scales(int span, int pieces) {
    if constexpr (C::kScalesApart) {
      static_assert(Format::kTableGroups * Format::kGroupPieces == Format::kPieces);
      const uint8_t* apart = scales_(threadIdx.x & 15);
      read_scales([&](int piece, int run) {
        const int whole = span * Format::kPieces + piece;
        return whole < pieces ? C::scale(nullptr, apart, whole, run) : RunScale{};
      });
    }
  }

  // Scales to the table, from piece `first` of the span on: two lanes a row.
  TANDEM_DEVICE void store_scales(int first, int left) {
    if constexpr (C::kScaled) {
      if constexpr (!C::kScalesApart) {
        read_scales([&](int piece, int run) { return piece < left ? C::scale(scaled_, nullptr, first + piece, run) : RunScale{}; });
      }
      TANDEM_UNROLL
      for (int j = 0; j < kScales; j++) {
        const int i = (threadIdx.x >> 4 & 1) + 2 * j;
        if (i >= kTableScales) break;
        float* to = table() + (threadIdx.x & 15) * Format::kTableStride + i * kWidth;
        if constexpr (C::kMinimum) *reinterpret_cast<float2*>(to) = {own_scales_[j].scale, own_scales_[j].minimum};
        else to[0] = own_scales_[j].scale;
      }
    }
  }

  // Left operands of piece p of the span: [part][run].
  TANDEM_DEVICE void operand(int p, int64_t left, uint32_t (&a)[C::kParts][2][4]) const {
    uint32_t words[2][C::kParts][4];
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) C::words(at_[h], p, threadIdx.x & 3, left, words[h]);
    TANDEM_UNROLL
    for (int part = 0; part < C::kParts; part++) {
      TANDEM_UNROLL
      for (int r = 0; r < 2; r++) {
        TANDEM_UNROLL
        for (int i = 0; i < 4; i++) a[part][r][i] = words[i & 1][part][2 * r + (i >> 1)];
      }
    }
  }

  // Scales of group i of the table, of rows g and g + 8, run by run.
  TANDEM_DEVICE void scales(int i, RunScale (&s)[2][Format::kRuns]) const {
    TANDEM_UNROLL
    for (int h = 0; h < 2; h++) {
      const float* from = table() + ((threadIdx.x >> 2 & 7) + 8 * h) * Format::kTableStride + i * Format::kNumbers;
      float v[4] = {1, 0, 0, 0};
      if constexpr (!C::kScaled) {
      } else if constexpr (Format::kNumbers == 4) {
        const float4 four = *reinterpret_cast<const float4*>(from);
        v[0] = four.x, v[1] = four.y, v[2] = four.z, v[3] = four.w;
      } else if constexpr (Format::kNumbers == 2) {
        const float2 two = *reinterpret_cast<const float2*>(from);
        v[0] = two.x, v[1] = two.y;
      } else {
        v[0] = from[0];
      }
      TANDEM_UNROLL
      for (int r = 0; r < Format::kRuns; r++) s[h][r] = {v[kWidth * r], C::kMinimum ? v[kWidth * r + 1] : 0.0f};
    }
  }

 private:
  static constexpr int kWidth = C::kMinimum ? 2 : 1;
  static constexpr int kTableScales = Format::kTableGroups * Format::kRuns;  // of a row
  static constexpr int kScales = (kTableScales + 1) / 2;                     // of a lane

  // How far behind a multiple of 16 bytes something lies, as far as the format leaves that open.
  static TANDEM_DEVICE int in_chunk(int offset) { return offset & (16 - L.align); }
  static TANDEM_DEVICE int shift_of(const uint8_t* at) { return in_chunk(static_cast<int>(reinterpret_cast<uintptr_t>(at) & 15)); }

  TANDEM_DEVICE float* table() const { return reinterpret_cast<float*>(memory_ + L.stages * kRowsTile * L.stride); }

  // Those of the table that this lane reads. scale(piece, run): from the table's first piece on.
  template <typename Scale>
  TANDEM_DEVICE void read_scales(Scale scale) {
    TANDEM_UNROLL
    for (int j = 0; j < kScales; j++) {
      const int i = (threadIdx.x >> 4 & 1) + 2 * j;
      if (i < kTableScales) own_scales_[j] = scale(i / Format::kRuns * Format::kGroupPieces, i % Format::kRuns);
    }
  }

  uint8_t* memory_;
  int row_bytes_;
  Scales scales_;
  const uint8_t* brought_[2];  // rows that this lane copies: those that it multiplies, too
  int shift_[2], scaled_shift_;
  const uint8_t *at_[2], *scaled_;  // the span, of the rows that this lane multiplies, and of the one whose scales it reads
  int fetched_ = 0, entered_ = 0;
  RunScale own_scales_[kScales] = {};
};

static TANDEM_DEVICE float fma_f32(float a, float b, float c) {
#ifdef __CUDA_ARCH__
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

// Sums of a warp, in the places of mma: of each set 16 rows by 8 columns.
template <int Sets>
using RowsSums = float[Sets][4];

// One span, which has `left` pieces and so many columns: tile and x have it. Whole: so has the row (kWholeRow).
template <typename Block, int Sets, bool Whole, typename Tile, typename X>
static TANDEM_DEVICE void multiply_span(Tile& tile, X& x, int left, int columns, RowsSums<Sets>& sums) {
  using Format = RowsFormat<Block>;
  using C = Codes<Block>;
  constexpr int kRuns = Format::kRuns;
  constexpr uint32_t kOnes[4] = {0x3f803f80u, 0x3f803f80u, 0x3f803f80u, 0x3f803f80u};
  TANDEM_UNROLL
  for (int group = 0; group < Format::kPieces / Format::kGroupPieces; group++) {
    const int begin = group * Format::kGroupPieces;
    if (begin >= left) break;
    if (group > 0 && group % Format::kTableGroups == 0) {
      __syncwarp();
      tile.store_scales(begin, left - begin);
      __syncwarp();
    }
    float products[kRuns][Sets][4] = {}, ones[kRuns][Sets][4] = {};
    TANDEM_UNROLL
    for (int i = 0; i < Format::kGroupPieces; i++) {
      const int p = begin + i;
      if (p >= left) break;
      uint32_t a[C::kParts][2][4], b[Sets][4];
      tile.operand(p, Whole ? kWholeRow : columns - 32 * p, a);
      x.operand(p, b);
      TANDEM_UNROLL
      for (int s = 0; s < Sets; s++) {
        TANDEM_UNROLL
        for (int r = 0; r < 2; r++) {
          const uint32_t right[2] = {b[s][2 * r], b[s][2 * r + 1]};
          TANDEM_UNROLL
          for (int part = 0; part < C::kParts; part++) mma_bf16(products[r % kRuns][s], a[part][r], right);
          if constexpr (C::kMinimum) mma_bf16(ones[r % kRuns][s], kOnes, right);
        }
      }
    }
    RunScale scale[2][kRuns];
    tile.scales(group % Format::kTableGroups, scale);
    TANDEM_UNROLL
    for (int r = 0; r < kRuns; r++) {
      TANDEM_UNROLL
      for (int s = 0; s < Sets; s++) {
        TANDEM_UNROLL
        for (int i = 0; i < 4; i++) {
          const RunScale& own = scale[i >> 1][r];
          sums[s][i] = fma_f32(own.scale, products[r][s][i], sums[s][i]);
          if constexpr (C::kMinimum) sums[s][i] = fma_f32(-own.minimum, ones[r][s][i], sums[s][i]);
        }
      }
    }
  }
}

// y = W·x for the rows of a block. row(n), scales(n): row n of the block's; vector(t): row t of x; write(n, t, y): what this block does not have, the caller leaves out.
// X: OneRow, or EightRows. 256 threads, dynamic shared memory as rows_shape says; a row has less than 2^31 columns and bytes.
template <typename Block, bool Many, typename Row, typename Scales, typename Vector, typename Write>
static TANDEM_DEVICE void multiply_rows(int64_t k, int64_t row_bytes, bool vectors, Row row, Scales scales, Vector vector, Write write) {
  using Format = RowsFormat<Block>;
  constexpr RowsLayout L = Format::kLayout;
  constexpr int kTokens = Many ? kRowsMost : 1;
  __shared__ float gathered[kRowsWarps][kTokens][kRowsTile];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  const int along = rows_along(L.columns, k), own = warp % along, n0 = warp / along * kRowsTile;
  uint8_t* memory = dynamic_shared<uint8_t>() + warp * L.warp_bytes(Many);
  const auto tile_row = [&](int i) { return row(n0 + i); };
  const auto tile_scales = [&](int i) { return scales(n0 + i); };
  RowsTile<Block, decltype(tile_row), decltype(tile_scales)> tile(memory, static_cast<int>(row_bytes), tile_row, tile_scales);
  using X = std::conditional_t<Many, EightRows<Block, Format::kPieces>, OneRow<Block, Format::kPieces>>;
  X x(vector(Many ? g : 0), static_cast<int>(k), vectors, reinterpret_cast<uint32_t*>(memory + L.warp_bytes(true)));
  const int columns = static_cast<int>(k), pieces = (columns + 31) / 32;
  RowsSums<X::kSets> sums = {};
  // Only formats that are aligned to nothing tell whole rows from others.
  const bool whole = L.align > 1 || (columns % 32 == 0 && row_bytes % 16 == 0 && aligned(row(0), 16));

  TANDEM_UNROLL
  for (int i = 0; i < L.stages - 1; i++) tile.fetch(own + i * along);
  x.fetch(own * Format::kPieces, pieces);
  tile.fetch_scales(own, pieces);
  for (int span = own; span * Format::kPieces < pieces; span += along) {
    const int first = span * Format::kPieces, left = Piece<Block>::kWeights == 32 * Format::kPieces ? Format::kPieces : pieces - first;
    tile.enter(span);
    tile.fetch(span + (L.stages - 1) * along);
    x.store();
    tile.store_scales(0, left);
    __syncwarp();
    x.begin(first + along * Format::kPieces, pieces);
    tile.fetch_scales(span + along, pieces);
    if (whole) multiply_span<Block, X::kSets, true>(tile, x, left, 0, sums);
    else multiply_span<Block, X::kSets, false>(tile, x, left, columns - 32 * first, sums);
  }

  TANDEM_UNROLL
  for (int i = 0; i < 4; i++) {
    const int n = g + (i & 2 ? 8 : 0);
    if constexpr (Many) {
      gathered[warp][2 * q + (i & 1)][n] = sums[0][i] + sums[1][i] + sums[2][i];
    } else if ((i & 1) == 0) {
      const float last = __shfl_xor_sync(kAllLanes, sums[0][i], 1);
      if (q == 0) gathered[warp][0][n] = sums[0][i] + sums[0][i + 1] + last;
    }
  }
  __syncthreads();
  const int rows = kRowsWarps / along * kRowsTile;
  for (int i = threadIdx.x; i < rows * kTokens; i += static_cast<int>(blockDim.x)) {
    const int n = i % rows, t = i / rows;
    float sum = 0;
    for (int w = 0; w < along; w++) sum += gathered[n / kRowsTile * along + w][t][n % kRowsTile];
    write(n, t, sum);
  }
}

}  // namespace tandem::cuda
