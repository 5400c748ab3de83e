// Grids of the kernels: how many blocks, and how many threads in each, for the largest pass a launch must serve. The card takes
// up to 65535 blocks in y and z: so many rows, or visits of experts, a launch.
#pragma once

#include <cstdint>

#include "cuda/kernels/rows_layout.h"
#include "quant/formats.h"

namespace tandem::cuda {

struct Shape {
  unsigned x = 1, y = 1, z = 1;  // blocks
  unsigned threads = 256;
  unsigned shared = 0;           // bytes of dynamic shared memory a block (shared.cuh); what a card gives differs: 99 to 227 KB
};

static inline unsigned blocks_of(int64_t count, int64_t size) { return static_cast<unsigned>((count + size - 1) / size); }

// Products of few rows: eight warps of sixteen rows of W, as many of which share a row as its columns have spans for.
static inline Shape rows_shape(const quant::FormatInfo& format, int64_t n, int64_t k, bool many) {
  const RowsLayout layout = rows_layout(format.block_size, format.block_bytes);
  return {1, blocks_of(n, kRowsWarps / rows_along(layout.columns, k) * kRowsTile), 1, 256, static_cast<unsigned>(kRowsWarps * layout.warp_bytes(many))};
}

// linear_*_m1, and _m8 for up to eight rows of x a block.
static inline Shape linear_shape(const quant::FormatInfo& format, int64_t n, int64_t k, int64_t rows, bool many, int64_t batches = 1) {
  Shape shape = rows_shape(format, n, k, many);
  shape.x = blocks_of(rows, many ? kRowsMost : 1), shape.z = static_cast<unsigned>(batches);
  return shape;
}

// round_rows.
static inline Shape round_rows_shape(int64_t k, int64_t rows) { return {2 * blocks_of(k, 128), blocks_of(rows, 32), 1, 256}; }
// Numbers that a row it leaves takes.
static inline int64_t rounded_columns(int64_t k) { return (k + 127) / 128 * 128; }

// linear_*_tiles and linear_*_tiles_small: bands of up to 2048 rows of x.
static inline Shape linear_tiles_shape(int64_t n, int64_t rows, int64_t batches, bool small) {
  const int64_t tile = small ? 64 : 128, tiles = (rows + tile - 1) / tile, bands = (tiles * tile + 2047) / 2048;
  return {blocks_of(tiles, bands), blocks_of(n, small ? 128 : 256), static_cast<unsigned>(bands * batches), small ? 128u : 256u};
}
// Which of them: large tiles where every multiprocessor gets one, and a matrix fills them.
static inline bool small_tiles(int64_t n, int64_t rows, int64_t batches, int64_t multiprocessors) {
  const Shape large = linear_tiles_shape(n, rows, batches, false);
  return n <= 128 || static_cast<int64_t>(large.x) * large.y * large.z < multiprocessors;
}

// experts_*_rows, experts_*_tiles, expert_groups; gated (`rows` = rows · topk) is elementwise, combine too.
static inline Shape experts_rows_shape(const quant::FormatInfo& format, int64_t n, int64_t k, int64_t rows, int64_t topk) {
  Shape shape = rows_shape(format, n, k, false);
  shape.x = shape.y, shape.y = static_cast<unsigned>(rows * topk);
  return shape;
}
static inline int64_t expert_tiles(int64_t rows, int64_t topk, int64_t experts) { return blocks_of(rows * topk, 128) + experts; }
static inline Shape experts_tiles_shape(int64_t n, int64_t rows, int64_t topk, int64_t experts) {
  return {blocks_of(n, 256), static_cast<unsigned>(expert_tiles(rows, topk, experts)), 1, 256};
}
static inline Shape expert_groups_shape() { return {1, 1, 1, 256}; }

// linear_transposed_*: 256 columns a block.
static inline Shape transposed_shape(int64_t k, int64_t rows, int64_t batches) { return {blocks_of(k, 256), static_cast<unsigned>(rows), static_cast<unsigned>(batches), 256}; }

// attention_part_*, and attention_merge.
static inline Shape attention_part_shape(int64_t heads, int64_t kv_heads, int64_t parts, int64_t rows) {
  return {static_cast<unsigned>(parts), static_cast<unsigned>(kv_heads) * blocks_of(heads / kv_heads, 8), static_cast<unsigned>(rows), 256};
}
static inline Shape attention_merge_shape(int64_t heads, int64_t rows) { return {1, static_cast<unsigned>(heads), static_cast<unsigned>(rows), 128}; }

// attention_group_*: sixteen heads of a group a block, `room` is in the kernel's name; attention_merge follows.
template <int room>
static constexpr unsigned kAttentionGroupShared = 4 * 2 * 2 * 16 * (room + 8) * 2;
static inline Shape attention_group_shape(int64_t heads, int64_t kv_heads, int64_t parts, int64_t rows, int room) {
  return {static_cast<unsigned>(parts), static_cast<unsigned>(kv_heads) * blocks_of(heads / kv_heads, 16), static_cast<unsigned>(rows), 128,
          room == 64 ? kAttentionGroupShared<64> : kAttentionGroupShared<128>};
}

// mla_part_*: sixteen heads a block; attention_merge follows.
static constexpr unsigned kMlaPartShared = 87 << 10;
static inline Shape mla_part_shape(int64_t heads, int64_t parts, int64_t rows) {
  return {static_cast<unsigned>(parts), blocks_of(heads, 16), static_cast<unsigned>(rows), 256, kMlaPartShared};
}

// attention_tiles_*, mla_tiles: bytes for two steps of 64 positions, with room for so wide heads and values.
template <int head, int value>
static constexpr unsigned kAttentionTilesShared = 2 * 64 * 2 * (head + 8 + value + 8);

// attention_tiles_*: `tiles` as many as any pass has, ⌈rows / 64⌉ of each sequence; `room` is in the kernel's name. Two heads of one group a block.
static inline Shape attention_tiles_shape(int64_t heads, int64_t kv_heads, int64_t tiles, int room) {
  const unsigned together = heads / kv_heads % 2 == 0 ? 2 : 1;
  return {static_cast<unsigned>(tiles), static_cast<unsigned>(heads) / together, 1, 128 * together, room == 64 ? kAttentionTilesShared<64, 64> : kAttentionTilesShared<128, 128>};
}

// mla_gather_*: `positions` of the longest chunk; mla_tiles: two tiles a block, `tiles` as many as the longest sequence has; transpose_*.
static inline Shape mla_gather_shape(int64_t width, int64_t positions) { return {blocks_of(width, 256), static_cast<unsigned>(positions), 1, 256}; }
static constexpr unsigned kMlaTilesShared = kAttentionTilesShared<192, 128>;
static inline Shape mla_tiles_shape(int64_t heads, int64_t tiles) { return {blocks_of(tiles, 2), static_cast<unsigned>(heads), 1, 256, kMlaTilesShared}; }
static inline Shape transpose_shape(int64_t n, int64_t k, int64_t batches) { return {blocks_of(n, 256), blocks_of(k, 32), static_cast<unsigned>(batches), 256}; }

// add, glu, gather_rows; copy_heads and cache_append_* with columns = heads · columns.
static inline Shape elementwise_shape(int64_t columns, int64_t rows) { return {blocks_of(columns, 256), static_cast<unsigned>(rows), 1, 256}; }

// embed_*: a thread a piece of 32 columns.
static inline Shape embed_shape(int64_t k, int64_t rows) { return {blocks_of((k + 31) / 32, 64), static_cast<unsigned>(rows), 1, 64}; }

// A group is one block; as many threads as have eight elements each, whole warps.
static inline Shape rms_norm_shape(int64_t columns, int64_t group, int64_t rows) {
  const int64_t threads = (group / 8 + 31) / 32 * 32;
  return {static_cast<unsigned>(columns / group), static_cast<unsigned>(rows), 1, static_cast<unsigned>(threads < 32 ? 32 : threads > 256 ? 256 : threads)};
}

static inline Shape rope_shape(int64_t rows) { return {1, static_cast<unsigned>(rows), 1, 256}; }
static inline Shape router_shape(int64_t rows) { return {1, static_cast<unsigned>(rows), 1, 32}; }
static inline Shape sample_shape(int64_t rows) { return {1, static_cast<unsigned>(rows), 1, 256}; }  // logprobs too
static inline Shape greedy_shape(int64_t rows) { return {1, static_cast<unsigned>(rows), 1, 256}; }

}  // namespace tandem::cuda
