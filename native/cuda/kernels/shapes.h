// Grids of the kernels: how many blocks, and how many threads in each, for the largest pass a launch must serve.
#pragma once

#include <cstdint>

namespace tandem::cuda {

struct Shape {
  unsigned x = 1, y = 1, z = 1;  // blocks
  unsigned threads = 256;
};

static inline unsigned blocks_of(int64_t count, int64_t size) { return static_cast<unsigned>((count + size - 1) / size); }

// linear_*_m1, _m4, _m8: `m` rows of x a block, eight warps of two rows of W (one at m8).
static inline Shape linear_shape(int64_t n, int64_t rows, int m, int64_t batches = 1) {
  return {blocks_of(n, m == 8 ? 8 : 16), blocks_of(rows, m), static_cast<unsigned>(batches), 256};
}

// add, glu, gather_rows; cache_append_* with columns = heads · columns.
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
static inline Shape greedy_shape(int64_t rows) { return {1, static_cast<unsigned>(rows), 1, 256}; }

}  // namespace tandem::cuda
