// attention for many rows of a sequence, on tensor cores in the manner of FlashAttention-2 (arXiv 2307.08691): 64 query rows of
// one head a block, four warps of 16 rows, 64 positions a step; scores never leave the registers. q, k, v and the exponentials are
// rounded to bf16 (fast mode). Head size and value size are equal, 64 or 128.
//
// Grid: (tiles of the pass, heads), 128 threads. Fragments are those of mma.cuh.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/mma.cuh"

namespace tandem::cuda {

static constexpr int kStep = 64;                    // positions
static constexpr int kStepStride = kStep / 2 + 4;   // words of a row of values, which lie by columns

template <int D>
struct alignas(16) AttentionMemory {
  uint32_t keys[kStep][D / 2 + 4];
  uint16_t values[D][2 * kStepStride];
};

// Positions [t0, end) of both streams into shared memory; past the end: zeros.
template <typename T, int D>
static TANDEM_DEVICE void load_step(const AttentionArguments& a, int64_t sequence, int64_t kv_head, int64_t t0, int64_t end, AttentionMemory<D>& memory) {
  for (int i = threadIdx.x; i < kStep * (D / 8); i += blockDim.x) {
    const int t = i / (D / 8), c = i % (D / 8) * 8;
    float k[8] = {}, v[8] = {};
    if (t0 + t < end) {
      load_eight(cache_at<T>(a.keys, sequence, t0 + t, kv_head, a.keys.width) + c, k);
      load_eight(cache_at<T>(a.values, sequence, t0 + t, kv_head, a.values_stride) + c, v);
    }
    TANDEM_UNROLL
    for (int j = 0; j < 8; j += 2) {
      memory.keys[t][(c + j) / 2] = pack_bf16(k[j], k[j + 1]);
      const uint32_t pair = pack_bf16(v[j], v[j + 1]);
      memory.values[c + j][t] = static_cast<uint16_t>(pair);
      memory.values[c + j + 1][t] = static_cast<uint16_t>(pair >> 16);
    }
  }
}

// Largest, or sum, of the four lanes that share a row.
static TANDEM_DEVICE float row_max(float value) {
  for (int step = 1; step < 4; step <<= 1) {
    const float other = __shfl_xor_sync(kAllLanes, value, step);
    value = other > value || value != value ? other : value;
  }
  return value;
}
static TANDEM_DEVICE float row_sum(float value) {
  for (int step = 1; step < 4; step <<= 1) value += __shfl_xor_sync(kAllLanes, value, step);
  return value;
}

template <typename T, int D>
static TANDEM_DEVICE void attention_tiles(const AttentionArguments& a) {
  __shared__ AttentionMemory<D> memory;
  if (static_cast<int64_t>(blockIdx.x) >= *a.tile_count) return;
  const int64_t row0 = a.tiles[2 * blockIdx.x], count = a.tiles[2 * blockIdx.x + 1], head = blockIdx.y;
  const int64_t sequence = a.keys.sequence_of_row[row0], kv_head = head / (a.heads / a.kv_heads);
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3, warp_row = static_cast<int>(threadIdx.x >> 5) * 16;
  const int64_t position0 = a.keys.positions[row0], end = position0 + count;

  // This thread's rows of the tile: i = 0, 1. What a row past the count holds is never written.
  uint32_t query[D / 16][4];
  TANDEM_UNROLL
  for (int k = 0; k < D / 16; k++) {
    TANDEM_UNROLL
    for (int part = 0; part < 4; part++) {
      const int64_t row = warp_row + g + (part & 1) * 8;
      const float* from = a.q + (row0 + row) * a.q_stride + head * D + 16 * k + 2 * q + (part >> 1) * 8;
      query[k][part] = row < count ? pack_bf16(from[0], from[1]) : 0;
    }
  }
  float sums[D / 8][4] = {};
  Softmax state[2];
  const int64_t first = a.window > 0 && position0 >= a.window ? position0 + 1 - a.window : 0;
  for (int64_t t0 = first / kStep * kStep; t0 < end; t0 += kStep) {
    __syncthreads();
    load_step<T, D>(a, sequence, kv_head, t0, end, memory);
    __syncthreads();
    float scores[kStep / 8][4] = {};
    TANDEM_UNROLL
    for (int k = 0; k < D / 16; k++) {
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        const uint32_t* key = memory.keys[8 * n + g] + 8 * k + q;
        const uint32_t b[2] = {key[0], key[4]};
        mma_bf16(scores[n], query[k], b);
      }
    }
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int64_t position = position0 + warp_row + g + 8 * i;
      const int64_t from = a.window > 0 && position >= a.window ? position + 1 - a.window : 0;
      float maximum = -INFINITY;
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) {
          const int64_t t = t0 + 8 * n + 2 * q + j;
          float& score = scores[n][2 * i + j];
          score = t >= from && t <= position ? score * a.scale : -INFINITY;
          maximum = score > maximum ? score : maximum;
        }
      }
      maximum = row_max(maximum);
      maximum = state[i].maximum > maximum ? state[i].maximum : maximum;
      float sum = 0;
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) {
          float& score = scores[n][2 * i + j];
          score = score == -INFINITY ? 0.0f : expf(score - maximum);
          sum += score;
        }
      }
      const float shrink = maximum == state[i].maximum ? 1.0f : expf(state[i].maximum - maximum);
      state[i].sum = state[i].sum * shrink + row_sum(sum);
      state[i].maximum = maximum;
      TANDEM_UNROLL
      for (int n = 0; n < D / 8; n++) {
        sums[n][2 * i] *= shrink;
        sums[n][2 * i + 1] *= shrink;
      }
    }
    TANDEM_UNROLL
    for (int k = 0; k < kStep / 16; k++) {
      const uint32_t p[4] = {pack_bf16(scores[2 * k][0], scores[2 * k][1]), pack_bf16(scores[2 * k][2], scores[2 * k][3]),
                             pack_bf16(scores[2 * k + 1][0], scores[2 * k + 1][1]), pack_bf16(scores[2 * k + 1][2], scores[2 * k + 1][3])};
      TANDEM_UNROLL
      for (int n = 0; n < D / 8; n++) {
        const uint32_t* value = reinterpret_cast<const uint32_t*>(memory.values[8 * n + g]) + 8 * k + q;
        const uint32_t b[2] = {value[0], value[4]};
        mma_bf16(sums[n], p, b);
      }
    }
  }
  const float sink = a.sinks == nullptr ? -INFINITY : a.sinks[head];
  TANDEM_UNROLL
  for (int i = 0; i < 2; i++) {
    const int64_t row = warp_row + g + 8 * i;
    if (row >= count) continue;
    const float maximum = sink > state[i].maximum ? sink : state[i].maximum;
    const float shrink = maximum == state[i].maximum ? 1.0f : expf(state[i].maximum - maximum);
    const float total = state[i].sum * shrink + (sink == -INFINITY ? 0.0f : expf(sink - maximum));
    float* to = a.y + (row0 + row) * a.y_stride + head * D + 2 * q;
    TANDEM_UNROLL
    for (int n = 0; n < D / 8; n++) {
      to[8 * n] = sums[n][2 * i] * shrink / total;
      to[8 * n + 1] = sums[n][2 * i + 1] * shrink / total;
    }
  }
}

}  // namespace tandem::cuda
