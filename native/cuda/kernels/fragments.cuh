// Rows of x as the right operand of row products, exactly: an f32 is the sum of three bf16 (its upper half, the upper half of what that
// leaves, the rest; below 2^-109 the last bits are lost, and what is not finite becomes nan).
//
//     one row      the three parts are columns of one product
//     more rows    up to eight are the columns, and the parts are products of their own
//
// Either way each part has a sum of its own, so that a row has the same bits alone and among others.
#pragma once

#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/rows_layout.h"

namespace tandem::cuda {

// Four columns of run `run` of a piece, those of lane q. `vectors`: rows are aligned to 16 bytes and have whole pieces; else columns past k are 0.
template <typename Block>
static TANDEM_DEVICE void load_four(const float* x, int piece, int run, int q, int k, bool vectors, float (&to)[4]) {
  const Runs at = Piece<Block>::runs(piece);
  const int column = static_cast<int>(run == 0 ? at.first : at.second) + 4 * q;
  if (vectors) {
    const float4 v = load_float4(x + column);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 4; i++) to[i] = column + i < k ? x[column + i] : 0.0f;
  }
}

// One row. A warp splits a span together, into 48 words a piece: for each part and q those of both runs.
template <typename Block, int Pieces>
class OneRow {
 public:
  static constexpr int kSets = 1;

  TANDEM_DEVICE OneRow(const float* x, int k, bool vectors, uint32_t* words) : x_(x), k_(k), vectors_(vectors), words_(words) {}

  // Begins to read the span from piece `first` on; where there is none any more, the last piece instead.
  TANDEM_DEVICE void fetch(int first, int pieces) {
    TANDEM_UNROLL
    for (int j = 0; j < kFours; j++) {
      const int unit = (threadIdx.x & 31) + 32 * j, piece = first + (unit >> 3);
      if (unit < 8 * Pieces) load_four<Block>(x_, piece < pieces ? piece : pieces - 1, unit >> 2 & 1, unit & 3, k_, vectors_, values_[j]);
    }
  }

  // Gives what was fetched to the warp, which meets before it reads, and again before the next is stored.
  TANDEM_DEVICE void store() {
    TANDEM_UNROLL
    for (int j = 0; j < kFours; j++) {
      const int unit = (threadIdx.x & 31) + 32 * j;
      if (unit >= 8 * Pieces) continue;
      uint32_t parts[3][4];
      split_words<3>(values_[j], parts, 0);
      TANDEM_UNROLL
      for (int p = 0; p < 3; p++) *reinterpret_cast<uint2*>(words_ + 48 * (unit >> 3) + 16 * p + 4 * (unit & 3) + (unit >> 1 & 2)) = {parts[p][0], parts[p][1]};
    }
  }

  // What was stored is multiplied now; the span from `next` on comes meanwhile.
  TANDEM_DEVICE void begin(int next, int pieces) { fetch(next, pieces); }

  // Piece p of the span: of run r words 2r, 2r + 1. Columns past the third repeat it.
  TANDEM_DEVICE void operand(int p, uint32_t (&b)[1][4]) const {
    const int column = threadIdx.x >> 2 & 7;
    const uint4 v = *reinterpret_cast<const uint4*>(words_ + 48 * p + 16 * (column < 2 ? column : 2) + 4 * (threadIdx.x & 3));
    b[0][0] = v.x, b[0][1] = v.y, b[0][2] = v.z, b[0][3] = v.w;
  }

 private:
  static constexpr int kFours = (Pieces + 3) / 4;
  const float* x_;
  int k_;
  bool vectors_;
  uint32_t* words_;
  float values_[kFours][4] = {};
};

// Up to eight rows: a lane reads what it needs of its own, one piece ahead.
template <typename Block, int Pieces>
class EightRows {
 public:
  static constexpr int kSets = 3;

  // `x`: the row of column lane / 4.
  TANDEM_DEVICE EightRows(const float* x, int k, bool vectors, uint32_t*) : x_(x), k_(k), vectors_(vectors) {}

  TANDEM_DEVICE void fetch(int piece, int pieces) {
    const int there = piece < pieces ? piece : pieces - 1;
    TANDEM_UNROLL
    for (int run = 0; run < 2; run++) load_four<Block>(x_, there, run, threadIdx.x & 3, k_, vectors_, values_[run]);
    first_ = piece;
  }

  TANDEM_DEVICE void store() {}
  TANDEM_DEVICE void begin(int next, int pieces) {
    base_ = first_;
    next_ = next;
    pieces_ = pieces;
  }

  // Pieces of a span follow each other from 0 on.
  TANDEM_DEVICE void operand(int p, uint32_t (&b)[3][4]) {
    split_words<3>(values_[0], b, 0);
    split_words<3>(values_[1], b, 1);
    fetch(p + 1 < Pieces && base_ + p + 1 < pieces_ ? base_ + p + 1 : next_, pieces_);
  }

 private:
  const float* x_;
  int k_;
  bool vectors_;
  int first_ = 0, base_ = 0, next_ = 0, pieces_ = 0;
  float values_[2][4];
};

}  // namespace tandem::cuda
