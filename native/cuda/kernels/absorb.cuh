// The query side of absorbed MLA: q_nope·W_UK, where W_UK has one row a column of q_nope (kvB), so rows of the matrix are summed
// with the weights of x instead of being multiplied with it. Where the checkpoint has kB, its rows are those of a plain linear.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

// y[c] = Σₙ x[n]·W[n, c]. Eight pieces of 32 columns a block, 32 slices of the rows. Grid: (⌈K / 256⌉, rows, batches), 256 threads.
template <typename Block>
static TANDEM_DEVICE void linear_transposed(const LinearArguments& a) {
  __shared__ float memory[8][256];
  const int64_t row = blockIdx.y, matrix = blockIdx.z;
  if (row >= *a.rows) return;
  const int own = threadIdx.x & 7, slice = threadIdx.x >> 3, warp = threadIdx.x >> 5;
  const int64_t pieces = (a.weight.k + 31) / 32, piece = static_cast<int64_t>(blockIdx.x) * 8 + own;
  const float* x = a.x + row * a.x_stride + matrix * a.x_batch;
  float sums[32] = {};
  if (piece < pieces) {
    for (int64_t n = slice; n < a.weight.n; n += 32) {
      const int64_t line = a.weight_first + matrix * a.weight_batch + n;
      const uint8_t* scales = a.weight.scales == nullptr ? nullptr : a.weight.scales + line / ScaleRows<Block>::value * a.weight.scale_stride;
      float w[32];
      Piece<Block>::decode(a.weight.data + line * a.weight.row_bytes, scales, piece, a.weight.k, w);
      const float factor = x[n];
      TANDEM_UNROLL
      for (int i = 0; i < 32; i++) sums[i] += factor * w[i];
    }
  }
  TANDEM_UNROLL
  for (int i = 0; i < 32; i++) {
    sums[i] += __shfl_xor_sync(kAllLanes, sums[i], 8);
    sums[i] += __shfl_xor_sync(kAllLanes, sums[i], 16);
    if ((threadIdx.x & 31) < 8) memory[warp][32 * own + i] = sums[i];
  }
  __syncthreads();
  // Entry i of piece p is column first + i or second + i − 16.
  const int64_t mine = static_cast<int64_t>(blockIdx.x) * 8 + (threadIdx.x >> 5);
  const int i = threadIdx.x & 31;
  if (mine >= pieces) return;
  const Runs at = Piece<Block>::runs(mine);
  const int64_t column = i < 16 ? at.first + i : at.second + i - 16;
  if (column >= a.weight.k) return;
  float sum = 0;
  for (int w = 0; w < 8; w++) sum += memory[w][threadIdx.x];
  a.y[row * a.y_stride + matrix * a.y_batch + column] = sum;
}

// Columns of every head to their place in wider or narrower heads: the rope part of q beside its absorbed part.
// Grid: (⌈heads · columns / 256⌉, rows).
static TANDEM_DEVICE void copy_heads(const CopyHeadsArguments& a) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, row = blockIdx.y;
  if (at >= a.heads * a.columns || row >= *a.rows) return;
  const int64_t head = at / a.columns, column = at % a.columns;
  a.y[row * a.y_stride + head * a.y_head + column] = a.x[row * a.x_stride + head * a.x_head + column];
}

}  // namespace tandem::cuda
