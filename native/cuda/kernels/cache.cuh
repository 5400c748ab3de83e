// kv-append and mla-append: columns of this pass's rows to their places in the pages, rounded to the cache's type.
// One launch a stream's part (k, v; latent, rope key). Grid: (⌈heads · columns / 256⌉, rows).
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/codes.cuh"
#include "cuda/kernels/dialect.cuh"
#include "cuda/kernels/elementwise.cuh"

namespace tandem::cuda {

// Nearest e4m3, ties to even; beyond ±448 the largest of that sign. NaN stays NaN.
static TANDEM_DEVICE uint8_t f32_to_e4m3(float value) {
  const uint32_t bits = float_bits(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return static_cast<uint8_t>(sign | 0x7f);
  if (magnitude >= 0x43e00000) return static_cast<uint8_t>(sign | 0x7e);
  if (magnitude < 0x3c800000) {  // below 2^-6: steps of 2^-9, rounded by an addition that leaves no room for a fraction
    return static_cast<uint8_t>(sign | (float_bits(bits_float(magnitude) * 512.0f + 8388608.0f) & 15));
  }
  const uint32_t rebiased = magnitude - (120u << 23);
  return static_cast<uint8_t>(sign | (rebiased + 0x7ffff + (rebiased >> 20 & 1)) >> 20);
}

// Elements of a cache: float, uint16_t for bf16, uint8_t for e4m3 (without scales).
static TANDEM_DEVICE float cache_float(float value) { return value; }
static TANDEM_DEVICE float cache_float(uint16_t value) { return quant::bf16_to_f32(value); }
static TANDEM_DEVICE float cache_float(uint8_t value) { return quant::e4m3_to_f32(value); }
static TANDEM_DEVICE void store_float(float* at, float value) { *at = value; }
static TANDEM_DEVICE void store_float(uint16_t* at, float value) { *at = quant::f32_to_bf16(value); }
static TANDEM_DEVICE void store_float(uint8_t* at, float value) { *at = f32_to_e4m3(value); }

// Element (position, head, 0) of a sequence's stream.
template <typename T>
static TANDEM_DEVICE T* cache_at(const CacheView& cache, int64_t sequence, int64_t position, int64_t head, int64_t width) {
  const uint32_t own = static_cast<uint32_t>(position), page_tokens = static_cast<uint32_t>(cache.page_tokens);  // cards divide 32 bits far sooner
  const int64_t page = cache.tables[sequence * cache.table_stride + own / page_tokens];
  const int64_t place = head * cache.page_tokens + own % page_tokens;
  return reinterpret_cast<T*>(cache.base) + page * cache.page_elements + cache.offset + place * width;
}

// The first or the second two of four adjacent e4m3 numbers, in bf16.
template <int which>
static TANDEM_DEVICE uint32_t e4m3_pair(uint32_t four) {
  return e4m3_codes(byte_permute(four, 0, which == 0 ? 0x4140 : 0x4342));
}

// Eight adjacent elements.
static TANDEM_DEVICE void load_eight(const float* at, float* out) {
  if (aligned(at, 16)) {
    const float4 a = load_float4(at), b = load_float4(at + 4);
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w, out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = at[i];
  }
}
static TANDEM_DEVICE void load_eight(const uint16_t* at, float* out) {
  if (aligned(at, 16)) {
    const uint4 v = *reinterpret_cast<const uint4*>(at);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = bits_float(i & 1 ? words[i >> 1] & 0xffff0000u : words[i >> 1] << 16);
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = quant::bf16_to_f32(at[i]);
  }
}
static TANDEM_DEVICE void load_eight(const uint8_t* at, float* out) {
  if (aligned(at, 8)) {
    const uint2 v = *reinterpret_cast<const uint2*>(at);
    const uint32_t pairs[4] = {e4m3_pair<0>(v.x), e4m3_pair<1>(v.x), e4m3_pair<0>(v.y), e4m3_pair<1>(v.y)};
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = bits_float(i & 1 ? pairs[i >> 1] & 0xffff0000u : pairs[i >> 1] << 16);
  } else {
    TANDEM_UNROLL
    for (int i = 0; i < 8; i++) out[i] = quant::e4m3_to_f32(at[i]);
  }
}

// The first `count` (at least 1) of eight adjacent elements; the rest is 0.
template <typename T>
static TANDEM_DEVICE void load_up_to_eight(const T* at, int64_t count, float* out) {
  if (count >= 8) return load_eight(at, out);
  TANDEM_UNROLL
  for (int i = 0; i < 8; i++) out[i] = i < count ? cache_float(at[i]) : 0.0f;
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
