// mla in its absorbed form for few query rows, on tensor cores and still of f32 precision: a query of f32 is the sum of three bf16 numbers exactly
// enough (2^-24 of it is lost), so are the exponentials, and latents in bf16 or e4m3 are taken as they are. Sixteen heads share a tile of 32 positions of
// the latent stream in shared memory, which is key and, in its first columns, value; the next tile is copied meanwhile.
//
//     mla_part_<cache>  grid (parts, ⌈heads / 16⌉, T), 256 threads; merged by attention_merge
//
// Eight warps: of the scores each takes 16 positions and a quarter of the columns, of the values 64 columns. Parts of the context, what a part
// leaves in `partial`, and so the batch law are those of attention_part.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention.cuh"
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/shapes.h"
#include "cuda/kernels/shared.cuh"

namespace tandem::cuda {

static constexpr int kMlaHeads = 16, kMlaPositions = 32;       // of a block, of a tile
static constexpr int kMlaWidth = 576, kMlaLatent = 512;        // at most; both multiples of 16
static constexpr int kMlaStride = kMlaWidth + 8;               // elements: an odd number of 16 bytes, so that eight rows lie in all banks
static constexpr int kMlaQuarters = 4, kMlaQuarterSteps = kMlaWidth / 16 / kMlaQuarters;
static constexpr int kMlaScoreStride = kMlaPositions + 8, kMlaWeightStride = kMlaPositions + 8;

// The three parts of a pair, the largest first.
static TANDEM_DEVICE void split_bf16(float low, float high, uint32_t (&parts)[3]) {
  TANDEM_UNROLL
  for (int i = 0; i < 3; i++) {
    parts[i] = pack_bf16(low, high);
    low -= bits_float(parts[i] << 16);
    high -= bits_float(parts[i] & 0xffff0000u);
  }
}

// Columns from `width`, a multiple of 16, on to 0.
static TANDEM_DEVICE void clear_columns(uint16_t (*rows)[kMlaStride], int count, int width) {
  const int words = (kMlaWidth - width) / 2;
  for (int i = threadIdx.x; i < count * words; i += blockDim.x) *reinterpret_cast<uint32_t*>(rows[i / words] + width + i % words * 2) = 0;
}

// Tiles of latents. Thread t copies of row t / 8 every eighth run of 16 bytes.
template <typename T>
struct MlaTiles;

template <>
struct alignas(16) MlaTiles<uint16_t> {
  uint16_t rows[2][kMlaPositions][kMlaStride];

  TANDEM_DEVICE uint8_t* place(int buffer, int row) { return reinterpret_cast<uint8_t*>(rows[buffer][row]); }
  TANDEM_DEVICE const uint16_t* row(int buffer, int row) const { return rows[buffer][row]; }
  TANDEM_DEVICE void decode(int, int64_t) {}  // ready to be multiplied
  TANDEM_DEVICE void clear(int width) { clear_columns(rows[0], 2 * kMlaPositions, width); }
};

// As the cache has them, and one tile as bf16.
template <>
struct alignas(16) MlaTiles<uint8_t> {
  uint8_t raw[2][kMlaPositions][kMlaWidth];
  uint16_t rows[kMlaPositions][kMlaStride];

  TANDEM_DEVICE uint8_t* place(int buffer, int row) { return raw[buffer][row]; }
  TANDEM_DEVICE const uint16_t* row(int, int row) const { return rows[row]; }
  TANDEM_DEVICE void clear(int width) { clear_columns(rows, kMlaPositions, width); }
  // A thread decodes what it copied.
  TANDEM_DEVICE void decode(int buffer, int64_t width) {
    const int own = threadIdx.x >> 3;
    __syncthreads();  // the last tile is read by none any more
    for (int c = static_cast<int>(threadIdx.x & 7) * 16; c < width; c += 128) {
      const uint4 codes = *reinterpret_cast<const uint4*>(raw[buffer][own] + c);
      uint4* const to = reinterpret_cast<uint4*>(rows[own] + c);
      to[0] = {e4m3_pair<0>(codes.x), e4m3_pair<1>(codes.x), e4m3_pair<0>(codes.y), e4m3_pair<1>(codes.y)};
      to[1] = {e4m3_pair<0>(codes.z), e4m3_pair<1>(codes.z), e4m3_pair<0>(codes.w), e4m3_pair<1>(codes.w)};
    }
  }
};

template <typename T>
struct alignas(16) MlaPartMemory {
  MlaTiles<T> tiles;
  float scores[kMlaQuarters][kMlaHeads][kMlaScoreStride];   // of each quarter of the columns
  uint16_t weights[3][kMlaHeads][kMlaWeightStride];         // exponentials, by parts
  float shrinks[kMlaHeads];
};
static_assert(sizeof(MlaPartMemory<uint16_t>) <= kMlaPartShared && sizeof(MlaPartMemory<uint8_t>) <= kMlaPartShared);

// What a warp holds: a quarter of the columns of sixteen queries, and 64 columns of their sums.
template <typename T>
struct MlaPart {
  MlaPartMemory<T>& memory;
  const AttentionArguments& a;
  int lane = static_cast<int>(threadIdx.x & 31), warp = static_cast<int>(threadIdx.x >> 5);
  uint32_t page, place;  // in the context: where the row that this thread copies lies
  uint32_t query[kMlaQuarterSteps][3][4];
  float sums[8][4] = {};
  Softmax state[2];  // of heads 2·warp and the next

  // What lies behind the columns that there are is multiplied by 0: it is made finite.
  TANDEM_DEVICE MlaPart(MlaPartMemory<T>& memory, const AttentionArguments& a, int64_t t0) : memory(memory), a(a) {
    const uint32_t own = static_cast<uint32_t>(t0) + (threadIdx.x >> 3), page_tokens = static_cast<uint32_t>(a.keys.page_tokens);
    page = own / page_tokens, place = own % page_tokens;
    memory.tiles.clear(static_cast<int>(a.head_size));
  }

  // q: the first of `count` heads. Others are 0.
  TANDEM_DEVICE void load_query(const float* q, int count) {
    TANDEM_UNROLL
    for (int k = 0; k < kMlaQuarterSteps; k++) {
      TANDEM_UNROLL
      for (int i = 0; i < 4; i++) {
        const int head = (lane >> 2) + 8 * (i & 1), column = 16 * (warp % kMlaQuarters * kMlaQuarterSteps + k) + 8 * (i >> 1) + 2 * (lane & 3);
        const float* from = q + head * a.head_size + column;
        const bool there = head < count && column < a.head_size;
        uint32_t parts[3];
        split_bf16(there ? from[0] : 0.0f, there ? from[1] : 0.0f, parts);
        TANDEM_UNROLL
        for (int p = 0; p < 3; p++) query[k][p][i] = parts[p];
      }
    }
  }

  // Begins to copy the next tile, of positions from t0 on; those from `end` on become 0.
  TANDEM_DEVICE void begin(int buffer, int64_t sequence, int64_t t0, int64_t end) {
    const int own = threadIdx.x >> 3, bytes = static_cast<int>(a.head_size * sizeof(T));
    const bool there = t0 + own < end;
    const uint32_t page_tokens = static_cast<uint32_t>(a.keys.page_tokens);
    const uint8_t* from = a.keys.base;
    if (there) from += (a.keys.tables[sequence * a.keys.table_stride + page] * a.keys.page_elements + a.keys.offset + place * a.keys.width) * static_cast<int64_t>(sizeof(T));
    uint8_t* const to = memory.tiles.place(buffer, own);
    for (int c = static_cast<int>(threadIdx.x & 7) * 16; c < bytes; c += 128) cp_async_16(to + c, from + c, there);
    cp_async_commit();
    for (place += kMlaPositions; place >= page_tokens; place -= page_tokens) page++;
  }

  // Scores of this warp's positions over its quarter of the columns.
  TANDEM_DEVICE void score(int buffer) {
    const int half = warp / kMlaQuarters * 16;
    const uint16_t* keys = memory.tiles.row(buffer, half + (lane >> 4) * 8 + (lane & 7)) + warp % kMlaQuarters * 16 * kMlaQuarterSteps + (lane >> 3 & 1) * 8;
    float scores[3][2][4] = {};  // a sum each part: chains of products stay short
    TANDEM_UNROLL
    for (int k = 0; k < kMlaQuarterSteps; k++) {
      uint32_t key[4];
      ldmatrix(key, keys + 16 * k);
      const uint32_t pairs[2][2] = {{key[0], key[1]}, {key[2], key[3]}};
      TANDEM_UNROLL
      for (int p = 0; p < 3; p++) {
        mma_bf16(scores[p][0], query[k][p], pairs[0]);
        mma_bf16(scores[p][1], query[k][p], pairs[1]);
      }
    }
    TANDEM_UNROLL
    for (int n = 0; n < 2; n++) {
      TANDEM_UNROLL
      for (int i = 0; i < 4; i += 2) {
        float* to = &memory.scores[warp % kMlaQuarters][(lane >> 2) + 4 * i][half + 8 * n + 2 * (lane & 3)];
        *reinterpret_cast<float2*>(to) = {scores[2][n][i] + scores[1][n][i] + scores[0][n][i], scores[2][n][i + 1] + scores[1][n][i + 1] + scores[0][n][i + 1]};
      }
    }
  }

  // Exponentials of two heads, a position a lane; `positions` of the tile are there.
  TANDEM_DEVICE void soften_tile(int64_t positions) {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int head = 2 * warp + i;
      float score = 0;
      TANDEM_UNROLL
      for (int quarter = 0; quarter < kMlaQuarters; quarter++) score += memory.scores[quarter][head][lane];
      score = lane < positions ? score * a.scale : -INFINITY;
      const float most = warp_max(score), maximum = state[i].maximum > most ? state[i].maximum : most;
      const float weight = score == -INFINITY ? 0.0f : expf(score - maximum);
      const float shrink = maximum == state[i].maximum ? 1.0f : expf(state[i].maximum - maximum);
      state[i].sum = state[i].sum * shrink + warp_sum(weight);
      state[i].maximum = maximum;
      uint32_t parts[3];
      split_bf16(weight, 0, parts);
      TANDEM_UNROLL
      for (int p = 0; p < 3; p++) memory.weights[p][head][lane] = static_cast<uint16_t>(parts[p]);
      if (lane == 0) memory.shrinks[head] = shrink;
    }
  }

  // Weights times values, 64 columns of all heads. The products of a tile begin at zero: tensor cores cut off what does not fit, which
  // sums of a whole part would show.
  TANDEM_DEVICE void add_values(int buffer) {
    const float shrinks[2] = {memory.shrinks[lane >> 2], memory.shrinks[(lane >> 2) + 8]};
    constexpr int kSteps = kMlaPositions / 16;
    uint32_t weight[kSteps][3][4];
    TANDEM_UNROLL
    for (int k = 0; k < kSteps; k++) {
      TANDEM_UNROLL
      for (int p = 0; p < 3; p++) ldmatrix(weight[k][p], memory.weights[p][lane & 15] + 16 * k + (lane >> 4) * 8);
    }
    TANDEM_UNROLL
    for (int n = 0; n < 8; n += 2) {
      float products[2][4] = {};
      TANDEM_UNROLL
      for (int k = 0; k < kSteps; k++) {
        uint32_t value[4];
        ldmatrix_transposed(value, memory.tiles.row(buffer, 16 * k + (lane & 15)) + 64 * warp + (lane >> 4) * 8 + 8 * n);
        const uint32_t pairs[2][2] = {{value[0], value[1]}, {value[2], value[3]}};
        TANDEM_UNROLL
        for (int p = 2; p >= 0; p--) {
          mma_bf16(products[0], weight[k][p], pairs[0]);
          mma_bf16(products[1], weight[k][p], pairs[1]);
        }
      }
      TANDEM_UNROLL
      for (int i = 0; i < 4; i++) {
        sums[n][i] = sums[n][i] * shrinks[i >> 1] + products[0][i];
        sums[n + 1][i] = sums[n + 1][i] * shrinks[i >> 1] + products[1][i];
      }
    }
  }

  TANDEM_DEVICE void store(int64_t row, int64_t head0, int count, int64_t part) const {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int head = (lane >> 2) + 8 * i;
      if (head >= count) continue;
      float* to = partial_at(a, row, head0 + head, part) + 2 + 64 * warp + 2 * (lane & 3);
      TANDEM_UNROLL
      for (int n = 0; n < 8; n++) {
        if (64 * warp + 8 * n >= a.value_size) continue;
        to[8 * n] = sums[n][2 * i];
        to[8 * n + 1] = sums[n][2 * i + 1];
      }
    }
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      if (lane != 0 || 2 * warp + i >= count) continue;
      float* to = partial_at(a, row, head0 + 2 * warp + i, part);
      to[0] = state[i].maximum;
      to[1] = state[i].sum;
    }
  }
};

template <typename T>
static TANDEM_DEVICE void mla_part(const AttentionArguments& a) {
  const int64_t part = blockIdx.x, row = blockIdx.z;
  if (row >= *a.keys.rows) return;
  const int64_t sequence = a.keys.sequence_of_row[row];
  if (a.keys.dead != nullptr && a.keys.dead[sequence]) return;
  const int64_t head0 = static_cast<int64_t>(blockIdx.y) * kMlaHeads;
  const int count = static_cast<int>(smaller(kMlaHeads, a.heads - head0));
  const Span span = part_of(a, row, part);
  if (span.begin >= span.end) {
    if (static_cast<int>(threadIdx.x) < count) {
      float* to = partial_at(a, row, head0 + threadIdx.x, part);
      to[0] = -INFINITY;
      to[1] = 0;
    }
    return;
  }
  MlaPart<T> own(*dynamic_shared<MlaPartMemory<T>>(), a, span.begin);
  own.begin(0, sequence, span.begin, span.end);
  own.load_query(a.q + row * a.q_stride + head0 * a.head_size, count);
  int buffer = 0;
  for (int64_t t0 = span.begin; t0 < span.end; t0 += kMlaPositions, buffer ^= 1) {
    cp_async_wait<0>();
    own.memory.tiles.decode(buffer, a.head_size);
    __syncthreads();  // the tile is there, and the other buffer is read by none any more
    if (t0 + kMlaPositions < span.end) own.begin(buffer ^ 1, sequence, t0 + kMlaPositions, span.end);
    own.score(buffer);
    __syncthreads();
    own.soften_tile(span.end - t0);
    __syncthreads();
    own.add_values(buffer);
  }
  own.store(row, head0, count, part);
}

}  // namespace tandem::cuda
