// Rows of x as `round_rows` leaves them for tiles.
#pragma once

#include "test/cuda_kernels_support.h"

namespace tandem::test {

// [capacity, ⌈K / 128⌉ · 128] bf16; rows beyond those that there are hold NaN.
inline std::vector<uint16_t> round_rows(const float* x, int64_t x_stride, int64_t capacity, int64_t k, const char* format, const int32_t* rows) {
  const int64_t stride = cuda::rounded_columns(k);
  std::vector<float> words(static_cast<size_t>(capacity * stride / 2), quant::bits_float(0xffffffffu));
  cuda::RoundRowsArguments a = {};
  a.x = x, a.x_stride = x_stride, a.y = reinterpret_cast<uint16_t*>(words.data()), a.y_stride = stride, a.k = k, a.rows = rows, a.times = 1, a.order = cuda::column_order(format);
  launch("round_rows", cuda::round_rows_shape(k, capacity), a, words);
  std::vector<uint16_t> rounded(static_cast<size_t>(capacity * stride));
  std::memcpy(rounded.data(), words.data(), rounded.size() * 2);
  return rounded;
}

}  // namespace tandem::test
