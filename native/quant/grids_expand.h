// Code books from their bitmaps, at compile time. Included where tables are defined: grids.cc and, by grids.h, CUDA.
#pragma once

#include "grids.h"

namespace tandem::quant {

// Rows as numbers in base `level_count`, digit j (lowest first) choosing the level of weight j: bit v says that v occurs.
template <int row_count, int weights, int level_count, int words>
struct GridData {
  int8_t levels[level_count];
  uint64_t bitmap[words];
};

template <typename Word, int row_count, int weights, int level_count, int words>
static constexpr Grid<Word, row_count> expand(const GridData<row_count, weights, level_count, words>& data) {
  static_assert(sizeof(Word) == weights);
  Grid<Word, row_count> grid{};
  int row = 0;
  for (int v = 0; v < 64 * words; v++) {
    if ((data.bitmap[v / 64] >> (v % 64) & 1) == 0) continue;
    Word levels = 0;
    for (int j = 0, rest = v; j < weights; j++, rest /= level_count) {
      levels |= static_cast<Word>(static_cast<uint8_t>(data.levels[rest % level_count])) << (8 * j);
    }
    grid.rows[row++] = levels;
  }
  return grid;
}

}  // namespace tandem::quant

#include "grids_data.h"
