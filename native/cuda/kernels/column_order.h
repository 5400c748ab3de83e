// In which order tiles take the columns of a matrix: 128 at a time, so that each of the four lanes that hold a row of a fragment gets whole
// words of the format. A lane (0 … 3) multiplies four times eight columns that follow each other; x is laid out alike (rounded_rows.cuh),
// and the sum does not care.
#pragma once

#include <string_view>

#include "cuda/kernels/formats.h"
#include "quant/formats.h"

namespace tandem::cuda {

static constexpr int kTileStep = 128;  // columns

enum class ColumnOrder : int32_t {
  plain,        // the four lanes side by side: plain floats
  adjacent,     // 32 columns a lane
  interleaved,  // 32 a lane, those 16 apart by turns: as nibbles of bytes lie
  pairs,        // twice 16, 32 apart: q4_k and q5_k keep two sub-blocks in a byte
  halves,       // twice 16, 64 apart: q6_k, and bytes by sixteens
};

// Where the two fours of eight j (0 … 3) of a lane begin, of the 128. They follow each other, interleaved by turns.
struct EightColumns {
  int first, second;
};
#ifdef __CUDACC__
__host__ __device__
#endif
static constexpr EightColumns eight_columns(ColumnOrder order, int lane, int j) {
  int first = 32 * lane + 8 * j;
  if (order == ColumnOrder::interleaved) return {32 * lane + 4 * j, 32 * lane + 4 * j + 16};
  if (order == ColumnOrder::plain) first = 32 * j + 8 * lane;
  if (order == ColumnOrder::pairs) first = 64 * (lane >> 1) + 16 * (lane & 1) + 32 * (j >> 1) + 8 * (j & 1);
  if (order == ColumnOrder::halves) first = 64 * (j >> 1) + 16 * lane + 8 * (j & 1);
  return {first, first + 4};
}

template <typename Block>
struct TileColumns {
  static constexpr ColumnOrder order = ColumnOrder::adjacent;
};
template <ColumnOrder value>
struct ColumnsIn {
  static constexpr ColumnOrder order = value;
};
template <>
struct TileColumns<quant::F32> : ColumnsIn<ColumnOrder::plain> {};
template <>
struct TileColumns<quant::F16> : ColumnsIn<ColumnOrder::plain> {};
template <>
struct TileColumns<quant::Bf16> : ColumnsIn<ColumnOrder::plain> {};
template <>
struct TileColumns<quant::F8E4m3> : ColumnsIn<ColumnOrder::halves> {};
template <>
struct TileColumns<quant::BlockIq4Nl> : ColumnsIn<ColumnOrder::interleaved> {};
template <>
struct TileColumns<quant::BlockIq4Xs> : ColumnsIn<ColumnOrder::interleaved> {};
template <>
struct TileColumns<quant::BlockMxfp4> : ColumnsIn<ColumnOrder::interleaved> {};
template <>
struct TileColumns<quant::BlockQ4K> : ColumnsIn<ColumnOrder::pairs> {};
template <>
struct TileColumns<quant::BlockQ5K> : ColumnsIn<ColumnOrder::pairs> {};
template <>
struct TileColumns<quant::BlockQ6K> : ColumnsIn<ColumnOrder::halves> {};

// Of a format that kernels read, by name.
static inline ColumnOrder column_order(std::string_view format) {
#define TANDEM_COLUMN_ORDER(X, name, Block) \
  if (format == #name) return TileColumns<quant::Block>::order;
  TANDEM_CUDA_FORMATS(TANDEM_COLUMN_ORDER, 0)
#undef TANDEM_COLUMN_ORDER
  return ColumnOrder::adjacent;
}

}  // namespace tandem::cuda
