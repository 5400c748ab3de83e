// kv-append and mla-append: columns of this pass's rows to their places in the pages, rounded to the cache's type.
// One launch a stream's part (k, v; latent, rope key). Grid: (⌈heads · columns / 256⌉, rows).
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"
#include "cuda/kernels/elementwise.cuh"

namespace tandem::cuda {

// Elements of a cache: float, or uint16_t for bf16.
static TANDEM_DEVICE float cache_float(float value) { return value; }
static TANDEM_DEVICE float cache_float(uint16_t value) { return quant::bf16_to_f32(value); }
static TANDEM_DEVICE void store_float(float* at, float value) { *at = value; }
static TANDEM_DEVICE void store_float(uint16_t* at, float value) { *at = quant::f32_to_bf16(value); }

// Element (position, head, 0) of a sequence's stream.
template <typename T>
static TANDEM_DEVICE T* cache_at(const CacheView& cache, int64_t sequence, int64_t position, int64_t head, int64_t width) {
  const int64_t page = cache.tables[sequence * cache.table_stride + position / cache.page_tokens];
  const int64_t place = head * cache.page_tokens + position % cache.page_tokens;
  return reinterpret_cast<T*>(cache.base) + page * cache.page_elements + cache.offset + place * width;
}

template <typename T>
static TANDEM_DEVICE void cache_append(const CacheAppendArguments& a) {
  const int64_t at = own_column(a.heads * a.columns, a.cache.rows), row = blockIdx.y;
  if (at < 0) return;
  const int64_t sequence = a.cache.sequence_of_row[row];
  if (a.cache.dead != nullptr && a.cache.dead[sequence]) return;
  const int64_t head = at / a.columns, column = at % a.columns;
  T* to = cache_at<T>(a.cache, sequence, a.cache.positions[row], head, a.cache.width);
  store_float(to + a.first + column, a.x[row * a.x_stride + at]);
}

}  // namespace tandem::cuda
