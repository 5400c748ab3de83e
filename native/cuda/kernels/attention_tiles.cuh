// attention for many rows of a sequence, on tensor cores in the manner of FlashAttention-2 (arXiv 2307.08691): 64 query rows of
// one head a block, four warps of 16 rows, 64 positions a step; scores never leave the registers. q, k, v and the exponentials are
// rounded to bf16 (fast mode). D and V are how much room there is for the head and for the value: both even, zeros fill them up.
//
// Grid: (tiles of the pass, heads), 128 threads. Fragments are those of mma.cuh.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/mma.cuh"

namespace tandem::cuda {

static constexpr int kStep = 64;                    // positions
static constexpr int kStepStride = kStep / 2 + 4;   // words of a row of values, which lie by columns

template <int D, int V>
struct alignas(16) AttentionMemory {
  uint32_t keys[kStep][D / 2 + 4];
  uint16_t values[V][2 * kStepStride];
};

// Up to 64 positions into shared memory, eight elements at a time. key(t, c, out), value(t, c, out): elements from c on of position t
// of the step; what they leave is 0.
template <int D, int V, typename Key, typename Value>
static TANDEM_DEVICE void load_step(AttentionMemory<D, V>& memory, int64_t positions, Key key, Value value) {
  for (int i = threadIdx.x; i < kStep * (D / 8); i += blockDim.x) {
    const int t = i / (D / 8), c = i % (D / 8) * 8;
    float k[8] = {};
    if (t < positions) key(t, c, k);
    TANDEM_UNROLL
    for (int j = 0; j < 8; j += 2) memory.keys[t][(c + j) / 2] = pack_bf16(k[j], k[j + 1]);
  }
  for (int i = threadIdx.x; i < kStep * (V / 8); i += blockDim.x) {
    const int t = i / (V / 8), c = i % (V / 8) * 8;
    float v[8] = {};
    if (t < positions) value(t, c, v);
    TANDEM_UNROLL
    for (int j = 0; j < 8; j += 2) {
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

// What a warp holds of a tile: its 16 rows of one head. A thread has rows row(0) and row(1), of each the columns 8n + 2q and the next.
template <int D, int V>
struct TileRows {
  int64_t position0, count;  // of the tile: position of its first row, rows
  uint32_t query[D / 16][4];
  float sums[V / 8][4] = {};
  Softmax state[2];

  static TANDEM_DEVICE int64_t row(int i) { return static_cast<int64_t>(threadIdx.x >> 5) * 16 + (threadIdx.x >> 2 & 7) + 8 * i; }
  static TANDEM_DEVICE int column(int n) { return 8 * n + static_cast<int>(threadIdx.x & 3) * 2; }

  // q: the head's columns of the tile's first row. What a row past the count holds is never written.
  TANDEM_DEVICE void load_query(const float* q, int64_t stride, int64_t head_size) {
    TANDEM_UNROLL
    for (int k = 0; k < D / 16; k++) {
      TANDEM_UNROLL
      for (int part = 0; part < 4; part++) {
        const int64_t r = row(part & 1), c = column(2 * k + (part >> 1));
        const float* from = q + r * stride + c;
        query[k][part] = r < count && c < head_size ? pack_bf16(from[0], from[1]) : 0;
      }
    }
  }

  // Takes in the 64 positions from t0 on that lie in shared memory; a row sees those up to its own, `window` of them where it is not 0.
  TANDEM_DEVICE void attend(const AttentionMemory<D, V>& memory, int64_t t0, float scale, int64_t window) {
    const int lane = threadIdx.x & 31, g = lane >> 2, q = lane & 3;
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
      const int64_t position = position0 + row(i);
      const int64_t from = window > 0 && position >= window ? position + 1 - window : 0;
      float maximum = -INFINITY;
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) {
          const int64_t t = t0 + column(n) + j;
          float& score = scores[n][2 * i + j];
          score = t >= from && t <= position ? score * scale : -INFINITY;
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
      for (int n = 0; n < V / 8; n++) {
        sums[n][2 * i] *= shrink;
        sums[n][2 * i + 1] *= shrink;
      }
    }
    TANDEM_UNROLL
    for (int k = 0; k < kStep / 16; k++) {
      const uint32_t p[4] = {pack_bf16(scores[2 * k][0], scores[2 * k][1]), pack_bf16(scores[2 * k][2], scores[2 * k][3]),
                             pack_bf16(scores[2 * k + 1][0], scores[2 * k + 1][1]), pack_bf16(scores[2 * k + 1][2], scores[2 * k + 1][3])};
      TANDEM_UNROLL
      for (int n = 0; n < V / 8; n++) {
        const uint32_t* value = reinterpret_cast<const uint32_t*>(memory.values[8 * n + g]) + 8 * k + q;
        const uint32_t b[2] = {value[0], value[4]};
        mma_bf16(sums[n], p, b);
      }
    }
  }

  // y: the head's columns of the tile's first row.
  TANDEM_DEVICE void store(float* y, int64_t stride, int64_t value_size, float sink) const {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      if (row(i) >= count) continue;
      const float maximum = sink > state[i].maximum ? sink : state[i].maximum;
      const float shrink = maximum == state[i].maximum ? 1.0f : expf(state[i].maximum - maximum);
      const float total = state[i].sum * shrink + (sink == -INFINITY ? 0.0f : expf(sink - maximum));
      TANDEM_UNROLL
      for (int n = 0; n < V / 8; n++) {
        float* to = y + row(i) * stride + column(n);
        if (column(n) >= value_size) continue;
        to[0] = sums[n][2 * i] * shrink / total;
        to[1] = sums[n][2 * i + 1] * shrink / total;
      }
    }
  }
};

// Head size up to D, value size up to V.
template <typename T, int D, int V>
static TANDEM_DEVICE void attention_tiles(const AttentionArguments& a) {
  __shared__ AttentionMemory<D, V> memory;
  if (static_cast<int64_t>(blockIdx.x) >= *a.tile_count) return;
  const int64_t row0 = a.tiles[2 * blockIdx.x], head = blockIdx.y;
  const int64_t sequence = a.keys.sequence_of_row[row0], kv_head = head / (a.heads / a.kv_heads);
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  TileRows<D, V> rows;
  rows.position0 = a.keys.positions[row0];
  rows.count = a.tiles[2 * blockIdx.x + 1];
  rows.load_query(a.q + row0 * a.q_stride + head * a.head_size, a.q_stride, a.head_size);
  const int64_t end = rows.position0 + rows.count, first = a.window > 0 && rows.position0 >= a.window ? rows.position0 + 1 - a.window : 0;
  for (int64_t t0 = first / kStep * kStep; t0 < end; t0 += kStep) {
    __syncthreads();
    load_step<D, V>(
        memory, end - t0,
        [&](int t, int c, float* out) {
          if (c < a.head_size) load_up_to_eight(cache_at<const T>(a.keys, sequence, t0 + t, kv_head, a.keys.width) + c, a.head_size - c, out);
        },
        [&](int t, int c, float* out) {
          if (c < a.value_size) load_up_to_eight(cache_at<const T>(a.values, sequence, t0 + t, kv_head, a.values_stride) + c, a.value_size - c, out);
        });
    __syncthreads();
    rows.attend(memory, t0, a.scale, a.window);
  }
  rows.store(a.y + row0 * a.y_stride + head * a.value_size, a.y_stride, a.value_size, a.sinks == nullptr ? -INFINITY : a.sinks[head]);
}

}  // namespace tandem::cuda
