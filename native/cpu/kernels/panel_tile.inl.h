// What panels of all formats share.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// A pointer or number that stays in a register of its own. Compilers add offsets to several in one vector, through memory; the read
// behind those writes would wait until all work before it is done.
template <typename T>
static inline __attribute__((always_inline)) T by_itself(T p) {
  asm("" : "+r"(p));
  return p;
}

#if TANDEM_ISA_LEVEL == 1
// Integer sums may be regrouped, and the compiler does so: all products first, more than there are registers. Not through this.
static inline __attribute__((always_inline)) void keep_order(__m256i& sum) { asm("" : "+x"(sum)); }
#endif

// Tokens in as few tiles of at most `most` as there can be, all nearly as large; each fetches its share of `rows` rows. No
// division a tile: a tile takes a few hundred cycles.
struct TokenTiles {
  int64_t count, least, larger, each, rows;
  TokenTiles(int64_t tokens, int64_t most, int64_t row_count)
      : count((tokens + most - 1) / most), least(tokens / count), larger(tokens % count), each((row_count + count - 1) / count), rows(row_count) {}
  int64_t size(int64_t tile) const { return least + (tile < larger); }
  int64_t fetched(int64_t tile) const { return tile * each < rows ? tile * each : rows; }
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
