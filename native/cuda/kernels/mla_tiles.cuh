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

// Latents of the chunk's positions, one after the other. Grid: (⌈latent / 256⌉, most positions of a chunk).
template <typename T>
static TANDEM_DEVICE void mla_gather(const MlaChunkArguments& a) {
  const int64_t c = own_column(a.latent, a.chunk + kChunkPositions), t = blockIdx.y;
  if (c < 0) return;
  a.latents[t * a.latent + c] = cache_float(cache_at<const T>(a.cache, a.chunk[kChunkSequence], a.chunk[kChunkFirst] + t, 0, a.cache.width)[c]);
}

// Grid: (tiles of the sequence, heads), 128 threads.
template <typename T>
static TANDEM_DEVICE void mla_tiles(const MlaChunkArguments& a) {
  __shared__ AttentionMemory<kMlaHead, kMlaValue> memory;
  if (static_cast<int64_t>(blockIdx.x) >= *a.tile_count) return;
  const int64_t row0 = a.tiles[2 * blockIdx.x], head = blockIdx.y, sequence = a.chunk[kChunkSequence];
  if (a.cache.dead != nullptr && a.cache.dead[sequence]) return;
  const int64_t first = a.chunk[kChunkFirst], head_size = a.nope + a.rope;
  TileRows<kMlaHead, kMlaValue> rows;
  rows.position0 = a.cache.positions[row0];
  rows.count = a.tiles[2 * blockIdx.x + 1];
  rows.load_query(a.q + row0 * a.q_stride + head * head_size, a.q_stride, head_size);
  float* y = a.y + row0 * a.y_stride + head * a.value;
  float* state = a.state + (row0 * a.heads + head) * 2;
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
  const int64_t end = smaller(first + a.chunk[kChunkPositions], rows.position0 + rows.count);
  for (int64_t t0 = first; t0 < end; t0 += kStep) {
    __syncthreads();
    load_step<kMlaHead, kMlaValue>(
        memory, end - t0,
        [&](int t, int c, float* out) {
          const float* own = a.keys + ((t0 - first + t) * a.heads + head) * a.nope;
          const T* shared = cache_at<const T>(a.cache, sequence, t0 + t, 0, a.cache.width) + a.latent - a.nope;
          if (c + 8 <= a.nope) return load_eight(own + c, out);
          if (c >= a.nope && c + 8 <= head_size) return load_eight(shared + c, out);
          TANDEM_UNROLL
          for (int i = 0; i < 8; i++) out[i] = c + i < a.nope ? own[c + i] : c + i < head_size ? cache_float(shared[c + i]) : 0.0f;
        },
        [&](int t, int c, float* out) {
          if (c < a.value) load_up_to_eight(a.values + ((t0 - first + t) * a.heads + head) * a.value + c, a.value - c, out);
        });
    __syncthreads();
    rows.attend(memory, t0, a.scale, 0);
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
