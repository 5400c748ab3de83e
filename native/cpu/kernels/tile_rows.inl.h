// What `linear` and `experts` share when they go by a tile engine (cpu/tiles.h): packed rows, memory of each thread, the way
// back from products (features × tokens) to rows.
#pragma once

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/quantize.inl.h"
#include "cpu/kernels/transpose.inl.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

static inline bool on_tiles(const StepContext& context, int64_t rows) {
  return context.tile_engine && context.step->tiles > 0 && rows >= context.step->tiles;
}

// Rows in blocks of 16 tokens, packed for the engine.
struct PackedRows {
  uint16_t* data = nullptr;
  int64_t tiles = 0;  // of a block
  bool reserve(Scratch& scratch, int64_t blocks, int64_t columns) {
    tiles = tile_count(columns, kTileColumns);
    data = scratch.take_array<uint16_t>(static_cast<size_t>(blocks * tiles * kTileElements));
    return data != nullptr;
  }
  uint16_t* block(int64_t b) const { return data + b * tiles * kTileElements; }
};

// A thread's panels and products.
struct TileLanes {
  uint16_t* panels = nullptr;
  float* products = nullptr;
  int64_t product_elements = 0;
  // `rows`: weight rows of one product, of all its weights; `blocks`: the most that any product has.
  bool reserve(Scratch& scratch, int64_t threads, int64_t rows, int64_t blocks) {
    product_elements = rows / kTileRows16 * (blocks < kMostBlocks ? blocks : kMostBlocks) * kTileProducts;
    panels = scratch.take_array<uint16_t>(static_cast<size_t>(threads * kPanelElements));
    products = scratch.take_array<float>(static_cast<size_t>(threads * product_elements));
    return panels && products;
  }
  uint16_t* panel(int thread) const { return panels + thread * kPanelElements; }
  float* product(int thread) const { return products + thread * product_elements; }
};

// Weight rows of a product: many, so that activations are read seldom, but four pieces for each thread. A multiple of 32.
static inline int64_t tile_unit_rows(int64_t rows, int64_t threads, int64_t most) {
  const int64_t share = round_up(tile_count(rows, 4 * threads), 32);
  return share < most ? share : most;
}

// Products of 16 rows of the matrix with the tokens of one block → out[t * stride + n], for t < tokens and n < rows; `bias`
// (null: none) belongs to the first of the rows.
static inline void store_tile(const float* products, int64_t rows, int64_t tokens, const float* bias, float* out, int64_t stride) {
  const __mmask16 lanes = static_cast<__mmask16>((1u << rows) - 1);
  __m512i tile[16];
#pragma GCC unroll 16
  for (int r = 0; r < 16; r++) tile[r] = _mm512_load_si512(products + 16 * r);
  transpose_dwords(tile);
  const __m512 offset = bias ? _mm512_maskz_loadu_ps(lanes, bias) : _mm512_setzero_ps();
#pragma GCC unroll 16
  for (int t = 0; t < 16; t++) {
    if (t >= tokens) break;
    const __m512 value = _mm512_castsi512_ps(tile[t]);
    _mm512_mask_storeu_ps(out + t * stride, lanes, bias ? _mm512_add_ps(value, offset) : value);
  }
}

// y = x · Wᵀ + bias for all rows of x.
static Status linear_on_tiles(StepContext& context, const BoundWeight& weight, const float* bias) {
  const MatrixView x = context.inputs[0], out = context.outputs[0];
  const TileEngine& engine = *context.tile_engine;
  const int64_t blocks = tile_count(x.rows, kTileRows16), threads = context.pool->threads();
  const int64_t unit = tile_unit_rows(weight.rows, threads, kMostStrips * kTileRows16);
  PackedRows packed;
  TileLanes lanes;
  if (!packed.reserve(*context.scratch, blocks, x.columns) || !lanes.reserve(*context.scratch, threads, unit, blocks)) {
    return {Code::out_of_memory, "[native] linear needs scratch memory; the machine gave none; use a smaller batch or fewer pages"};
  }

  constexpr int64_t kPackTiles = 32;
  const int64_t parts = tile_count(packed.tiles, kPackTiles);
  context.pool->parallel_for(blocks * parts, 4, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t b = i / parts, first = i % parts * kPackTiles, last = first + kPackTiles;
      const float* rows[kTileRows16];
      int64_t count = 0;
      for (int64_t t = b * kTileRows16; t < x.rows && count < kTileRows16; t++) rows[count++] = x.row(t);
      engine.pack(rows, count, x.columns, first, last < packed.tiles ? last : packed.tiles, packed.block(b));
    }
  });

  const auto multiply = [&](int64_t begin, int64_t stop, int thread) {
    for (; begin < stop; begin += unit) {
      TileProduct product;
      product.weights[0] = &weight;
      product.begin = begin;
      product.end = begin + unit < stop ? begin + unit : stop;
      product.products = lanes.product(thread);
      product.panel = lanes.panel(thread);
      const int64_t strips = tile_count(product.end - begin, kTileRows16);
      for (int64_t done = 0; done < blocks; done += kMostBlocks) {
        product.blocks = blocks - done < kMostBlocks ? blocks - done : kMostBlocks;
        product.tokens = packed.block(done);
        engine.multiply(product);
        for (int64_t b = 0; b < product.blocks; b++) {
          const int64_t t = (done + b) * kTileRows16, tokens = x.rows - t;
          for (int64_t s = 0; s < strips; s++) {
            const int64_t n = begin + s * kTileRows16, rows = product.end - n;
            store_tile(product.products + (s * product.blocks + b) * kTileProducts, rows < kTileRows16 ? rows : kTileRows16,
                       tokens < kTileRows16 ? tokens : kTileRows16, bias ? bias + n : nullptr, out.row(t) + n, out.stride);
          }
        }
      }
    }
  };
  if (weight.node_rows != nullptr) context.pool->parallel_for_nodes(weight.node_rows, unit, multiply);
  else context.pool->parallel_for(weight.rows, unit, multiply);
  return {};
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
