// Greedy sampling: the token of the largest logit, the lowest of equals. NaN and −∞ are no candidates; −1 where none is left.
// One block a row; grid: (1, rows).
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/router.cuh"

namespace tandem::cuda {

static TANDEM_DEVICE void greedy(const GreedyArguments& a) {
  __shared__ float values[8];
  __shared__ int32_t indices[8];
  const int64_t row = blockIdx.y;
  if (row >= *a.rows) return;
  const float* logits = a.logits + row * a.logits_stride;
  Candidate best = {0, -1};
  for (int64_t i = threadIdx.x; i < a.vocabulary; i += blockDim.x) {
    if (logits[i] > -INFINITY) best = better(best, {logits[i], static_cast<int32_t>(i)});
  }
  best = warp_best(best);
  const int warp = threadIdx.x >> 5;
  if ((threadIdx.x & 31) == 0) {
    values[warp] = best.value;
    indices[warp] = best.index;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < static_cast<int>(blockDim.x >> 5); w++) best = better(best, {values[w], indices[w]});
  a.token[row] = best.index;
}

}  // namespace tandem::cuda
