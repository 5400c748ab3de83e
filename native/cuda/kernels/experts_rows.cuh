// Routed experts for few rows: a visit is a product of its own (experts.cuh). Grid: (⌈n / rows of a block⌉, rows · topk), 256 threads
// (experts_rows_shape).
#pragma once

#include "cuda/kernels/experts.cuh"
#include "cuda/kernels/rows_product.cuh"

namespace tandem::cuda {

template <typename Block>
static TANDEM_DEVICE void experts_rows(const ExpertsArguments& a) {
  const int64_t visit = blockIdx.y, n0 = static_cast<int64_t>(blockIdx.x) * (kRowsWarps / rows_along(RowsFormat<Block>::kLayout.columns, a.k) * kRowsTile);
  if (visit >= *a.rows * a.topk) return;
  const int64_t expert = a.ids[visit], last_row = a.n - 1 - n0;
  const uint8_t* matrix = matrix_of(a, expert);
  if (matrix == nullptr) return;
  const float* x = a.x + visit / a.visits_a_row * a.x_stride;
  const auto line = [&](int n) { return n0 + (n < last_row ? n : last_row); };
  multiply_rows<Block, false>(
      a.k, a.row_bytes, a.k % 32 == 0 && aligned(x, 16), [&](int n) { return matrix + line(n) * a.row_bytes; }, [&](int n) { return expert_scales<Block>(a, expert, line(n)); },
      [&](int) { return x; },
      [&](int n, int, float sum) {
        if (n <= last_row) a.y[visit * a.y_stride + n0 + n] = sum + (a.bias == nullptr ? 0.0f : a.bias[expert * a.n + n0 + n]);
      });
}

}  // namespace tandem::cuda
