// The part of `experts` that goes by a tile engine: experts that at least `tiles` rows visit (tile_rows.inl.h).
//
// x is packed for each of them once; h leaves the products of gate and up as the next packed activations, without a detour
// through rows: products are features × tokens, and so is what down wants.
#pragma once

#include "cpu/kernels/expert_gated.inl.h"
#include "cpu/kernels/expert_groups.inl.h"
#include "cpu/kernels/tile_rows.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL == 2

class ExpertTiles {
 public:
  int64_t gate_unit = 32, down_unit = 32;  // rows of a unit of work; multiples of 32

  ExpertTiles(const Gated& gated, const ExpertBias& gate, const ExpertBias& up, const ExpertBias& down)
      : gated_(gated), gate_bias_(gate), up_bias_(up), down_bias_(down) {}

  // Which groups go by tiles, and memory for them.
  Status prepare(const StepContext& context, const ExpertGroups& plan) {
    engine_ = context.tile_engine;
    for (size_t i = 0; i < 3; i++) weights_[i] = context.weights[3 + i];
    Scratch& scratch = *context.scratch;
    first_block_ = scratch.take_array<int64_t>(static_cast<size_t>(plan.count));
    sorted_ = scratch.take_array<int64_t>(static_cast<size_t>(plan.count));
    if (!first_block_ || !sorted_) return refuse_scratch();
    int64_t most = 0, last = plan.count;
    for (int64_t g = 0; g < plan.count; g++) {
      const int64_t blocks = tile_count(plan.rows(g), kTileRows16);
      if (!on_tiles(context, plan.rows(g))) {
        first_block_[g] = -1;
        sorted_[--last] = g;
        continue;
      }
      first_block_[g] = blocks_;
      sorted_[count_++] = g;
      blocks_ += blocks;
      if (blocks > most) most = blocks;
    }
    others_ = plan.count - count_;
    if (count_ == 0) return {};
    const int64_t threads = context.pool->threads(), hidden = context.inputs[0].columns;
    ffn_ = weights_[0]->rows;
    gate_unit = tile_unit_rows(count_ * ffn_, threads, kMostStrips * kTileRows16 / 2);
    down_unit = tile_unit_rows(weights_[2]->rows, threads, kMostStrips * kTileRows16);
    const int64_t rows = 2 * gate_unit > down_unit ? 2 * gate_unit : down_unit;
    if (!x_.reserve(scratch, blocks_, hidden) || !h_.reserve(scratch, blocks_, ffn_) || !lanes_.reserve(scratch, threads, rows, most)) return refuse_scratch();
    return {};
  }
  int64_t count() const { return count_; }  // of the groups on tiles
  int64_t others() const { return others_; }
  int64_t group(int64_t i) const { return sorted_[i]; }
  int64_t other(int64_t i) const { return sorted_[count_ + i]; }
  bool has(int64_t g) const { return first_block_[g] >= 0; }

  // The rows of x of every group on tiles.
  void pack(ThreadPool& pool, const ExpertGroups& plan, const MatrixView& x) const {
    if (count_ == 0) return;
    pool.parallel_for(blocks_, 4, [&](int64_t begin, int64_t end, int) {
      int64_t i = 0, most = count_;  // the group of block `begin` is the last that starts at or before it
      while (most - i > 1) {
        const int64_t middle = (i + most) / 2;
        (first_block_[sorted_[middle]] <= begin ? i : most) = middle;
      }
      for (int64_t block = begin; block < end; block++) {
        if (i + 1 < count_ && first_block_[sorted_[i + 1]] <= block) i++;
        const int64_t g = sorted_[i], first = (block - first_block_[g]) * kTileRows16;
        const float* rows[kTileRows16];
        int64_t count = 0;
        for (; count < kTileRows16 && first + count < plan.rows(g); count++) rows[count] = x.row(plan.token_of[plan.groups[g].begin + first + count]);
        engine_->pack(rows, count, x.columns, 0, x_.tiles, x_.block(block));
      }
    });
  }

  // h of rows [begin, end) for all pairs of a group; begin is a multiple of 32.
  void gate_up(const ExpertGroups& plan, int64_t g, int64_t begin, int64_t end, int thread) const {
    TileProduct product = product_of(plan, g, begin, end, 0, thread);
    product.weights[1] = weights_[1];
    const int64_t blocks = tile_count(plan.rows(g), kTileRows16), strips = tile_count(end - begin, kTileRows16);
    for (int64_t done = 0; done < blocks; done += kMostBlocks) {
      product.blocks = blocks - done < kMostBlocks ? blocks - done : kMostBlocks;
      product.tokens = x_.block(first_block_[g] + done);
      engine_->multiply(product);
      for (int64_t s = 0; s < strips; s++) {
        const int64_t strip = begin / kTileRows16 + s, missing = (s + 1) * kTileRows16 - (end - begin);
        for (int64_t b = 0; b < product.blocks; b++) {
          alignas(64) float h[kTileProducts];
          float* gates = product.products + (s * product.blocks + b) * kTileProducts;
          float* ups = gates + strips * product.blocks * kTileProducts;
          add_biases(gate_bias_, product.matrix, begin + s * kTileRows16, end, gates);
          add_biases(up_bias_, product.matrix, begin + s * kTileRows16, end, ups);
          fuse_gated(gated_, gates, ups, h, kTileProducts);
          if (missing > 0) memset(h + (kTileRows16 - missing) * kTileRows16, 0, static_cast<size_t>(missing * kTileRows16) * sizeof(float));
          uint16_t* block = h_.block(first_block_[g] + done + b);
          engine_->fold(h, strip, block);
          if (end < ffn_ || s + 1 < strips || strip % 2 == 1) continue;
          memset(h, 0, sizeof h);  // the other half of the last tile
          engine_->fold(h, strip + 1, block);
        }
      }
    }
  }

  // Rows [begin, end) of down for all pairs of a group: out[pair · down_unit + row].
  void down(const ExpertGroups& plan, int64_t g, int64_t begin, int64_t end, float* out, int thread) const {
    TileProduct product = product_of(plan, g, begin, end, 2, thread);
    const int64_t count = plan.rows(g), blocks = tile_count(count, kTileRows16), strips = tile_count(end - begin, kTileRows16);
    for (int64_t done = 0; done < blocks; done += kMostBlocks) {
      product.blocks = blocks - done < kMostBlocks ? blocks - done : kMostBlocks;
      product.tokens = h_.block(first_block_[g] + done);
      engine_->multiply(product);
      for (int64_t b = 0; b < product.blocks; b++) {
        const int64_t p = (done + b) * kTileRows16, tokens = count - p < kTileRows16 ? count - p : kTileRows16;
        for (int64_t s = 0; s < strips; s++) {
          const int64_t rows = end - begin - s * kTileRows16;
          float* tile = product.products + (s * product.blocks + b) * kTileProducts;
          add_biases(down_bias_, product.matrix, begin + s * kTileRows16, end, tile);
          store_tile(tile, rows < kTileRows16 ? rows : kTileRows16, tokens, nullptr, out + p * down_unit + s * kTileRows16, down_unit);
        }
      }
    }
  }

 private:
  // To products of rows [begin, begin + 16), as far as the matrix has them.
  static void add_biases(const ExpertBias& bias, int64_t expert, int64_t begin, int64_t end, float* products) {
    if (bias.weight == nullptr) return;
    for (int64_t n = begin; n < end && n < begin + kTileRows16; n++) {
      float* row = products + (n - begin) * kTileRows16;
      vec_store(row, vec_add(vec_load(row), vec_set(bias.at(expert, n))));
    }
  }

  TileProduct product_of(const ExpertGroups& plan, int64_t g, int64_t begin, int64_t end, int weight, int thread) const {
    TileProduct product;
    product.weights[0] = weights_[weight];
    product.matrix = plan.groups[g].expert;
    product.begin = begin;
    product.end = end;
    product.products = lanes_.product(thread);
    product.panel = lanes_.panel(thread);
    return product;
  }

  Gated gated_;
  ExpertBias gate_bias_, up_bias_, down_bias_;
  const TileEngine* engine_ = nullptr;
  const BoundWeight* weights_[3] = {};  // gate, up, down
  int64_t* first_block_ = nullptr;      // of a group's packed rows; -1: not on tiles
  int64_t* sorted_ = nullptr;           // groups: count_ on tiles, then the others
  int64_t count_ = 0, others_ = 0, blocks_ = 0, ffn_ = 0;
  PackedRows x_, h_;
  TileLanes lanes_;
};

#else

// No tile engine below avx512: every group goes by dot products.
class ExpertTiles {
 public:
  int64_t gate_unit = 32, down_unit = 32;
  ExpertTiles(const Gated&, const ExpertBias&, const ExpertBias&, const ExpertBias&) {}
  Status prepare(const StepContext&, const ExpertGroups& plan) {
    others_ = plan.count;
    return {};
  }
  int64_t count() const { return 0; }
  int64_t others() const { return others_; }
  int64_t group(int64_t i) const { return i; }
  int64_t other(int64_t i) const { return i; }
  bool has(int64_t) const { return false; }
  void pack(ThreadPool&, const ExpertGroups&, const MatrixView&) const {}
  void gate_up(const ExpertGroups&, int64_t, int64_t, int64_t, int) const {}
  void down(const ExpertGroups&, int64_t, int64_t, int64_t, float*, int) const {}

 private:
  int64_t others_ = 0;
};

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
