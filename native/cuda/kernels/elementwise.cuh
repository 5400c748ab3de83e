// add, glu, gather-rows, embed: each number is moved once. Grid: (⌈columns / 256⌉, rows).
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

// Column of this thread, or −1 past the end of the matrix.
static TANDEM_DEVICE int64_t own_column(int64_t columns, const int32_t* rows) {
  const int64_t column = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  return column < columns && static_cast<int64_t>(blockIdx.y) < *rows ? column : -1;
}

static TANDEM_DEVICE void add(const ElementwiseArguments& a) {
  const int64_t c = own_column(a.columns, a.rows), r = blockIdx.y;
  if (c >= 0) a.y[r * a.y_stride + c] = a.a[r * a.a_stride + c] + a.b[r * a.b_stride + c];
}

static TANDEM_DEVICE float silu(float x) { return x / (1.0f + expf(-x)); }

// silu(a) · b
static TANDEM_DEVICE void glu(const ElementwiseArguments& a) {
  const int64_t c = own_column(a.columns, a.rows), r = blockIdx.y;
  if (c >= 0) a.y[r * a.y_stride + c] = silu(a.a[r * a.a_stride + c]) * a.b[r * a.b_stride + c];
}

static TANDEM_DEVICE void gather_rows(const GatherArguments& a) {
  const int64_t c = own_column(a.columns, a.rows), r = blockIdx.y;
  if (c >= 0) a.y[r * a.y_stride + c] = a.x[a.index[r] * a.x_stride + c];
}

// A thread decodes a piece of 32 weights. Grid: (⌈K / 32 / threads⌉, rows).
template <typename Block>
static TANDEM_DEVICE void embed(const EmbedArguments& a) {
  const int64_t piece = own_column((a.table.k + 31) / 32, a.rows), r = blockIdx.y;
  if (piece < 0) return;
  const int64_t row = a.ids[r];
  const uint8_t* scales = a.table.scales == nullptr ? nullptr : a.table.scales + row / ScaleRows<Block>::value * a.table.scale_stride;
  float w[32];
  Piece<Block>::decode(a.table.data + row * a.table.row_bytes, scales, piece, a.table.k, w);
  const Runs at = Piece<Block>::runs(piece);
  float* y = a.y + r * a.y_stride;
  TANDEM_UNROLL
  for (int i = 0; i < 16; i++) {
    if (at.first + i < a.table.k) y[at.first + i] = w[i];
    if (at.second + i < a.table.k) y[at.second + i] = w[16 + i];
  }
}

}  // namespace tandem::cuda
