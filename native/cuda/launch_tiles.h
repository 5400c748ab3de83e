// A matrix product on tiles: x is rounded by a kernel of its own, then multiplied.
#pragma once

#include "cuda/launch.h"

namespace tandem::cuda {

// Rows of x that `round_rows` leaves in scratch memory.
struct RoundedRows {
  uint16_t* data = nullptr;
  int64_t stride = 0;

  // Bytes of `rows` rows of k columns, a multiple of 256.
  static size_t bytes(int64_t rows, int64_t k) { return (static_cast<size_t>(rows * rounded_columns(k) * 2) + 255) & ~size_t{255}; }
};

// Rounds x for matrices of a format.
class RowRounder {
 public:
  Status bind(const Binding& binding, const std::string& format);
  // Up to `rows` rows of x, of which there are (*live − skip) · times.
  Status launch(Stream& stream, const float* x, int64_t x_stride, int64_t k, const RoundedRows& to, int64_t rows, const int32_t* live, int64_t times = 1, int64_t skip = 0) const;
  // Whether what this one rounds serves the other too.
  bool serves(const RowRounder& other) const { return order_ == other.order_; }
  ColumnOrder order() const { return order_; }

 private:
  FunctionHandle* round_ = nullptr;
  ColumnOrder order_ = ColumnOrder::plain;
};

class LinearTiles {
 public:
  Status bind(const Binding& binding, const std::string& format);
  // Rounds x, for all that follow, up to `rows` rows. arguments: all but x, which becomes `rounded`.
  Status launch(Stream& stream, const float* x, int64_t x_stride, const RoundedRows& rounded, LinearTilesArguments arguments, int64_t rows) const;
  // The same of rows that are rounded.
  Status multiply(Stream& stream, const RoundedRows& rounded, LinearTilesArguments arguments, int64_t rows) const;
  const RowRounder& rounder() const { return rounder_; }

 private:
  RowRounder rounder_;
  FunctionHandle *wide_ = nullptr, *small_ = nullptr;
  int64_t multiprocessors_ = 1;
};

}  // namespace tandem::cuda
