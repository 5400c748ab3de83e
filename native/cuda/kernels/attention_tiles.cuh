// attention for many rows of a sequence, on tensor cores in the manner of FlashAttention-2 (arXiv 2307.08691): 64 query rows of one
// head, four warps of 16 rows, 64 positions a step; scores never leave the registers. Where an even number of heads shares its keys, a block has two of them.
// Keys and values of the next step are copied while this one is attended: caches of bf16 as they are, others are decoded on the way. q, k, v and the exponentials
// are rounded to bf16 (fast mode). D and V are how much room there is for the head and for the value: both even, zeros fill them up.
//
// Grid: (tiles of the pass, heads / heads of a block), 128 threads a head. Fragments are those of mma.cuh.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/shapes.h"
#include "cuda/kernels/shared.cuh"

namespace tandem::cuda {

static constexpr int kStep = 64;  // positions

// Two steps. Rows are an odd number of 16 bytes long: eight of them lie in all banks.
template <int D, int V>
struct alignas(16) AttentionMemory {
  uint16_t keys[2][kStep][D + 8];
  uint16_t values[2][kStep][V + 8];
};

// Rows of up to 64 positions into shared memory; what is not there becomes 0. `from`: whole() says whether its rows are bf16 that come by runs of
// 16 bytes, the one at columns c of position t being at(t, c): they are copied beside the work. Else read(t, c, out) gives eight columns.
template <int Columns, typename Source>
static TANDEM_DEVICE void load_rows(uint16_t (*to)[Columns + 8], int64_t positions, const Source& from) {
  for (int i = threadIdx.x; i < kStep * (Columns / 8); i += blockDim.x) {
    const int t = i / (Columns / 8), c = i % (Columns / 8) * 8;
    const bool there = t < positions && c < from.columns;
    if (from.whole()) {
      cp_async_16(&to[t][c], there ? from.at(t, c) : from.at(0, 0), there);
      continue;
    }
    float v[8] = {};
    if (there) from.read(t, c, v);
    *reinterpret_cast<uint4*>(&to[t][c]) = {pack_bf16(v[0], v[1]), pack_bf16(v[2], v[3]), pack_bf16(v[4], v[5]), pack_bf16(v[6], v[7])};
  }
}

// Rows of a stream of the cache.
template <typename T>
struct CacheRows {
  const CacheView& cache;
  int64_t sequence, head, stride, columns;
  bool wholes;
  int64_t t0 = 0;
  const T* first = nullptr;  // of a step that lies in one page; else pages are looked up for every row

  TANDEM_DEVICE CacheRows(const CacheView& cache, int64_t sequence, int64_t head, int64_t stride, int64_t columns)
      : cache(cache), sequence(sequence), head(head), stride(stride), columns(columns),
        wholes(sizeof(T) == 2 && (columns | stride | cache.offset | cache.page_elements) % 8 == 0 && aligned(cache.base, 16)) {}
  // From position t0, a multiple of 64, on.
  TANDEM_DEVICE void step(int64_t from) {
    t0 = from;
    first = cache.page_tokens % kStep == 0 ? cache_at<const T>(cache, sequence, t0, head, stride) : nullptr;
  }
  TANDEM_DEVICE bool whole() const { return sizeof(T) == 2 && wholes; }
  TANDEM_DEVICE const T* at(int t, int c) const { return (first != nullptr ? first + t * stride : cache_at<const T>(cache, sequence, t0 + t, head, stride)) + c; }
  TANDEM_DEVICE void read(int t, int c, float* out) const { load_up_to_eight(at(t, c), columns - c, out); }
};

static constexpr float kLog2E = 1.44269504f;

// What a warp holds of a tile: its 16 rows of one head. A thread has rows row(0) and row(1), of each the columns 8n + 2q and the next.
// Scores, their maximum among them, are logarithms to base 2.
template <int D, int V>
struct TileRows {
  int64_t position0 = 0, count = 0;  // of the tile: position of its first row, rows
  uint32_t query[D / 16][4];
  float sums[V / 8][4] = {};
  Softmax state[2];

  static TANDEM_DEVICE int64_t row(int i) { return static_cast<int64_t>(threadIdx.x >> 5 & 3) * 16 + (threadIdx.x >> 2 & 7) + 8 * i; }
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

  // Takes in the positions from t0 on, of those before `end`, that lie in shared memory; a row sees those up to its own, `window` of them where it is not 0.
  TANDEM_DEVICE void attend(const uint16_t (*keys)[D + 8], const uint16_t (*values)[V + 8], int64_t t0, int64_t end, float scale, int64_t window) {
    const int lane = threadIdx.x & 31;
    float scores[kStep / 8][4] = {};
    TANDEM_UNROLL
    for (int k = 0; k < D / 16; k++) {
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n += 2) {
        uint32_t key[4];
        ldmatrix(key, keys[8 * n + (lane >> 4) * 8 + (lane & 7)] + 16 * k + (lane >> 3 & 1) * 8);
        const uint32_t pairs[2][2] = {{key[0], key[1]}, {key[2], key[3]}};
        mma_bf16(scores[n], query[k], pairs[0]);
        mma_bf16(scores[n + 1], query[k], pairs[1]);
      }
    }
    TANDEM_UNROLL
    for (int n = 0; n < kStep / 8; n++) {
      TANDEM_UNROLL
      for (int j = 0; j < 4; j++) scores[n][j] *= scale * kLog2E;
    }
    const bool all = t0 + kStep <= end && t0 + kStep - 1 <= position0 && (window == 0 || position0 + count - 1 - t0 < window);
    if (!all) mask(scores, t0, end, window);
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      float maximum = -INFINITY;
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) maximum = scores[n][2 * i + j] > maximum ? scores[n][2 * i + j] : maximum;
      }
      maximum = row_max(maximum);
      maximum = state[i].maximum > maximum ? state[i].maximum : maximum;
      const float origin = maximum == -INFINITY ? 0.0f : maximum;  // a row that sees none of them
      float sum = 0;
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) {
          float& score = scores[n][2 * i + j];
          score = approximate_exp2(score - origin);
          sum += score;
        }
      }
      const float shrink = approximate_exp2(state[i].maximum - origin);
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
      for (int n = 0; n < V / 8; n += 2) {
        uint32_t value[4];
        ldmatrix_transposed(value, values[16 * k + (lane & 15)] + 8 * n + (lane >> 4) * 8);
        const uint32_t pairs[2][2] = {{value[0], value[1]}, {value[2], value[3]}};
        mma_bf16(sums[n], p, pairs[0]);
        mma_bf16(sums[n + 1], p, pairs[1]);
      }
    }
  }

  // −∞ where a row does not see a position.
  TANDEM_DEVICE void mask(float (&scores)[kStep / 8][4], int64_t t0, int64_t end, int64_t window) const {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int64_t position = position0 + row(i);
      const int last = static_cast<int>(smaller(smaller(position + 1, end) - t0, kStep));
      const int first = static_cast<int>(window > 0 && position >= t0 + window ? smaller(position + 1 - window - t0, kStep) : 0);
      TANDEM_UNROLL
      for (int n = 0; n < kStep / 8; n++) {
        TANDEM_UNROLL
        for (int j = 0; j < 2; j++) {
          const int t = column(n) + j;
          if (t < first || t >= last) scores[n][2 * i + j] = -INFINITY;
        }
      }
    }
  }

  // y: the head's columns of the tile's first row.
  TANDEM_DEVICE void store(float* y, int64_t stride, int64_t value_size, float sink) const {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      if (row(i) >= count) continue;
      const float own = sink * kLog2E, maximum = own > state[i].maximum ? own : state[i].maximum;
      const float shrink = exp2f(state[i].maximum - maximum);
      const float total = state[i].sum * shrink + (sink == -INFINITY ? 0.0f : exp2f(own - maximum));
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
  static_assert(sizeof(AttentionMemory<D, V>) == kAttentionTilesShared<D, V>);
  const int64_t tile = *a.tile_count - 1 - static_cast<int64_t>(blockIdx.x);  // the longest contexts first
  if (tile < 0) return;
  const int64_t row0 = a.tiles[2 * tile], head0 = static_cast<int64_t>(blockIdx.y) * (blockDim.x / 128), head = head0 + (threadIdx.x >> 7);
  const int64_t sequence = a.keys.sequence_of_row[row0], kv_head = head0 / (a.heads / a.kv_heads);
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  AttentionMemory<D, V>& memory = *dynamic_shared<AttentionMemory<D, V>>();
  TileRows<D, V> rows;
  rows.position0 = a.keys.positions[row0];
  rows.count = a.tiles[2 * tile + 1];
  const int64_t end = rows.position0 + rows.count, first = a.window > 0 && rows.position0 >= a.window ? rows.position0 + 1 - a.window : 0;
  CacheRows<T> keys(a.keys, sequence, kv_head, a.keys.width, a.head_size), values(a.values, sequence, kv_head, a.values_stride, a.value_size);
  const auto begin = [&](int buffer, int64_t t0) {
    keys.step(t0);
    load_rows<D>(memory.keys[buffer], end - t0, keys);
    values.step(t0);
    load_rows<V>(memory.values[buffer], end - t0, values);
    cp_async_commit();
  };
  int buffer = 0;
  begin(buffer, first / kStep * kStep);
  rows.load_query(a.q + row0 * a.q_stride + head * a.head_size, a.q_stride, a.head_size);
  for (int64_t t0 = first / kStep * kStep; t0 < end; t0 += kStep, buffer ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this step is there, and the one before is read by none any more
    if (t0 + kStep < end) begin(buffer ^ 1, t0 + kStep);
    rows.attend(memory.keys[buffer], memory.values[buffer], t0, end, a.scale, a.window);
  }
  rows.store(a.y + row0 * a.y_stride + head * a.value_size, a.y_stride, a.value_size, a.sinks == nullptr ? -INFINITY : a.sinks[head]);
}

}  // namespace tandem::cuda
