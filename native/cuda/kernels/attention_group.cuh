// attention for few query rows on tensor cores and still of f32 precision, as mla_part: up to sixteen heads that share their keys are the rows of a
// product, queries and exponentials come in three bf16 parts, keys and values in bf16 or e4m3 are taken as they are. Head and value are up to D wide.
//
//     attention_group_<cache>_<D>  grid (parts, kvHeads · ⌈group / 16⌉, T), group = heads / kvHeads, 128 threads; merged by attention_merge
//
// Each of four warps attends its own sixteen of 64 positions, the next sixteen on their way meanwhile, and waits for no other until the
// end. Parts of the context, what a part leaves in `partial`, and so the batch law are those of attention_part.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/mla_part.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/shapes.h"
#include "cuda/kernels/shared.cuh"

namespace tandem::cuda {

static constexpr int kSharingHeads = 16, kSharingPositions = 16, kSharingWarps = 4;

template <int D>
using GroupRows = uint16_t[kSharingPositions][D + 8];  // an odd number of 16 bytes a row: eight rows lie in all banks

template <int D>
struct alignas(16) GroupMemory {
  GroupRows<D> keys[kSharingWarps][2], values[kSharingWarps][2];
};
// In the end, of each warp.
template <int D>
struct GroupSums {
  float maximum[kSharingWarps][kSharingHeads], sum[kSharingWarps][kSharingHeads], values[kSharingWarps][kSharingHeads][D];
};
static_assert(sizeof(GroupMemory<64>) == kAttentionGroupShared<64> && sizeof(GroupMemory<128>) == kAttentionGroupShared<128>);
static_assert(sizeof(GroupSums<64>) <= sizeof(GroupMemory<64>) && sizeof(GroupSums<128>) <= sizeof(GroupMemory<128>));

// Sixteen bytes of a row of the cache to shared memory; those of e4m3 are decoded at once.
static TANDEM_DEVICE void bring(uint16_t* row, const uint16_t* from, int c, bool there) { cp_async_16(row + c, there ? from + c : from, there); }
static TANDEM_DEVICE void bring(uint16_t* row, const uint8_t* from, int c, bool there) {
  const uint4 codes = there ? *reinterpret_cast<const uint4*>(from + c) : uint4{0, 0, 0, 0};
  uint4* const to = reinterpret_cast<uint4*>(row + c);
  to[0] = {e4m3_pair<0>(codes.x), e4m3_pair<1>(codes.x), e4m3_pair<0>(codes.y), e4m3_pair<1>(codes.y)};
  to[1] = {e4m3_pair<0>(codes.z), e4m3_pair<1>(codes.z), e4m3_pair<0>(codes.w), e4m3_pair<1>(codes.w)};
}

// A warp's sixteen heads. A thread has heads head(0) and head(1), of their sums the columns 8n + 2q and the next.
template <int D>
struct GroupWarp {
  int lane = static_cast<int>(threadIdx.x & 31);
  uint32_t query[D / 16][3][4];
  float sums[D / 8][4] = {};
  Softmax state[2];

  TANDEM_DEVICE int head(int i) const { return (lane >> 2) + 8 * i; }

  // q: the first of `count` heads. Others, and columns past the head, are 0.
  TANDEM_DEVICE void load_query(const float* q, int head_size, int count) {
    TANDEM_UNROLL
    for (int k = 0; k < D / 16; k++) {
      TANDEM_UNROLL
      for (int i = 0; i < 4; i++) {
        const int own = head(i & 1), column = 16 * k + 8 * (i >> 1) + 2 * (lane & 3);
        const float* from = q + own * head_size + column;
        const bool there = own < count && column < head_size;
        uint32_t parts[3];
        split_bf16(there ? from[0] : 0.0f, there ? from[1] : 0.0f, parts);
        TANDEM_UNROLL
        for (int p = 0; p < 3; p++) query[k][p][i] = parts[p];
      }
    }
  }

  // Takes in the first `positions` of sixteen.
  TANDEM_DEVICE void attend(const GroupRows<D>& keys, const GroupRows<D>& values, int64_t positions, float scale) {
    float scores[2][2][4] = {};  // of the largest parts, and of the others: chains of products stay short
    TANDEM_UNROLL
    for (int k = 0; k < D / 16; k++) {
      uint32_t key[4];
      ldmatrix(key, keys[(lane >> 4) * 8 + (lane & 7)] + 16 * k + (lane >> 3 & 1) * 8);
      const uint32_t pairs[2][2] = {{key[0], key[1]}, {key[2], key[3]}};
      TANDEM_UNROLL
      for (int p = 0; p < 3; p++) {
        mma_bf16(scores[p > 0][0], query[k][p], pairs[0]);
        mma_bf16(scores[p > 0][1], query[k][p], pairs[1]);
      }
    }
    uint32_t weights[3][4];
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      float own[4], most = -INFINITY;
      TANDEM_UNROLL
      for (int j = 0; j < 4; j++) {
        const int n = j >> 1, at = 2 * i + (j & 1), t = 8 * n + 2 * (lane & 3) + (j & 1);
        own[j] = t < positions ? (scores[1][n][at] + scores[0][n][at]) * scale : -INFINITY;
        most = own[j] > most ? own[j] : most;
      }
      most = row_max(most);
      const float maximum = state[i].maximum > most ? state[i].maximum : most;
      float sum = 0;
      TANDEM_UNROLL
      for (int j = 0; j < 4; j++) {
        own[j] = own[j] == -INFINITY ? 0.0f : expf(own[j] - maximum);
        sum += own[j];
      }
      const float shrink = maximum == state[i].maximum ? 1.0f : expf(state[i].maximum - maximum);
      state[i].sum = state[i].sum * shrink + row_sum(sum);
      state[i].maximum = maximum;
      TANDEM_UNROLL
      for (int n = 0; n < D / 8; n++) {
        sums[n][2 * i] *= shrink;
        sums[n][2 * i + 1] *= shrink;
      }
      TANDEM_UNROLL
      for (int n = 0; n < 2; n++) {
        uint32_t parts[3];
        split_bf16(own[2 * n], own[2 * n + 1], parts);
        TANDEM_UNROLL
        for (int p = 0; p < 3; p++) weights[p][2 * n + i] = parts[p];
      }
    }
    TANDEM_UNROLL
    for (int n = 0; n < D / 8; n += 2) {
      uint32_t value[4];
      ldmatrix_transposed(value, values[lane & 15] + 8 * n + (lane >> 4) * 8);
      const uint32_t pairs[2][2] = {{value[0], value[1]}, {value[2], value[3]}};
      float products[2][4] = {};  // from zero on: tensor cores cut off what does not fit, which sums of a whole part would show
      TANDEM_UNROLL
      for (int p = 2; p >= 0; p--) {
        mma_bf16(products[0], weights[p], pairs[0]);
        mma_bf16(products[1], weights[p], pairs[1]);
      }
      TANDEM_UNROLL
      for (int i = 0; i < 4; i++) {
        sums[n][i] += products[0][i];
        sums[n + 1][i] += products[1][i];
      }
    }
  }

  TANDEM_DEVICE void leave(GroupSums<D>& all, int warp) const {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      if ((lane & 3) == 0) {
        all.maximum[warp][head(i)] = state[i].maximum;
        all.sum[warp][head(i)] = state[i].sum;
      }
      TANDEM_UNROLL
      for (int n = 0; n < D / 8; n++) *reinterpret_cast<float2*>(&all.values[warp][head(i)][8 * n + 2 * (lane & 3)]) = {sums[n][2 * i], sums[n][2 * i + 1]};
    }
  }
};

template <typename T, int D>
static TANDEM_DEVICE void attention_group(const AttentionArguments& a) {
  const int64_t part = blockIdx.x, row = blockIdx.z;
  if (row >= *a.keys.rows) return;
  const int64_t sequence = a.keys.sequence_of_row[row];
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  const int64_t group = a.heads / a.kv_heads, chunks = (group + kSharingHeads - 1) / kSharingHeads;
  const int64_t kv_head = blockIdx.y / chunks, head0 = kv_head * group + blockIdx.y % chunks * kSharingHeads;
  const int count = static_cast<int>(smaller(kSharingHeads, (kv_head + 1) * group - head0));
  const Span span = part_of(a, row, part);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, head_size = static_cast<int>(a.head_size), value_size = static_cast<int>(a.value_size);
  if (span.begin >= span.end) {
    if (static_cast<int>(threadIdx.x) < count) {
      float* to = partial_at(a, row, head0 + threadIdx.x, part);
      to[0] = -INFINITY;
      to[1] = 0;
    }
    return;
  }
  GroupMemory<D>& memory = *dynamic_shared<GroupMemory<D>>();
  // Columns that no copy reaches are multiplied by 0: they are made finite.
  for (int i = lane; i < 2 * kSharingPositions * (D / 2); i += 32) {
    const int r = i / (D / 2), c = i % (D / 2) * 2;
    if (c >= head_size) *reinterpret_cast<uint32_t*>(&memory.keys[warp][r / kSharingPositions][r % kSharingPositions][c]) = 0;
    if (c >= value_size) *reinterpret_cast<uint32_t*>(&memory.values[warp][r / kSharingPositions][r % kSharingPositions][c]) = 0;
  }
  // Four lanes a row, 64 bytes of it at a time.
  const auto begin = [&](int buffer, int64_t t0) {
    constexpr int kRun = 16 / static_cast<int>(sizeof(T));
    for (int r = lane >> 2; r < kSharingPositions; r += 8) {
      const bool there = t0 + r < span.end;
      const T* key = cache_at<const T>(a.keys, sequence, there ? t0 + r : t0, kv_head, a.keys.width);
      const T* value = cache_at<const T>(a.values, sequence, there ? t0 + r : t0, kv_head, a.values_stride);
      for (int c = (lane & 3) * kRun; c < head_size; c += 4 * kRun) bring(memory.keys[warp][buffer][r], key, c, there);
      for (int c = (lane & 3) * kRun; c < value_size; c += 4 * kRun) bring(memory.values[warp][buffer][r], value, c, there);
    }
  };
  constexpr int kStride = kSharingWarps * kSharingPositions;
  GroupWarp<D> own;
  int buffer = 0;
  const int64_t first = span.begin + warp * kSharingPositions;
  own.load_query(a.q + row * a.q_stride + head0 * a.head_size, head_size, count);
  for (int64_t t0 = first - kStride; t0 < span.end; t0 += kStride, buffer ^= 1) {
    if (t0 + kStride < span.end) begin(buffer ^ 1, t0 + kStride);
    cp_async_commit();
    if (t0 < first) continue;  // before the first, nothing is there yet
    cp_async_wait<1>();
    __syncwarp();
    own.attend(memory.keys[warp][buffer], memory.values[warp][buffer], span.end - t0, a.scale);
    __syncwarp();  // before the rows that were read are overwritten
  }
  __syncthreads();
  GroupSums<D>& all = *dynamic_shared<GroupSums<D>>();
  own.leave(all, warp);
  __syncthreads();
  for (int i = threadIdx.x; i < count * value_size; i += blockDim.x) {
    const int head = i / value_size, column = i % value_size;
    float maximum = all.maximum[0][head], sum = 0, total = 0;
    for (int w = 1; w < kSharingWarps; w++) maximum = all.maximum[w][head] > maximum ? all.maximum[w][head] : maximum;
    for (int w = 0; w < kSharingWarps; w++) {
      if (all.sum[w][head] == 0) continue;  // saw none
      const float share = expf(all.maximum[w][head] - maximum);
      sum += share * all.values[w][head][column];
      total += share * all.sum[w][head];
    }
    float* to = partial_at(a, row, head0 + head, part);
    to[2 + column] = sum;
    if (column == 0) to[0] = maximum, to[1] = total;
  }
}

}  // namespace tandem::cuda
