// rms-norm: y = x / √(mean(x²) + ε) · w over groups of adjacent columns. Grid: (columns / group, rows); one block a group.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

static TANDEM_DEVICE void rms_norm(const RmsNormArguments& a) {
  __shared__ float memory[8];
  const int64_t row = blockIdx.y;
  if (row >= *a.rows) return;
  const float* x = a.x + row * a.x_stride + blockIdx.x * a.group;
  float* y = a.y + row * a.y_stride + blockIdx.x * a.group;
  float squares = 0;
  for (int64_t i = threadIdx.x; i < a.group; i += blockDim.x) squares += x[i] * x[i];
  const float mean = block_sum(squares, memory) / static_cast<float>(a.group);
  const float scale = 1.0f / sqrtf(mean + a.epsilon);
  for (int64_t i = threadIdx.x; i < a.group; i += blockDim.x) y[i] = x[i] * scale * a.weight[i];
}

}  // namespace tandem::cuda
