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
  const int64_t step = static_cast<int64_t>(half >> 1) * kTileStep;
  const EightColumns at = eight_columns(a.order, word & 3, 2 * (half & 1) + (word >> 2));
  const float* x = a.x + row * a.x_stride + step;
  float first[4] = {}, second[4] = {};
  if (step + at.second + 4 <= a.k && aligned(x, 16)) {
    const float4 low = load_float4(x + at.first), high = load_float4(x + at.second);
    first[0] = low.x, first[1] = low.y, first[2] = low.z, first[3] = low.w;
    second[0] = high.x, second[1] = high.y, second[2] = high.z, second[3] = high.w;
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) {
      if (step + at.first + i < a.k) first[i] = x[at.first + i];
      if (step + at.second + i < a.k) second[i] = x[at.second + i];
    }
  }
  uint4* y = reinterpret_cast<uint4*>(a.y + row * a.y_stride + 64 * half + 8 * word);
  if (a.order == ColumnOrder::interleaved) {
    *y = {pack_bf16(first[0], second[0]), pack_bf16(first[1], second[1]), pack_bf16(first[2], second[2]), pack_bf16(first[3], second[3])};
  } else {
    *y = {pack_bf16(first[0], first[1]), pack_bf16(first[2], first[3]), pack_bf16(second[0], second[1]), pack_bf16(second[2], second[3])};
  }
}

}  // namespace tandem::cuda
