// attention and absorbed mla, for few query rows over long contexts: the context is split into parts that run beside each other,
// a second kernel merges them by log-sum-exp. Any row of any pass may come this way; rows of a prefill are only slow.
//
//     attention_part   grid (parts, kvHeads · ⌈group / 8⌉, T), group = heads / kvHeads: one block a part and eight heads
//     attention_merge  grid (1, heads, T)
//
// Parts begin at multiples of `part` positions, so the sums of a row do not depend on its batch. Of absorbed MLA the query is
// [latent ‖ rope] a head, keys are the stream itself and values its first `value_size` columns: kvHeads 1, read once a part.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/cache.cuh"

namespace tandem::cuda {

static constexpr int kHeadsAtOnce = 8;       // one warp each, in the softmax
static constexpr int kPositionsAtOnce = 64;  // two a lane
static constexpr int kMaxHeadSize = 576;
static constexpr int kMaxValueSize = 512;

static TANDEM_DEVICE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

// Largest, or sum, of the four lanes that share a row of a product.
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

// Positions [begin, end) that row `row` sees of part `part`.
struct Span {
  int64_t begin, end;
};
static TANDEM_DEVICE Span part_of(const AttentionArguments& a, int64_t row, int64_t part) {
  const int64_t visible = a.keys.positions[row] + 1;
  const int64_t first = a.window > 0 && visible > a.window ? visible - a.window : 0;
  const int64_t begin = part * a.part, end = smaller(begin + a.part, visible);
  return {begin > first ? begin : first, end};
}

// Place of (row, head, part) in `partial`: maximum, sum, then value_size sums.
static TANDEM_DEVICE float* partial_at(const AttentionArguments& a, int64_t row, int64_t head, int64_t part) {
  return a.partial + ((row * a.heads + head) * a.parts + part) * (a.value_size + 2);
}

// Scores of up to 64 positions from t0 on, of all heads: eight lanes a position. Past `end`: −∞.
template <typename T>
static TANDEM_DEVICE void score_tile(const AttentionArguments& a, int64_t sequence, int64_t kv_head, int64_t t0, int64_t end, const float* q, float (*scores)[kPositionsAtOnce]) {
  const int sub = threadIdx.x & 7, head_size = static_cast<int>(a.head_size);
  for (int slot = threadIdx.x >> 3; slot < kPositionsAtOnce; slot += blockDim.x >> 3) {
    float sums[kHeadsAtOnce] = {};
    if (t0 + slot < end) {
      const T* key = cache_at<T>(a.keys, sequence, t0 + slot, kv_head, a.keys.width);
      for (int c = 8 * sub; c < head_size; c += 64) {
        float k[8];
        load_eight(key + c, k);
        TANDEM_UNROLL
        for (int h = 0; h < kHeadsAtOnce; h++) {
          TANDEM_UNROLL
          for (int i = 0; i < 8; i++) sums[h] += q[h * head_size + c + i] * k[i];
        }
      }
    }
    TANDEM_UNROLL
    for (int h = 0; h < kHeadsAtOnce; h++) {
      for (int step = 1; step < 8; step <<= 1) sums[h] += __shfl_xor_sync(kAllLanes, sums[h], step);
      if (sub == h) scores[h][slot] = t0 + slot < end ? sums[h] * a.scale : -INFINITY;
    }
  }
}

// A head's softmax so far; the same in every lane of its warp.
struct Softmax {
  float maximum = -INFINITY, sum = 0;
};

// Turns a head's scores into exponentials and says by how much what was summed before shrinks. −∞ everywhere leaves sums of 0.
static TANDEM_DEVICE float soften(Softmax& state, float* scores, int count) {
  const int lane = threadIdx.x & 31;
  float maximum = state.maximum;
  for (int i = lane; i < count; i += 32) maximum = scores[i] > maximum ? scores[i] : maximum;
  maximum = warp_max(maximum);
  float sum = 0;
  for (int i = lane; i < count; i += 32) {
    const float p = maximum == -INFINITY && scores[i] == -INFINITY ? 0.0f : expf(scores[i] - maximum);
    scores[i] = p;
    sum += p;
  }
  const float shrink = maximum == state.maximum ? 1.0f : expf(state.maximum - maximum);
  state.sum = state.sum * shrink + warp_sum(sum);
  state.maximum = maximum;
  return shrink;
}

template <typename T>
static TANDEM_DEVICE void attention_part(const AttentionArguments& a) {
  __shared__ float memory[kHeadsAtOnce * kMaxHeadSize];  // queries, and in the end the sums of the slices
  __shared__ float scores[kHeadsAtOnce][kPositionsAtOnce];
  __shared__ float shrinks[kHeadsAtOnce];
  const int64_t part = blockIdx.x, row = blockIdx.z;
  if (row >= *a.keys.rows) return;
  const int64_t sequence = a.keys.sequence_of_row[row];
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  const int64_t group = a.heads / a.kv_heads, chunks = (group + kHeadsAtOnce - 1) / kHeadsAtOnce;
  const int64_t kv_head = blockIdx.y / chunks, head0 = kv_head * group + blockIdx.y % chunks * kHeadsAtOnce;
  const int count = static_cast<int>(smaller(kHeadsAtOnce, (kv_head + 1) * group - head0));
  const Span span = part_of(a, row, part);
  const int thread = threadIdx.x, warp = thread >> 5, value_size = static_cast<int>(a.value_size);
  if (span.begin >= span.end) {
    if (thread < count) {
      float* to = partial_at(a, row, head0 + thread, part);
      to[0] = -INFINITY;
      to[1] = 0;
    }
    return;
  }
  for (int64_t i = thread; i < kHeadsAtOnce * a.head_size; i += blockDim.x) memory[i] = i < count * a.head_size ? a.q[row * a.q_stride + head0 * a.head_size + i] : 0.0f;
  __syncthreads();

  // A thread sums two columns of the values over every slices-th position.
  const int pairs = value_size / 2, slices = static_cast<int>(blockDim.x) / pairs, slice = thread / pairs, column = thread % pairs * 2;
  float sums[kHeadsAtOnce][2] = {};
  Softmax state;
  for (int64_t t0 = span.begin; t0 < span.end; t0 += kPositionsAtOnce) {
    const int positions = static_cast<int>(smaller(kPositionsAtOnce, span.end - t0));
    score_tile<T>(a, sequence, kv_head, t0, span.end, memory, scores);
    __syncthreads();
    if (warp < kHeadsAtOnce) {
      const float shrink = soften(state, scores[warp], positions);
      if ((thread & 31) == 0) shrinks[warp] = shrink;
    }
    __syncthreads();
    if (slice < slices) {
      TANDEM_UNROLL
      for (int h = 0; h < kHeadsAtOnce; h++) {
        sums[h][0] *= shrinks[h];
        sums[h][1] *= shrinks[h];
      }
      for (int t = slice; t < positions; t += slices) {
        const T* value = cache_at<T>(a.values, sequence, t0 + t, kv_head, a.values_stride) + column;
        const float v0 = cache_float(value[0]), v1 = cache_float(value[1]);
        TANDEM_UNROLL
        for (int h = 0; h < kHeadsAtOnce; h++) {
          sums[h][0] += scores[h][t] * v0;
          sums[h][1] += scores[h][t] * v1;
        }
      }
    }
    __syncthreads();
  }
  if (slice < slices) {
    TANDEM_UNROLL
    for (int h = 0; h < kHeadsAtOnce; h++) {
      memory[(slice * kHeadsAtOnce + h) * value_size + column] = sums[h][0];
      memory[(slice * kHeadsAtOnce + h) * value_size + column + 1] = sums[h][1];
    }
  }
  __syncthreads();
  for (int i = thread; i < count * value_size; i += blockDim.x) {
    float sum = 0;
    for (int s = 0; s < slices; s++) sum += memory[s * kHeadsAtOnce * value_size + i];
    partial_at(a, row, head0 + i / value_size, part)[2 + i % value_size] = sum;
  }
  if (warp < count && (thread & 31) == 0) {
    float* to = partial_at(a, row, head0 + warp, part);
    to[0] = state.maximum;
    to[1] = state.sum;
  }
}

static TANDEM_DEVICE void attention_merge(const AttentionArguments& a) {
  const int64_t head = blockIdx.y, row = blockIdx.z;
  if (row >= *a.keys.rows) return;
  if (a.keys.dead != nullptr && a.keys.dead[a.keys.sequence_of_row[row]]) return;
  const int64_t used = smaller(a.parts, a.keys.positions[row] / a.part + 1);  // parts beyond hold nothing
  const float sink = a.sinks == nullptr ? -INFINITY : a.sinks[head];
  float maximum = sink;
  for (int64_t p = 0; p < used; p++) {
    const float own = partial_at(a, row, head, p)[0];
    maximum = own > maximum ? own : maximum;
  }
  float total = sink == -INFINITY ? 0.0f : expf(sink - maximum);
  for (int64_t p = 0; p < used; p++) {
    const float* from = partial_at(a, row, head, p);
    if (from[1] != 0) total += expf(from[0] - maximum) * from[1];
  }
  for (int64_t c = threadIdx.x; c < a.value_size; c += blockDim.x) {
    float sum = 0;
    for (int64_t p = 0; p < used; p++) {
      const float* from = partial_at(a, row, head, p);
      if (from[1] != 0) sum += expf(from[0] - maximum) * from[2 + c];
    }
    a.y[row * a.y_stride + head * a.value_size + c] = sum / total;
  }
}

}  // namespace tandem::cuda
