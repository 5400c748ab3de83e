// linear.
#include "cuda/launch.h"

namespace tandem::cuda {

Status LinearKernels::find(const Binding& binding, const std::string& format) {
  TANDEM_TRY(binding.kernel("linear_" + format + "_m1", one));
  TANDEM_TRY(binding.kernel("linear_" + format + "_m4", four));
  TANDEM_TRY(binding.kernel("linear_" + format + "_m8", eight));
  return binding.kernel("linear_" + format + "_tiles", tiles);
}

Status LinearKernels::launch(Stream& stream, const LinearArguments& a, int64_t rows, int64_t batches, int64_t tiles_from) const {
  if (rows == 0) return {};
  const int64_t n = a.weight.n;
  if (tiles_from > 0 && rows >= tiles_from) return launch_kernel(stream, tiles, linear_tiles_shape(n, rows, batches), a);
  if (rows == 1) return launch_kernel(stream, one, linear_shape(n, rows, 1, batches), a);
  if (rows <= 4) return launch_kernel(stream, four, linear_shape(n, rows, 4, batches), a);
  return launch_kernel(stream, eight, linear_shape(n, rows, 8, batches), a);
}

Status bind_linear(const Binding& b, Launch& out) {
  std::string format;
  TANDEM_TRY(b.format(1, format));
  LinearKernels kernels;
  TANDEM_TRY(kernels.find(b, format));
  const GpuWeights& weights = b.part.weights;
  const GpuMatrix* const matrix = &b.matrix(1);
  const GpuFloats* const bias = b.floats(2);
  out = [=, &weights, x = b.input(0), y = b.output(0), tiles = b.step.tiles](Stream& stream, PassRows rows) {
    LinearArguments a = {};
    a.weight = weights.arguments(*matrix);
    a.x = x.at(rows), a.x_stride = x.stride;
    a.y = y.at(rows), a.y_stride = y.stride;
    a.bias = bias == nullptr ? nullptr : weights.at<float>(bias->place);
    a.rows = x.live();
    return kernels.launch(stream, a, x.count(rows), 1, tiles);
  };
  return {};
}

}  // namespace tandem::cuda
