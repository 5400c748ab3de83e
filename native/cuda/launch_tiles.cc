#include "cuda/launch_tiles.h"

namespace tandem::cuda {

Status RowRounder::bind(const Binding& b, const std::string& format) {
  order_ = column_order(format);
  return b.kernel("round_rows", round_);
}

Status RowRounder::launch(Stream& stream, const float* x, int64_t x_stride, int64_t k, const RoundedRows& to, int64_t rows, const int32_t* live, int64_t times, int64_t skip) const {
  const RoundRowsArguments a = {x, x_stride, to.data, to.stride, k, live, times, skip, order_};
  return launch_kernel(stream, round_, round_rows_shape(k, rows), a);
}

Status LinearTiles::bind(const Binding& b, const std::string& format) {
  multiprocessors_ = b.part.device->info().multiprocessors;
  TANDEM_TRY(rounder_.bind(b, format));
  TANDEM_TRY(b.kernel("linear_" + format + "_tiles", wide_));
  return b.kernel("linear_" + format + "_tiles_small", small_);
}

Status LinearTiles::launch(Stream& stream, const float* x, int64_t x_stride, const RoundedRows& rounded, LinearTilesArguments a, int64_t rows) const {
  TANDEM_TRY(rounder_.launch(stream, x, x_stride, a.weight.k, rounded, rows, a.rows, 1, a.skip));
  return multiply(stream, rounded, a, rows);
}

Status LinearTiles::multiply(Stream& stream, const RoundedRows& rounded, LinearTilesArguments a, int64_t rows) const {
  a.x = rounded.data, a.x_stride = rounded.stride;
  const bool small = small_tiles(a.weight.n, rows, a.batches, multiprocessors_);
  return launch_kernel(stream, small ? small_ : wide_, linear_tiles_shape(a.weight.n, rows, a.batches, small), a);
}

}  // namespace tandem::cuda
