// What the files of mla share: its shape, and rows of W_UK and W_UV as f32.
#pragma once

#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/vec.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kAheadBytes = 8192; // of weights that are fetched while earlier ones are decoded

struct MlaShape {
  int64_t nope, rope, latent, value;
  int64_t query_width;  // of a q~ row: latent + rope, padded
};

struct Span {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
static inline Span part_of(int64_t length, int64_t part, int64_t index) {
  return {index * part, (index + 1) * part < length ? (index + 1) * part : length};
}

// Columns of weight rows [first, first + count) of matrix e as f32 [count, padded columns]; `last` ends the rows that follow.
static void decode_panel(const BoundWeight& weight, int64_t e, int64_t first, int64_t count, int64_t last, Span columns, float* panel) {
  const WeightFormat format = weight_format(*weight.format);
  const int64_t padded = pad_columns(columns.size()), ahead = kAheadBytes / weight.row_bytes + 1;
  const auto bytes_of = [&](int64_t n) { return n / format_info(format).block_size * format_info(format).block_bytes; };
  const uint8_t* row = weight.matrix(e) + first * weight.row_bytes + bytes_of(columns.begin);
  const int64_t bytes = bytes_of(columns.size());
  for (int64_t n = first; n < first + count; n++, panel += padded, row += weight.row_bytes) {
    if (n + ahead < last) {
      for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + ahead * weight.row_bytes + i, 0, 2);
    }
    const uint8_t* scales = weight.row_scales(e, n);
    decode_row(format, row, panel, columns.size(), format_info(format).scales_at(scales, columns.begin));
    for (int64_t c = columns.size(); c < padded; c++) panel[c] = 0.0f;
  }
}

// W_UK and W_UV: kv_b, or k_b (W_UK transposed) and v_b.
struct MlaWeights {
  const BoundWeight *kv_b, *k_b, *v_b;
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
