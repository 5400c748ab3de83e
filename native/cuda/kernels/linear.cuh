// linear for few rows, as they are (activation f32). Grid: (⌈rows / M⌉, ⌈N / rows of a block⌉, batches), 256 threads (linear_shape): blocks
// that follow each other share their rows of W.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/rows_product.cuh"

namespace tandem::cuda {

template <typename Block, bool Many>
static TANDEM_DEVICE void linear_rows(const LinearArguments& a) {
  constexpr int M = Many ? kRowsMost : 1;
  const int64_t rows = *a.rows, m0 = static_cast<int64_t>(blockIdx.x) * M, matrix = blockIdx.z, k = a.weight.k;
  const int64_t n0 = static_cast<int64_t>(blockIdx.y) * (kRowsWarps / rows_along(RowsFormat<Block>::kLayout.columns, k) * kRowsTile);
  if (m0 >= rows) return;
  const float* x = a.x + matrix * a.x_batch + m0 * a.x_stride;
  float* y = a.y + matrix * a.y_batch + m0 * a.y_stride + n0;
  const int64_t first = a.weight_first + matrix * a.weight_batch + n0, last_row = a.weight.n - 1 - n0, last_vector = rows - 1 - m0;
  const bool vectors = k % 32 == 0 && a.x_stride % 4 == 0 && aligned(x, 16);
  // Rows that are not there read the last one.
  const auto line = [&](int n) { return first + (n < last_row ? n : last_row); };
  multiply_rows<Block, Many>(
      k, a.weight.row_bytes, vectors, [&](int n) { return a.weight.data + line(n) * a.weight.row_bytes; },
      [&](int n) { return a.weight.scales == nullptr ? nullptr : a.weight.scales + line(n) / ScaleRows<Block>::value * a.weight.scale_stride; },
      [&](int t) { return x + (t < last_vector ? t : last_vector) * a.x_stride; },
      [&](int n, int t, float sum) {
        if (n <= last_row && t <= last_vector) y[t * a.y_stride + n] = sum + (a.bias == nullptr ? 0.0f : a.bias[n0 + n]);
      });
}

template <typename Block>
static TANDEM_DEVICE void linear_1(const LinearArguments& a) {
  linear_rows<Block, false>(a);
}
template <typename Block>
static TANDEM_DEVICE void linear_8(const LinearArguments& a) {
  linear_rows<Block, true>(a);
}

}  // namespace tandem::cuda
