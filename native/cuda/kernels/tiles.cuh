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

// Columns of a piece of one row of x; null, or a piece past the end, gives zeros.
template <typename Block>
static TANDEM_DEVICE void load_x(const float* row, int64_t piece, int64_t pieces, int64_t k, bool vectors, uint32_t (&words)[16]) {
  float values[32] = {};
  if (row != nullptr && piece < pieces) {
    const Runs at = Piece<Block>::runs(piece);
    if (vectors) {
      TANDEM_UNROLL
      for (int i = 0; i < 16; i += 4) {
        const float4 a = load_float4(row + at.first + i), b = load_float4(row + at.second + i);
        values[i] = a.x, values[i + 1] = a.y, values[i + 2] = a.z, values[i + 3] = a.w;
        values[16 + i] = b.x, values[17 + i] = b.y, values[18 + i] = b.z, values[19 + i] = b.w;
      }
    } else {
      TANDEM_UNROLL
      for (int i = 0; i < 16; i++) {
        if (at.first + i < k) values[i] = row[at.first + i];
        if (at.second + i < k) values[16 + i] = row[at.second + i];
      }
    }
  }
  pack_piece(values, words);
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
  const int line = thread >> 1, part = thread & 1;  // what this thread brings: a piece of a row of W, and of x where there are as many
  const float* own_x = line < BM ? x_row(line) : nullptr;
  const uint8_t* own_w = w_row(line);
  const uint8_t* own_scales = own_w == nullptr ? nullptr : w_scales(line);
  const int64_t pieces = (k + 31) / 32;
  float sums[2][WN / 8][4] = {};
  uint32_t x[16], w[16];
  load_x<Block>(own_x, part, pieces, k, vectors, x);
  load_w<Block>(own_w, own_scales, part, pieces, k, w);
  for (int64_t piece = 0; piece < pieces; piece += 2) {
    __syncthreads();
    if (line < BM) store_piece(tile.x[line] + 16 * part, x);
    store_piece(tile.w[line] + 16 * part, w);
    __syncthreads();
    if (piece + 2 < pieces) {
      load_x<Block>(own_x, piece + 2 + part, pieces, k, vectors, x);
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
