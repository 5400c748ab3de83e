// rope: rotates columns [offset, offset + width) of every head; the rest is copied. Grid: (1, rows).
//
// Angles are f64, as the op says: in f32 they would be off by position · 2^-24. cos and sin are taken once per row and pair and
// rounded to f32, then every head is rotated with them. YaRN is in the frequencies and the magnitude.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

static constexpr int kMaxRopePairs = 512;

static TANDEM_DEVICE void rope(const RopeArguments& a) {
  __shared__ float cosines[kMaxRopePairs];
  __shared__ float sines[kMaxRopePairs];
  const int64_t row = blockIdx.y;
  if (row >= *a.rows) return;
  const int64_t pairs = a.width / 2;
  const double position = a.positions[row];
  for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) {
    const double angle = position * a.frequencies[i];
    cosines[i] = static_cast<float>(cos(angle) * a.magnitude);
    sines[i] = static_cast<float>(sin(angle) * a.magnitude);
  }
  __syncthreads();
  const float* x = a.x + row * a.x_stride;
  float* y = a.y + row * a.y_stride;
  for (int64_t c = threadIdx.x; c < a.columns; c += blockDim.x) {
    const int64_t at = c % a.head_size - a.offset;
    if (at < 0 || at >= a.width) {
      y[c] = x[c];
      continue;
    }
    // The pair of column c: its own place in it, and how far the partner is.
    const int64_t pair = a.paired ? at / 2 : at % pairs;
    const bool second = a.paired ? (at & 1) != 0 : at >= pairs;
    const int64_t gap = a.paired ? 1 : pairs;
    y[c] = second ? x[c - gap] * sines[pair] + x[c] * cosines[pair] : x[c] * cosines[pair] - x[c + gap] * sines[pair];
  }
}

}  // namespace tandem::cuda
