// linear for many rows, on tensor cores, after `round_rows`. Wide: 128 rows of x by 256 rows of W a block, where that gives every
// multiprocessor one; else 64 by 128. Blocks that follow each other share their rows of W, which are read from memory once and from the L2
// cache after that, for up to sixteen blocks' rows of x: these stay in the L2 cache while all rows of W pass.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/tiles.cuh"

namespace tandem::cuda {

// Grid: (tiles of rows in a band, ⌈N / 32·Warps⌉, bands · batches), 32·Warps threads (shapes.h); `bands` is z over the matrices.
template <typename Block, int Groups, int Warps>
static TANDEM_DEVICE void linear_tiles(const LinearTilesArguments& a) {
  __shared__ TileMemory<Groups> memory;
  const int64_t rows = *a.rows - a.skip, bands = gridDim.z / a.batches, band = blockIdx.z % bands, matrix = blockIdx.z / bands;
  const int64_t m0 = (band * gridDim.x + blockIdx.x) * 32 * Groups, n0 = static_cast<int64_t>(blockIdx.y) * 32 * Warps;
  if (m0 >= rows) return;
  const int64_t n = a.weight.n - n0, first = a.weight_first + matrix * a.weight_batch + n0;
  const uint8_t* weights = a.weight.data + first * a.weight.row_bytes;
  const int64_t y = matrix * a.y_batch + m0 * a.y_stride + n0;
  multiply_tile<Block, Groups, Warps>(
      memory, a.weight.k, static_cast<int>(rows - m0 < 32 * Groups ? rows - m0 : 32 * Groups), static_cast<int>(n < 32 * Warps ? n : 32 * Warps), a.x + m0 * a.x_stride,
      [&](int row) { return static_cast<uint32_t>(row * a.x_stride / 8); }, weights, a.weight.row_bytes,
      [&](int column) { return a.weight.scales == nullptr ? nullptr : a.weight.scales + (first + column) / ScaleRows<Block>::value * a.weight.scale_stride; },
      [&](int column) { return a.bias == nullptr ? 0.0f : a.bias[n0 + column]; },
      [&](int row, int column, float value) {
        const int64_t at = y + row * a.y_stride + column;
        if (a.y_bf16 == nullptr) a.y[at] = value;
        else a.y_bf16[at] = quant::f32_to_bf16(value);
      });
}

template <typename Block>
static TANDEM_DEVICE void linear_tiles_wide(const LinearTilesArguments& a) {
  linear_tiles<Block, 4, 8>(a);
}
template <typename Block>
static TANDEM_DEVICE void linear_tiles_small(const LinearTilesArguments& a) {
  linear_tiles<Block, 2, 4>(a);
}

}  // namespace tandem::cuda
