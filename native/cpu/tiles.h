// Fast mode: matrices of any weight format times rounded activations, both bf16, summed in f32 by a tile engine.
//
// An engine lives in the build with the strongest instructions (kernels/tile_engine.inl.h) and is reached through this table
// from kernels of the avx512 build, so that those exist once. Shapes:
//
//     tile of weights        [16 rows][32 columns] bf16, a row of the matrix is a row of the tile       1 KB
//     tile of activations    [16 pairs of columns][16 tokens][2] bf16                                  1 KB
//     tile of products       [16 rows of the matrix][16 tokens] f32                                     1 KB
//     packed activations     blocks of 16 tokens, each [⌈K/32⌉] tiles; tokens and columns beyond the last are zero
#pragma once

#include <cstdint>

#include "core/kernel.h"

namespace tandem {

constexpr int64_t kTileRows16 = 16;    // weight rows, and tokens, of a tile
constexpr int64_t kTileColumns = 32;   // of K
constexpr int64_t kTileElements = 512; // bf16 of a tile; products have half as many
constexpr int64_t kTileProducts = 256;
// Most strips (16 weight rows) and blocks (16 tokens) of one call: 256 × 512 products are 512 KB, and two panels of 256 rows
// × 512 columns as much again: together with what passes through, a second-level cache of 2 MB.
constexpr int64_t kMostStrips = 16;
constexpr int64_t kMostBlocks = 32;

constexpr int64_t tile_count(int64_t n, int64_t size) { return (n + size - 1) / size; }

// Rows [begin, end) of one matrix of one or two weights (gate and up: same shapes), times blocks of packed activations. The
// rows lie on one NUMA node (BoundWeight).
struct TileProduct {
  const BoundWeight* weights[2] = {nullptr, nullptr};  // the second may be null
  int64_t matrix = 0, begin = 0, end = 0;
  const uint16_t* tokens = nullptr;
  int64_t blocks = 0;         // <= kMostBlocks
  float* products = nullptr;  // [weight][strip][block] tiles; strips of both together <= kMostStrips
  uint16_t* panel = nullptr;  // kPanelElements of the calling thread's own
};
// Two panels of kMostStrips × 16 tiles (512 columns).
constexpr int64_t kPanelElements = 2 * kMostStrips * 16 * kTileElements;

// c [m, 32] (+)= a [m, k] · panel [k / 2][32][2], f32 sums; m a multiple of 16, k of 32. Columns from `columns` on of c may
// be left as they were.
struct DenseProduct {
  const uint16_t* a;
  int64_t a_stride, m;
  const uint16_t* panel;
  int64_t k, columns;
  float* c;
  bool add;
};

enum class TileKind : int { avx512_bf16 = 0, amx_emulated = 1, amx = 2 };

struct TileEngine {
  const char* name;  // as in binding.ts
  // Rounds columns [32 · first, 32 · last) of up to 16 rows (`count` pointers to `columns` floats) into tiles of a block.
  void (*pack)(const float* const* rows, int64_t count, int64_t columns, int64_t first, int64_t last, uint16_t* block);
  // The same from 16 rows of products, features [16 · strip, 16 · strip + 16) of the next matrix's activations.
  void (*fold)(const float* products, int64_t strip, uint16_t* block);
  void (*multiply)(const TileProduct& product);
  // Null: attention has products of its own for this engine.
  void (*dense)(const DenseProduct& product);
};

void register_tiles(TileKind kind, const TileEngine* engine);

// The engine that kernels of `isa` use, null for none: AMX, or AVX512-BF16 from avx512 on. TANDEM_TILES = off, emulated,
// avx512-bf16 or amx takes another; an unknown name, or one that this machine cannot run, is an error.
Status choose_tiles(Isa isa, const TileEngine*& out);

// Runs a small product on the AMX unit. Empty if it gave what it should, else what went wrong: machines may name features in
// CPUID that their hypervisor or operating system does not support. Needs the permission to use tiles.
const char* try_amx();

}  // namespace tandem
