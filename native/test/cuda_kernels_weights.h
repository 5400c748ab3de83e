// Random weights of every format that the GPU kernels read, with their decoded values.
#pragma once

#include "quant/formats.h"
#include "test/cuda_kernels_support.h"

namespace tandem::test {

#define NAME_OF(X, format, Block) #format,
inline const char* const kNames[] = {TANDEM_CUDA_FORMATS(NAME_OF, 0)};
#undef NAME_OF

// A weight matrix with its decoded values; memory exactly as large as the matrix is, so that a sanitizer sees what is past it.
struct Weights {
  const quant::FormatInfo* format;
  int64_t n, k, scale_columns = 0, scale_rows = 0;
  std::vector<uint8_t> bytes, scales;
  std::vector<float> values;

  // `wild`: any bytes whatever; else weights of a size that products like.
  Weights(const char* name, int64_t rows, int64_t columns, Random& random, bool wild) : format(quant::find_format(name)), n(rows), k(columns) {
    const int64_t row_bytes = quant::row_bytes(*format, k);
    bytes.resize(static_cast<size_t>(n * row_bytes));
    values.resize(static_cast<size_t>(n * k));
    if (format->scale_columns > 0) {
      scale_columns = (k + format->scale_columns - 1) / format->scale_columns;
      scale_rows = (n + format->scale_rows - 1) / format->scale_rows;
      scales.resize(static_cast<size_t>(scale_rows * scale_columns * format->scale_bytes));
      fill_scales(random, wild);
    }
    for (int64_t r = 0; r < n; r++) {
      for (int64_t b = 0; b < k / format->block_size; b++) {
        uint8_t* block = bytes.data() + r * row_bytes + b * format->block_bytes;
        float* out = values.data() + r * k + b * format->block_size;
        do {
          for (int i = 0; i < format->block_bytes; i++) block[i] = static_cast<uint8_t>(random.next() >> 56);
          decode(r, block, b, out);
        } while (!wild && !tame(out));
      }
    }
  }

  cuda::WeightMatrix matrix() const {
    return {bytes.data(), quant::row_bytes(*format, k), scales.empty() ? nullptr : scales.data(), scale_columns * format->scale_bytes, n, k};
  }

 private:
  void fill_scales(Random& random, bool wild) {
    for (size_t i = 0; i < scales.size(); i += static_cast<size_t>(format->scale_bytes)) {
      const float value = wild ? quant::bits_float(static_cast<uint32_t>(random.next())) : 0.01f * random.uniform();
      const uint32_t bits = quant::float_bits(value);
      if (format->scale_bytes == 4) std::memcpy(&scales[i], &bits, 4);
      else if (format->scale_bytes == 2) scales[i] = static_cast<uint8_t>(bits >> 16), scales[i + 1] = static_cast<uint8_t>(bits >> 24);
      else scales[i] = wild ? static_cast<uint8_t>(bits) : static_cast<uint8_t>(120 + bits % 8);
    }
  }
  void decode(int64_t row, const uint8_t* block, int64_t b, float* out) const {
    const uint8_t* own = scales.empty() ? nullptr : scales.data() + row / format->scale_rows * scale_columns * format->scale_bytes;
    if (own != nullptr) own += b * format->block_size / format->scale_columns * format->scale_bytes;
    format->decode_row(block, out, format->block_size, own);
  }
  bool tame(const float* out) const {
    for (int i = 0; i < format->block_size; i++) {
      if (!(std::abs(out[i]) < 100)) return false;
    }
    return true;
  }
};

}  // namespace tandem::test
