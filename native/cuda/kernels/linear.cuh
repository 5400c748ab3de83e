// linear for few rows: a product of a matrix with one to eight vectors, bound by the bytes of the matrix.
//
// A warp takes R rows of the matrix; its lanes take pieces of 32 weights in turn, decode them into registers and multiply
// them with the columns of x, which come from the cache of the SM. x is f32 and not rounded (activation f32).
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

// sums[m] += Σ w[i]·x[m][column i], for `count` rows of x. Columns past k do not exist; their weights are 0.
template <int M>
static TANDEM_DEVICE void multiply_piece(const float* w, const Runs& at, const float* x, int64_t stride, int count, int64_t k, bool vectors, float* sums) {
  TANDEM_UNROLL
  for (int m = 0; m < M; m++) {
    if (m >= count) break;
    const float* row = x + m * stride;
    float sum = sums[m];
    if (vectors) {
      TANDEM_UNROLL
      for (int i = 0; i < 16; i += 4) {
        const float4 a = load_float4(row + at.first + i), b = load_float4(row + at.second + i);
        sum += w[i] * a.x;
        sum += w[i + 1] * a.y;
        sum += w[i + 2] * a.z;
        sum += w[i + 3] * a.w;
        sum += w[16 + i] * b.x;
        sum += w[16 + i + 1] * b.y;
        sum += w[16 + i + 2] * b.z;
        sum += w[16 + i + 3] * b.w;
      }
    } else {
      TANDEM_UNROLL
      for (int i = 0; i < 16; i++) {
        if (at.first + i < k) sum += w[i] * row[at.first + i];
        if (at.second + i < k) sum += w[16 + i] * row[at.second + i];
      }
    }
    sums[m] = sum;
  }
}

// Grid: (⌈N / (warps·R)⌉, ⌈rows / M⌉, batches).
template <typename Block, int M, int R>
static TANDEM_DEVICE void linear_rows(const LinearArguments& a) {
  const int lane = threadIdx.x & 31;
  const int64_t rows = *a.rows, m0 = static_cast<int64_t>(blockIdx.y) * M;
  const int64_t n0 = (static_cast<int64_t>(blockIdx.x) * (blockDim.x >> 5) + (threadIdx.x >> 5)) * R;
  if (m0 >= rows || n0 >= a.weight.n) return;
  const int count = static_cast<int>(rows - m0 < M ? rows - m0 : M);
  const int64_t matrix = blockIdx.z, k = a.weight.k, pieces = (k + 31) / 32;
  const float* x = a.x + matrix * a.x_batch + m0 * a.x_stride;
  const bool vectors = k % 32 == 0 && a.x_stride % 4 == 0 && aligned(x, 16);
  float sums[R][M] = {};
  for (int64_t piece = lane; piece < pieces; piece += 32) {
    const Runs at = Piece<Block>::runs(piece);
    TANDEM_UNROLL
    for (int r = 0; r < R; r++) {
      if (n0 + r >= a.weight.n) break;
      const int64_t row = a.weight_first + matrix * a.weight_batch + n0 + r;
      const uint8_t* scales = a.weight.scales == nullptr ? nullptr : a.weight.scales + row / ScaleRows<Block>::value * a.weight.scale_stride;
      float w[32];
      Piece<Block>::decode(a.weight.data + row * a.weight.row_bytes, scales, piece, k, w);
      multiply_piece<M>(w, at, x, a.x_stride, count, k, vectors, sums[r]);
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < R; r++) {
    TANDEM_UNROLL
    for (int m = 0; m < M; m++) {
      const float sum = warp_sum(sums[r][m]);
      if (lane != 0 || m >= count || n0 + r >= a.weight.n) continue;
      a.y[matrix * a.y_batch + (m0 + m) * a.y_stride + n0 + r] = sum + (a.bias == nullptr ? 0.0f : a.bias[n0 + r]);
    }
  }
}

// Rows of x that a block takes at once.
template <typename Block>
static TANDEM_DEVICE void linear_1(const LinearArguments& a) {
  linear_rows<Block, 1, 2>(a);
}
template <typename Block>
static TANDEM_DEVICE void linear_4(const LinearArguments& a) {
  linear_rows<Block, 4, 2>(a);
}
template <typename Block>
static TANDEM_DEVICE void linear_8(const LinearArguments& a) {
  linear_rows<Block, 8, 1>(a);
}

}  // namespace tandem::cuda
