// linear for many rows, on tensor cores. Grid: (⌈rows / BM⌉, ⌈N / 128⌉, batches), 256 threads: blocks that follow each other
// share their rows of W, which are read from memory once and from the L2 cache after that.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/tiles.cuh"

namespace tandem::cuda {

template <typename Block, int BM>
static TANDEM_DEVICE void linear_tiles(const LinearArguments& a) {
  __shared__ TileMemory<BM> tile;
  const int64_t rows = *a.rows, m0 = static_cast<int64_t>(blockIdx.x) * BM, n0 = static_cast<int64_t>(blockIdx.y) * kTileColumns, matrix = blockIdx.z;
  if (m0 >= rows) return;
  const float* x = a.x + matrix * a.x_batch + m0 * a.x_stride;
  float* y = a.y + matrix * a.y_batch + m0 * a.y_stride + n0;
  const int64_t first = a.weight_first + matrix * a.weight_batch + n0;
  const bool vectors = a.weight.k % 32 == 0 && a.x_stride % 4 == 0 && aligned(x, 16);
  multiply_tile<Block, BM>(
      tile, a.weight.k, vectors, [&](int m) { return m0 + m < rows ? x + m * a.x_stride : nullptr; },
      [&](int n) { return n0 + n < a.weight.n ? a.weight.data + (first + n) * a.weight.row_bytes : nullptr; },
      [&](int n) { return a.weight.scales == nullptr ? nullptr : a.weight.scales + (first + n) / ScaleRows<Block>::value * a.weight.scale_stride; },
      [&](int m, int n, float sum) {
        if (m0 + m < rows && n0 + n < a.weight.n) y[m * a.y_stride + n] = sum + (a.bias == nullptr ? 0.0f : a.bias[n0 + n]);
      });
}

template <typename Block>
static TANDEM_DEVICE void linear_tiles_128(const LinearArguments& a) {
  linear_tiles<Block, 128>(a);
}

}  // namespace tandem::cuda
