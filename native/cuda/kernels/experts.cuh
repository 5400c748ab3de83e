// Routed experts that live on the GPU. A visit v = t·topk + j is row t at its j-th expert; `matrices` names where an expert's
// matrix lies and is read at every pass: null is an expert that is elsewhere, whose visits are left alone here, as is id −1.
//
//     few rows    experts_rows (gate, up) → gated → experts_rows (down) → combine
//     many rows   expert_groups, round_rows, then the same with experts_tiles (experts_tiles.cuh), h rounded too
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/elementwise.cuh"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

static TANDEM_DEVICE const uint8_t* matrix_of(const ExpertsArguments& a, int64_t expert) { return expert < 0 ? nullptr : a.matrices[expert]; }

// Row n of an expert's matrix.
template <typename Block>
static TANDEM_DEVICE const uint8_t* expert_scales(const ExpertsArguments& a, int64_t expert, int64_t n) {
  return a.scales == nullptr ? nullptr : a.scales[expert] + n / ScaleRows<Block>::value * a.scale_stride;
}

// h of every visit. Grid: (⌈columns / 256⌉, rows · topk). NaN stays NaN.
static TANDEM_DEVICE void gated(const GatedArguments& a) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, visit = blockIdx.y;
  if (c >= a.columns || visit >= *a.rows * a.topk) return;
  float g = a.gate[visit * a.stride + c], u = a.up[visit * a.stride + c];
  if (a.clamped) {
    g = g > a.limit ? a.limit : g;
    u = u > a.limit ? a.limit : u < -a.limit ? -a.limit : u;
    a.y[visit * a.stride + c] = g / (1.0f + expf(-a.alpha * g)) * (u + 1.0f);
  } else {
    a.y[visit * a.stride + c] = silu(g) * u;
  }
}

// y = Σⱼ wⱼ · d of visit j, in the order of j, of those experts that are here. Grid: (⌈columns / 256⌉, rows).
static TANDEM_DEVICE void combine(const CombineArguments& a) {
  const int64_t c = own_column(a.columns, a.rows), row = blockIdx.y;
  if (c < 0) return;
  float sum = 0;
  for (int64_t j = 0; j < a.topk; j++) {
    const int64_t visit = row * a.topk + j, expert = a.ids[visit];
    if (expert >= 0 && a.matrices[expert] != nullptr) sum += a.weights[visit] * a.down[visit * a.down_stride + c];
  }
  a.y[row * a.y_stride + c] = sum;
}

}  // namespace tandem::cuda
