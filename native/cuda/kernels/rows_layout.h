// How products of few rows (rows_product.cuh) bring a matrix: spans of a row, by warps that share its columns. The kernels and those that
// launch them agree by this file.
#pragma once

#include <cstdint>

#include "quant/half.h"

namespace tandem::cuda {

static constexpr int kRowsWarps = 8;         // of a block
static constexpr int kRowsTile = 16;         // rows of the matrix a warp
static constexpr int kRowsMost = 8;          // rows of x that a block takes at once
static constexpr int kRowsTable = 20;        // floats: scales of a row and span, and what keeps the banks apart

// A span is up to 256 columns and 192 bytes of a row, from a block's beginning on, so that a few of them and what goes with them fit 9 KB a warp.
struct RowsLayout {
  int columns = 0, bytes = 0;
  int align = 0;   // what spans begin at a multiple of, as far as 16
  int chunks = 0;  // of 16 bytes, in which a span lies wherever it begins
  int stride = 0;  // bytes in shared memory: an odd number of chunks, so that eight rows meet no bank twice
  int stages = 0;

  TANDEM_HD constexpr int parts() const { return columns / 32 * 192; }  // bytes: x of one row in three bf16 each
  TANDEM_HD constexpr int warp_bytes(bool many) const { return stages * kRowsTile * stride + kRowsTile * kRowsTable * 4 + (many ? 0 : parts()); }
};

// Of a format with so many weights and bytes a block (1: plain floats, which are aligned to nothing).
TANDEM_HD static constexpr RowsLayout rows_layout(int weights, int bytes) {
  RowsLayout l;
  l.columns = 256;
  while (l.columns > 32 && l.columns > weights && l.columns / weights * bytes > 192) l.columns /= 2;
  l.bytes = l.columns / weights * bytes;
  l.align = 16;
  while (weights == 1 ? l.align > 1 : bytes % l.align != 0) l.align /= 2;
  l.chunks = (l.bytes + 16 - l.align + 15) / 16;
  l.stride = 16 * (l.chunks | 1);
  l.stages = (9216 - kRowsTile * kRowsTable * 4 - l.parts()) / (kRowsTile * l.stride);
  l.stages = l.stages < 2 ? 2 : l.stages > 4 ? 4 : l.stages;
  return l;
}

// How many of a block's warps share the columns of a row, each with every so-manyth span; the others take rows further on.
TANDEM_HD static constexpr int rows_along(int columns, int64_t k) {
  int along = 1;
  while (along < kRowsWarps && k > static_cast<int64_t>(along) * columns) along *= 2;
  return along;
}

}  // namespace tandem::cuda
