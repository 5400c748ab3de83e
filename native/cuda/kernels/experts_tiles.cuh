// Routed experts for many rows, on tensor cores: tiles of up to 128 visits of one expert, as expert_groups found them; rows of x are those
// that `round_rows` left, gathered by visit.
#pragma once

#include "cuda/kernels/experts.cuh"
#include "cuda/kernels/tiles.cuh"

namespace tandem::cuda {

// Grid: (⌈n / 256⌉, ⌈rows · topk / 128⌉ + experts), 256 threads.
template <typename Block>
static TANDEM_DEVICE void experts_tiles(const ExpertsArguments& a) {
  __shared__ TileMemory<kExpertTile / 32> memory;
  if (static_cast<int64_t>(blockIdx.y) >= *a.tile_count) return;
  const int64_t n0 = static_cast<int64_t>(blockIdx.x) * 256, n = a.n - n0;
  const int64_t expert = a.tiles[2 * blockIdx.y], first = a.tiles[2 * blockIdx.y + 1], visits = a.offsets[expert + 1] - first;
  const uint8_t* matrix = matrix_of(a, expert);
  if (matrix == nullptr) return;
  const int32_t* order = a.order + first;
  multiply_tile<Block, kExpertTile / 32, 8>(
      memory, a.k, static_cast<int>(visits < kExpertTile ? visits : kExpertTile), static_cast<int>(n < 256 ? n : 256), a.rounded,
      [&](int row) { return static_cast<uint32_t>(order[row] / a.visits_a_row * a.rounded_stride / 8); }, matrix + n0 * a.row_bytes, a.row_bytes,
      [&](int column) { return expert_scales<Block>(a, expert, n0 + column); }, [&](int column) { return a.bias == nullptr ? 0.0f : a.bias[expert * a.n + n0 + column]; },
      [&](int row, int column, float value) { a.y[order[row] * a.y_stride + n0 + column] = value; });
}

}  // namespace tandem::cuda
