// x for tiles: rounded to bf16 once a step, nearest even, in the order in which tiles take its columns. Rows of ⌈K / 128⌉ · 128 numbers:
// every 64 of them are eight words of 16 bytes, word 4·(j & 1) + lane of half j >> 1 of a step (column_order.h). Columns past K are 0.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

// Grid: (⌈K / 128⌉ · 2, ⌈rows / 32⌉), 256 threads: 32 rows by 64 columns a block, eight columns a thread.
static TANDEM_DEVICE void round_rows(const RoundRowsArguments& a) {
  const int word = threadIdx.x & 7, half = static_cast<int>(blockIdx.x);
  const int64_t row = static_cast<int64_t>(blockIdx.y) * 32 + (threadIdx.x >> 3);
  if (row >= (*a.rows - a.skip) * a.times) return;
  const int64_t column = static_cast<int64_t>(half >> 1) * kTileStep + eight_column(a.order, word & 3, 2 * (half & 1) + (word >> 2));
  const float* x = a.x + row * a.x_stride + column;
  float values[8] = {};
  if (column + 8 <= a.k && aligned(x, 16)) {
    const float4 low = load_float4(x), high = load_float4(x + 4);
    values[0] = low.x, values[1] = low.y, values[2] = low.z, values[3] = low.w;
    values[4] = high.x, values[5] = high.y, values[6] = high.z, values[7] = high.w;
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) {
      if (column + i < a.k) values[i] = x[i];
    }
  }
  *reinterpret_cast<uint4*>(a.y + row * a.y_stride + 64 * half + 8 * word) = {pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]), pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7])};
}

}  // namespace tandem::cuda
