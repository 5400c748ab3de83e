// linear.
#include <algorithm>

#include "cuda/launch_tiles.h"

namespace tandem::cuda {

namespace {

constexpr int64_t kTileRows = 128;  // of x at most in a block of linear_*_tiles; round_rows takes 32

}  // namespace

Status LinearKernels::find(const Binding& binding, const std::string& format) {
  info = quant::find_format(format);
  TANDEM_TRY(binding.kernel("linear_" + format + "_m1", one, linear_shape(*info, 1, 1, 1, false).shared));
  return binding.kernel("linear_" + format + "_m8", eight, linear_shape(*info, 1, 1, 1, true).shared);
}

Status LinearKernels::launch(Stream& stream, const LinearArguments& a, int64_t rows, int64_t batches) const {
  if (rows == 0) return {};
  const bool many = rows > 1;
  return launch_kernel(stream, many ? eight : one, linear_shape(*info, a.weight.n, a.weight.k, rows, many, batches), a);
}

Status bind_linear(const Binding& b, Launch& out) {
  std::string format;
  TANDEM_TRY(b.format(1, format));
  LinearKernels kernels;
  TANDEM_TRY(kernels.find(b, format));
  const GpuPart& part = b.part;
  const GpuMatrix* const matrix = &b.matrix(1);
  const GpuFloats* const bias = b.floats(2);
  const ValueView x = b.input(0), y = b.output(0);
  const PassHeader::Limits& limits = part.header->limits();
  const int64_t most = x.rows == Rows::tokens ? limits.max_rows : limits.max_outputs, tiles_from = b.step.tiles;
  LinearTiles tiles;
  int64_t chunk = 0;  // rows that are rounded at once
  bool there = false;  // by the step before
  if (tiles_from > 0 && most >= tiles_from) {
    TANDEM_TRY(tiles.bind(b, format));
    // Whole tiles, where there are several: kernels know how many rows follow, not where a chunk ends.
    chunk = std::min(most, std::max<int64_t>(RowChunks::kScratchBytes / (rounded_columns(x.columns) * 2) / kTileRows, 1) * kTileRows);
    b.part.want_scratch(RoundedRows::bytes(chunk, x.columns));
    const GpuPart::Rounded own = {&b.step, x.value, x.start, x.columns, tiles_from, tiles.rounder().order()};
    there = chunk == most && part.rounded.serves(own);
    b.part.rounded = chunk == most ? own : GpuPart::Rounded();
  }
  out = [=, &part](Stream& stream, PassRows rows) {
    const WeightMatrix weight = part.weights.arguments(*matrix);
    const float* const offsets = bias == nullptr ? nullptr : part.weights.at<float>(bias->place);
    const int64_t count = x.count(rows);
    if (chunk == 0 || count < tiles_from) {
      LinearArguments a = {};
      a.weight = weight, a.bias = offsets, a.rows = x.live();
      a.x = x.at(rows), a.x_stride = x.stride;
      a.y = y.at(rows), a.y_stride = y.stride;
      return kernels.launch(stream, a, count, 1);
    }
    const RoundedRows rounded = {reinterpret_cast<uint16_t*>(part.scratch_at(0)), rounded_columns(weight.k)};
    for (int64_t first = 0; first < count; first += chunk) {
      LinearTilesArguments a = {};
      a.weight = weight, a.bias = offsets, a.rows = x.live(), a.skip = first, a.batches = 1;
      a.y = y.at(rows) + first * y.stride, a.y_stride = y.stride;
      const int64_t part_rows = std::min(chunk, count - first);
      if (there && !part.runner->alone()) TANDEM_TRY(tiles.multiply(stream, rounded, a, part_rows));
      else TANDEM_TRY(tiles.launch(stream, x.at(rows) + first * x.stride, x.stride, rounded, a, part_rows));
    }
    return Status();
  };
  return {};
}

}  // namespace tandem::cuda
