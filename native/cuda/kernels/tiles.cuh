// The tile product under linear and experts for many rows: BM rows of x by 128 rows of W, eight warps, bf16 on tensor cores.
//
// Weights are decoded to bf16 on their way into shared memory, x is rounded there (fast mode, `tiles` of docs/reference/ops.md).
// The inner dimension goes in steps of two pieces of the format, 64 columns in the order in which the format has them: x follows
// that order, and the sum does not care. While a step is multiplied the next one is on its way in registers.
#pragma once

#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

static constexpr int kTileColumns = 128;  // rows of W a block
static constexpr int kTileStride = 36;    // words a row of 64 bf16 takes in shared memory: 4 more, so that fragments meet no bank twice

template <int BM>
struct alignas(16) TileMemory {
  uint32_t x[BM][kTileStride];
  uint32_t w[kTileColumns][kTileStride];
};

// 32 floats to 16 words of bf16, in shared memory.
static TANDEM_DEVICE void store_piece(uint32_t* to, const uint32_t (&words)[16]) {
  TANDEM_UNROLL
  for (int i = 0; i < 16; i += 4) *reinterpret_cast<uint4*>(to + i) = {words[i], words[i + 1], words[i + 2], words[i + 3]};
}

static TANDEM_DEVICE void pack_piece(const float (&values)[32], uint32_t (&words)[16]) {
  TANDEM_UNROLL
  for (int i = 0; i < 16; i++) words[i] = pack_bf16(values[2 * i], values[2 * i + 1]);
}

// Four of the 64 columns of a step, the same of every 16th row of x: neighbouring lanes read neighbouring columns. Row null, or a piece
// past the end, gives zeros.
template <typename Block, int N>
static TANDEM_DEVICE void load_x(const float* const (&rows)[N], int64_t first_piece, int64_t pieces, int64_t k, bool vectors, uint2 (&words)[N]) {
  const int four = threadIdx.x & 15;
  const int64_t piece = first_piece + (four >> 3);
  const Runs at = Piece<Block>::runs(piece);
  const int64_t column = (four & 4 ? at.second : at.first) + 4 * (four & 3);
  TANDEM_UNROLL
  for (int i = 0; i < N; i++) {
    float values[4] = {};
    if (rows[i] != nullptr && piece < pieces) {
      if (vectors) {
        const float4 v = load_float4(rows[i] + column);
        values[0] = v.x, values[1] = v.y, values[2] = v.z, values[3] = v.w;
      } else {
        TANDEM_UNROLL
        for (int c = 0; c < 4; c++) {
          if (column + c < k) values[c] = rows[i][column + c];
        }
      }
    }
    words[i] = {pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3])};
  }
}

template <typename Block>
static TANDEM_DEVICE void load_w(const uint8_t* row, const uint8_t* scales, int64_t piece, int64_t pieces, int64_t k, uint32_t (&words)[16]) {
  float values[32] = {};
  if (row != nullptr && piece < pieces) Piece<Block>::decode(row, scales, piece, k, values);
  pack_piece(values, words);
}

// One step of 64 columns: every warp its 32 rows of x by WN columns.
template <int BM, int WN>
static TANDEM_DEVICE void multiply_step(const TileMemory<BM>& tile, int m0, int n0, float (&sums)[2][WN / 8][4]) {
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
  TANDEM_UNROLL
  for (int k = 0; k < 32; k += 8) {  // words: 16 columns
    uint32_t a[2][4];
    TANDEM_UNROLL
    for (int m = 0; m < 2; m++) {
      const uint32_t* top = tile.x[m0 + 16 * m + g] + k + q;
      const uint32_t* bottom = tile.x[m0 + 16 * m + g + 8] + k + q;
      a[m][0] = top[0], a[m][1] = bottom[0], a[m][2] = top[4], a[m][3] = bottom[4];
    }
    TANDEM_UNROLL
    for (int n = 0; n < WN / 8; n++) {
      const uint32_t* column = tile.w[n0 + 8 * n + g] + k + q;
      const uint32_t b[2] = {column[0], column[4]};
      mma_bf16(sums[0][n], a[0], b);
      mma_bf16(sums[1][n], a[1], b);
    }
  }
}

// The product of one tile. x_row(m): row m of the tile, or null; w_row(n), w_scales(n): row n of W, or null; write(m, n, y).
template <typename Block, int BM, typename XRow, typename WRow, typename WScales, typename Write>
static TANDEM_DEVICE void multiply_tile(TileMemory<BM>& tile, int64_t k, bool vectors, XRow x_row, WRow w_row, WScales w_scales, Write write) {
  constexpr int kWarpRows = BM / 32, kWarpColumns = 8 / kWarpRows, WN = kTileColumns / kWarpColumns;
  const int thread = threadIdx.x, warp = thread >> 5, lane = thread & 31;
  const int m0 = warp % kWarpRows * 32, n0 = warp / kWarpRows * WN;
  const int line = thread >> 1, part = thread & 1;  // what this thread brings: a piece of a row of W, and of x four columns of some rows
  const float* own_x[BM / 16];
  TANDEM_UNROLL
  for (int i = 0; i < BM / 16; i++) own_x[i] = x_row((thread >> 4) + 16 * i);
  const uint8_t* own_w = w_row(line);
  const uint8_t* own_scales = own_w == nullptr ? nullptr : w_scales(line);
  const int64_t pieces = (k + 31) / 32;
  float sums[2][WN / 8][4] = {};
  uint2 x[BM / 16];
  uint32_t w[16];
  load_x<Block>(own_x, 0, pieces, k, vectors, x);
  load_w<Block>(own_w, own_scales, part, pieces, k, w);
  for (int64_t piece = 0; piece < pieces; piece += 2) {
    __syncthreads();
    TANDEM_UNROLL
    for (int i = 0; i < BM / 16; i++) *reinterpret_cast<uint2*>(tile.x[(thread >> 4) + 16 * i] + 2 * (thread & 15)) = x[i];
    store_piece(tile.w[line] + 16 * part, w);
    __syncthreads();
    if (piece + 2 < pieces) {
      load_x<Block>(own_x, piece + 2, pieces, k, vectors, x);
      load_w<Block>(own_w, own_scales, piece + 2 + part, pieces, k, w);
    }
    multiply_step<BM, WN>(tile, m0, n0, sums);
  }
  TANDEM_UNROLL
  for (int m = 0; m < 2; m++) {
    TANDEM_UNROLL
    for (int n = 0; n < WN / 8; n++) {
      TANDEM_UNROLL
      for (int i = 0; i < 4; i++) write(m0 + 16 * m + (lane >> 2) + (i & 2 ? 8 : 0), n0 + 8 * n + (lane & 3) * 2 + (i & 1), sums[m][n][i]);
    }
  }
}

}  // namespace tandem::cuda
