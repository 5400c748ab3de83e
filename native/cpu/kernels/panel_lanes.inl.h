// Rows into lanes: what panels are made with.
//
// A vector of a panel holds four consecutive columns of kLaneRows weight rows, a row per 32-bit lane. 16 bytes of each row
// make four such vectors. Packed codes are turned first and unpacked then: fewer bytes to turn, and every unpacking step serves
// as many rows as there are lanes.
#pragma once

#include "cpu/kernels/panel_tile.inl.h"
#include "cpu/kernels/transpose.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

#if TANDEM_ISA_LEVEL >= 2

using Rows = __m512i;
constexpr int kLaneRows = 16;

static inline Rows rows_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline Rows rows_and(Rows a, int32_t mask) { return _mm512_and_si512(a, rows_set(mask)); }
static inline Rows rows_or(Rows a, Rows b) { return _mm512_or_si512(a, b); }
static inline Rows rows_right(Rows a, int bits) { return _mm512_srli_epi32(a, bits); }
static inline Rows rows_left(Rows a, int bits) { return _mm512_slli_epi32(a, bits); }
static inline Rows rows_signed(Rows a, int bits) { return _mm512_srai_epi32(a, bits); }
static inline Rows rows_add(Rows a, Rows b) { return _mm512_add_epi32(a, b); }
static inline Rows rows_sub(Rows a, Rows b) { return _mm512_sub_epi32(a, b); }
static inline Rows rows_times(Rows a, Rows b) { return _mm512_mullo_epi16(a, b); }
static inline Rows rows_sub_bytes(Rows a, Rows b) { return _mm512_sub_epi8(a, b); }
static inline Rows rows_look_up(const uint8_t* table, Rows index) {
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(load128(table)), index);
}
static inline void rows_store(void* p, Rows v) { _mm512_store_si512(p, v); }
using RowFloats = __m512;
static inline RowFloats rows_float(Rows v) { return _mm512_cvtepi32_ps(v); }
static inline void store_floats(float* p, RowFloats v) { _mm512_store_ps(p, v); }
static inline Rows broadcast_codes(const int8_t* x) { return rows_set(load_as<int32_t>(x)); }
static inline RowFloats fused(RowFloats a, RowFloats b, RowFloats c) { return _mm512_fmadd_ps(a, b, c); }
static inline RowFloats fused_off(RowFloats a, RowFloats b, RowFloats c) { return _mm512_fnmadd_ps(a, b, c); }
static inline RowFloats times(RowFloats a, float b) { return _mm512_mul_ps(a, _mm512_set1_ps(b)); }
static inline RowFloats load_row_floats(const float* p) { return _mm512_loadu_ps(p); }
static inline void store_row_floats(float* p, RowFloats v) { _mm512_storeu_ps(p, v); }
static inline RowFloats zero_row_floats() { return _mm512_setzero_ps(); }
static inline RowFloats row_floats_of(float x) { return _mm512_set1_ps(x); }
// Halves in the low words, as f32.
static inline RowFloats rows_halves(Rows v) { return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)); }

// out[i]: dword i of the 16 bytes at rows[r] + offset, for all rows r.
static inline void lift(const uint8_t* const* rows, int64_t offset, Rows (&out)[4]) {
  __m512i v[4];
  for (int j = 0; j < 4; j++) {
    v[j] = _mm512_castsi128_si512(load128(rows[j] + offset));
    v[j] = _mm512_mask_broadcast_i32x4(v[j], 0x00f0, load128(rows[4 + j] + offset));
    v[j] = _mm512_mask_broadcast_i32x4(v[j], 0x0f00, load128(rows[8 + j] + offset));
    v[j] = _mm512_mask_broadcast_i32x4(v[j], 0xf000, load128(rows[12 + j] + offset));
  }
  transpose_dwords(v, out);
}

#else

using Rows = __m256i;
constexpr int kLaneRows = 8;

static inline Rows rows_set(int32_t x) { return _mm256_set1_epi32(x); }
static inline Rows rows_and(Rows a, int32_t mask) { return _mm256_and_si256(a, rows_set(mask)); }
static inline Rows rows_or(Rows a, Rows b) { return _mm256_or_si256(a, b); }
static inline Rows rows_right(Rows a, int bits) { return _mm256_srli_epi32(a, bits); }
static inline Rows rows_left(Rows a, int bits) { return _mm256_slli_epi32(a, bits); }
static inline Rows rows_signed(Rows a, int bits) { return _mm256_srai_epi32(a, bits); }
static inline Rows rows_add(Rows a, Rows b) { return _mm256_add_epi32(a, b); }
static inline Rows rows_sub(Rows a, Rows b) { return _mm256_sub_epi32(a, b); }
static inline Rows rows_times(Rows a, Rows b) { return _mm256_mullo_epi16(a, b); }
static inline Rows rows_sub_bytes(Rows a, Rows b) { return _mm256_sub_epi8(a, b); }
static inline Rows rows_look_up(const uint8_t* table, Rows index) {
  return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load128(table)), index);
}
static inline void rows_store(void* p, Rows v) { _mm256_store_si256(static_cast<__m256i*>(p), v); }
using RowFloats = __m256;
static inline RowFloats rows_float(Rows v) { return _mm256_cvtepi32_ps(v); }
static inline void store_floats(float* p, RowFloats v) { _mm256_store_ps(p, v); }
static inline Rows broadcast_codes(const int8_t* x) { return rows_set(load_as<int32_t>(x)); }
static inline RowFloats fused(RowFloats a, RowFloats b, RowFloats c) { return _mm256_fmadd_ps(a, b, c); }
static inline RowFloats fused_off(RowFloats a, RowFloats b, RowFloats c) { return _mm256_fnmadd_ps(a, b, c); }
static inline RowFloats times(RowFloats a, float b) { return _mm256_mul_ps(a, _mm256_set1_ps(b)); }
static inline RowFloats load_row_floats(const float* p) { return _mm256_loadu_ps(p); }
static inline void store_row_floats(float* p, RowFloats v) { _mm256_storeu_ps(p, v); }
static inline RowFloats zero_row_floats() { return _mm256_setzero_ps(); }
static inline RowFloats row_floats_of(float x) { return _mm256_set1_ps(x); }
static inline RowFloats rows_halves(Rows v) {
  const __m256i low = rows_and(v, 0xffff), words = _mm256_permute4x64_epi64(_mm256_packus_epi32(low, low), 0xd8);
  return _mm256_cvtph_ps(_mm256_castsi256_si128(words));
}

static inline void lift(const uint8_t* const* rows, int64_t offset, Rows (&out)[4]) {
  __m256i v[4];
  for (int j = 0; j < 4; j++) {
    v[j] = _mm256_inserti128_si256(_mm256_castsi128_si256(load128(rows[j] + offset)), load128(rows[4 + j] + offset), 1);
  }
  transpose_dwords(v, out);
}

#endif

static inline Rows rows_byte(Rows v, int i) { return rows_and(rows_right(v, 8 * i), 0xff); }
// Bytes 2i and 2i + 1 as words.
static inline Rows rows_pair(Rows v, int i) {
  const Rows pair = i ? rows_right(v, 16) : v;
  return rows_or(rows_and(pair, 0xff), rows_left(rows_and(pair, 0xff00), 8));
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
