// The tile product under linear and experts for many rows, on tensor cores: 32·Groups rows of x by 32·Warps rows of W a block.
//
// W is the left operand: a warp has 32 rows of it, which every lane decodes from memory into the registers of its fragments (tile_pieces.cuh):
// no weight passes through shared memory, none is decoded twice in a block. x was rounded before (rounded_rows.cuh) and is the right
// operand; 64 columns of it at a time come to shared memory by copies beside the work, two such halves of a step ahead, and every warp
// reads all of them: a fragment of two products is the 16 bytes of a lane. A row of 64 columns takes all 32 banks; of odd rows the two halves
// change places, so that the eight lanes that are served at once meet each bank once.
// A row's sum is made in the order of its columns whatever the block: its bits do not depend on the other rows, nor on the shape of tiles.
#pragma once

#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/shared.cuh"
#include "cuda/kernels/tile_pieces_codebooks.cuh"

namespace tandem::cuda {

static constexpr int kTileStages = 3;

template <int Groups>
using TileMemory = uint4[kTileStages][32 * Groups * 8];

// Begins to bring half `half` of the rows of x; offsets: where the four rows of this thread begin, in sixteens of bytes.
template <int Groups, int Warps>
static TANDEM_DEVICE void copy_rows(uint4* stage, const uint16_t* x, const uint32_t (&offsets)[4 * 2 * Groups / Warps], int half) {
  const int thread = threadIdx.x, word = thread & 7, row = thread >> 3;
  TANDEM_UNROLL
  for (int i = 0; i < 8 * Groups / Warps; i++) {
    const int own = row + 4 * Warps * i;
    cp_async_16(stage + 8 * own + (word ^ 4 * (own & 1)), reinterpret_cast<const uint4*>(x) + offsets[i] + 8 * half + word);
  }
}

// x_row(m): where row m of the tile begins, in sixteens of bytes from x; those past `rows` are not asked for. Row n of W lies at
// w + n · row_bytes, n < columns, its scales at w_scales(n); bias(n) is added to its sums. write(m, n, y) for rows and columns that there are.
template <typename Block, int Groups, int Warps, typename XRow, typename WScales, typename Bias, typename Write>
static TANDEM_DEVICE void multiply_tile(TileMemory<Groups>& memory, int64_t k, int rows, int columns, const uint16_t* x, XRow x_row, const uint8_t* w, int64_t row_bytes, WScales w_scales, Bias bias, Write write) {
  constexpr int kCopies = 8 * Groups / Warps;
  const int thread = threadIdx.x, lane = thread & 31, g = lane >> 2, q = lane & 3, n0 = thread & ~31;
  const int halves = static_cast<int>((k + kTileStep - 1) / kTileStep) * 2;
  const bool active = n0 < columns;
  uint32_t offsets[kCopies];
  TANDEM_UNROLL
  for (int i = 0; i < kCopies; i++) {
    const int row = (thread >> 3) + 4 * Warps * i;
    offsets[i] = x_row(row < rows ? row : rows - 1);
  }
  uint32_t places[4];  // of rows of W
  const uint8_t* scales[4];
  TilePiece<Block> pieces[4];
  uint32_t words[4][4] = {};
  float sums[2][4 * Groups][4] = {};
  TANDEM_UNROLL
  for (int s = 0; s < kTileStages - 1; s++) {
    if (s < halves) copy_rows<Groups, Warps>(memory[s], x, offsets, s);
    cp_async_commit();
  }
  TANDEM_UNROLL
  for (int r = 0; r < 4; r++) {
    const int row = n0 + 8 * r + g < columns ? n0 + 8 * r + g : columns - 1;
    places[r] = static_cast<uint32_t>(row * row_bytes), scales[r] = w_scales(row);
    pieces[r].fetch(w + places[r], scales[r], 0, q, k, 0);
    pieces[r].eight(0, words[r]);
  }
  int slot = 0;
  for (int step = 0; 2 * step < halves; step++) {
    TANDEM_UNROLL
    for (int j = 0; j < 4; j++) {
      if (j % 2 == 0) {
        const int half = 2 * step + j / 2;
        cp_async_wait<kTileStages - 2>();
        __syncthreads();
        if (half + kTileStages - 1 < halves) copy_rows<Groups, Warps>(memory[slot == 0 ? kTileStages - 1 : slot - 1], x, offsets, half + kTileStages - 1);
        cp_async_commit();
      }
      // While an eight is multiplied the next one is loaded and decoded.
      const int following = (j + 1) % 4;
      uint32_t next[4][4];
      if (active) {
        TANDEM_UNROLL
        for (int r = 0; r < 4; r++) pieces[r].fetch(w + places[r], scales[r], j == 3 ? step + 1 : step, q, k, following);
        const uint4* fragments = memory[slot] + 8 * g + ((4 * (j & 1) + q) ^ 4 * (g & 1));
        TANDEM_UNROLL
        for (int group = 0; group < Groups; group++) {
          if (32 * group < rows) {
            TANDEM_UNROLL
            for (int n = 4 * group; n < 4 * group + 4; n++) {
              const uint4 b = fragments[64 * n];
              TANDEM_UNROLL
              for (int m = 0; m < 2; m++) {
                mma_bf16(sums[m][n], {words[2 * m][0], words[2 * m + 1][0], words[2 * m][1], words[2 * m + 1][1]}, {b.x, b.y});
                mma_bf16(sums[m][n], {words[2 * m][2], words[2 * m + 1][2], words[2 * m][3], words[2 * m + 1][3]}, {b.z, b.w});
              }
            }
          }
          TANDEM_UNROLL
          for (int r = group * 4 / Groups; r < (group + 1) * 4 / Groups; r++) {
            if (following != 0) pieces[r].eight(following, next[r]);
          }
        }
        TANDEM_UNROLL
        for (int r = 0; r < 4; r++) {
          if (following == 0) pieces[r].eight(0, next[r]);
          TANDEM_UNROLL
          for (int i = 0; i < 4; i++) words[r][i] = next[r][i];
        }
      }
      if (j % 2 == 1) slot = slot == kTileStages - 1 ? 0 : slot + 1;
    }
  }
  TANDEM_UNROLL
  for (int r = 0; r < 4; r++) {
    const int column = n0 + 8 * r + g;
    if (column >= columns) break;
    const float offset = bias(column);
    TANDEM_UNROLL
    for (int n = 0; n < 4 * Groups; n++) {
      TANDEM_UNROLL
      for (int i = 0; i < 2; i++) {
        if (8 * n + 2 * q + i < rows) write(8 * n + 2 * q + i, column, sums[r / 2][n][r % 2 * 2 + i] + offset);
      }
    }
  }
}

}  // namespace tandem::cuda
