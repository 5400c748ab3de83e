// mla for many rows of a sequence: keys and values of a chunk of the context are expanded from its latents, then attended on tensor
// cores as in attention_tiles. What rows have summed stays in y and `state` between the chunks of their sequence.
//
//     transpose_<format>   once, where the checkpoint has kB: W_UK as kvB has it, in bf16
//     a chunk              mla_gather → linear_*_tiles by W_UK → linear_*_tiles by W_UV → mla_tiles
//
// All is fast mode: latents and weights are rounded to bf16, and so are the keys and values that come of them.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/attention_tiles.cuh"
#include "cuda/kernels/pieces.cuh"

namespace tandem::cuda {

static constexpr int kMlaHead = 192;   // nope + rope of mla_tiles at most
static constexpr int kMlaValue = 128;  // value

// Entries of a.chunk.
enum { kChunkSequence, kChunkFirst, kChunkPositions, kChunkLast };

// Latents of the chunk's positions, one after the other, and their rope keys. Grid: (⌈(latent + rope) / 256⌉, most positions of a chunk).
template <typename T>
static TANDEM_DEVICE void mla_gather(const MlaChunkArguments& a) {
  const int64_t c = own_column(a.latent + a.rope, a.chunk + kChunkPositions), t = blockIdx.y;
  if (c < 0) return;
  const float value = cache_float(cache_at<const T>(a.cache, a.chunk[kChunkSequence], a.chunk[kChunkFirst] + t, 0, a.cache.width)[c]);
  if (c < a.latent) a.latents[t * a.latent + c] = value;
  else a.ropes[t * a.rope + c - a.latent] = quant::f32_to_bf16(value);
}

// Keys of a head: its own columns, then the rope key that all share.
struct MlaKeyRows {
  const MlaChunkArguments& a;
  int64_t head, columns;
  bool wholes;
  int64_t t0 = 0;  // in the chunk

  TANDEM_DEVICE MlaKeyRows(const MlaChunkArguments& a, int64_t head)
      : a(a), head(head), columns(a.nope + a.rope), wholes((a.nope | a.rope) % 8 == 0 && a.rope > 0 && aligned(a.keys, 16) && aligned(a.ropes, 16)) {}
  TANDEM_DEVICE bool whole() const { return wholes; }
  TANDEM_DEVICE const uint16_t* at(int t, int c) const { return c < a.nope ? a.keys + ((t0 + t) * a.heads + head) * a.nope + c : a.ropes + (t0 + t) * a.rope + c - a.nope; }
  TANDEM_DEVICE void read(int t, int c, float* out) const {
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = c + i < columns ? cache_float(*at(t, c + i)) : 0.0f;
  }
};

struct MlaValueRows {
  const MlaChunkArguments& a;
  int64_t head, columns;
  bool wholes;
  int64_t t0 = 0;

  TANDEM_DEVICE MlaValueRows(const MlaChunkArguments& a, int64_t head) : a(a), head(head), columns(a.value), wholes(a.value % 8 == 0 && aligned(a.values, 16)) {}
  TANDEM_DEVICE bool whole() const { return wholes; }
  TANDEM_DEVICE const uint16_t* at(int t, int c) const { return a.values + ((t0 + t) * a.heads + head) * a.value + c; }
  TANDEM_DEVICE void read(int t, int c, float* out) const { load_up_to_eight(at(t, c), columns - c, out); }
};

// Two tiles a block. Grid: (⌈tiles of the sequence / 2⌉, heads), 256 threads.
static TANDEM_DEVICE void mla_tiles(const MlaChunkArguments& a) {
  static_assert(sizeof(AttentionMemory<kMlaHead, kMlaValue>) == kMlaTilesShared);
  const int64_t tiles = *a.tile_count, pair = (tiles + 1) / 2 - 1 - static_cast<int64_t>(blockIdx.x);  // the longest contexts first
  if (pair < 0) return;
  const int64_t tile = 2 * pair + (threadIdx.x >> 7), head = blockIdx.y, sequence = a.chunk[kChunkSequence];
  if (a.cache.dead != nullptr && a.cache.dead[sequence]) return;
  AttentionMemory<kMlaHead, kMlaValue>& memory = *dynamic_shared<AttentionMemory<kMlaHead, kMlaValue>>();
  const int64_t first = a.chunk[kChunkFirst], chunk_end = first + a.chunk[kChunkPositions], head_size = a.nope + a.rope;
  const auto end_of = [&](int64_t of) { return of < tiles ? smaller(chunk_end, a.cache.positions[a.tiles[2 * of]] + a.tiles[2 * of + 1]) : 0; };
  const int64_t own_end = end_of(tile), other_end = end_of(tile ^ 1), end = own_end > other_end ? own_end : other_end;
  TileRows<kMlaHead, kMlaValue> rows;
  const int64_t row0 = tile < tiles ? a.tiles[2 * tile] : 0;
  rows.position0 = a.cache.positions[row0];
  rows.count = tile < tiles ? a.tiles[2 * tile + 1] : 0;
  float* y = a.y + row0 * a.y_stride + head * a.value;
  float* state = a.state + (row0 * a.heads + head) * 2;
  MlaKeyRows keys(a, head);
  MlaValueRows values(a, head);
  const auto begin = [&](int buffer, int64_t t0) {
    keys.t0 = values.t0 = t0 - first;
    load_rows<kMlaHead>(memory.keys[buffer], end - t0, keys);
    load_rows<kMlaValue>(memory.values[buffer], end - t0, values);
    cp_async_commit();
  };
  int buffer = 0;
  if (first < end) begin(buffer, first);
  rows.load_query(a.q + row0 * a.q_stride + head * head_size, a.q_stride, head_size);
  if (first > 0) {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int64_t row = rows.row(i);
      if (row >= rows.count) continue;
      rows.state[i] = {state[row * a.heads * 2], state[row * a.heads * 2 + 1]};
      TANDEM_UNROLL
      for (int n = 0; n < kMlaValue / 8; n++) {
        if (rows.column(n) >= a.value) continue;
        rows.sums[n][2 * i] = y[row * a.y_stride + rows.column(n)];
        rows.sums[n][2 * i + 1] = y[row * a.y_stride + rows.column(n) + 1];
      }
    }
  }
  for (int64_t t0 = first; t0 < end; t0 += kStep, buffer ^= 1) {
    cp_async_wait<0>();
    __syncthreads();  // this step is there, and the one before is read by none any more
    if (t0 + kStep < end) begin(buffer ^ 1, t0 + kStep);
    if (t0 < own_end) rows.attend(memory.keys[buffer], memory.values[buffer], t0, own_end, a.scale, 0);
  }
  if (a.chunk[kChunkLast]) return rows.store(y, a.y_stride, a.value, -INFINITY);
  TANDEM_UNROLL
  for (int i = 0; i < 2; i++) {
    const int64_t row = rows.row(i);
    if (row >= rows.count) continue;
    if ((threadIdx.x & 3) == 0) {
      state[row * a.heads * 2] = rows.state[i].maximum;
      state[row * a.heads * 2 + 1] = rows.state[i].sum;
    }
    TANDEM_UNROLL
    for (int n = 0; n < kMlaValue / 8; n++) {
      if (rows.column(n) >= a.value) continue;
      y[row * a.y_stride + rows.column(n)] = rows.sums[n][2 * i];
      y[row * a.y_stride + rows.column(n) + 1] = rows.sums[n][2 * i + 1];
    }
  }
}

// W [N, K] to Wᵀ [K, N] in bf16, every batch by itself. Grid: (⌈N / 256⌉, ⌈K / 32⌉, batches): a thread a piece of a row.
template <typename Block>
static TANDEM_DEVICE void transpose(const TransposeArguments& a) {
  const int64_t n = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, piece = blockIdx.y, matrix = blockIdx.z;
  if (n >= a.weight.n) return;
  const int64_t row = a.weight_first + matrix * a.weight_batch + n;
  const uint8_t* scales = a.weight.scales == nullptr ? nullptr : a.weight.scales + row / ScaleRows<Block>::value * a.weight.scale_stride;
  float w[32];
  Piece<Block>::decode(a.weight.data + row * a.weight.row_bytes, scales, piece, a.weight.k, w);
  const Runs at = Piece<Block>::runs(piece);
  uint16_t* y = a.y + matrix * a.y_batch + n;
  TANDEM_UNROLL
  for (int i = 0; i < 16; i++) {
    if (at.first + i < a.weight.k) y[(at.first + i) * a.y_stride] = quant::f32_to_bf16(w[i]);
    if (at.second + i < a.weight.k) y[(at.second + i) * a.y_stride] = quant::f32_to_bf16(w[16 + i]);
  }
}

}  // namespace tandem::cuda
