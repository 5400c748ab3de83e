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

// One row of the pass with weights in q4_k: unpacked in registers, as the numbers would come from a panel. Same bits.
#if TANDEM_ISA_LEVEL >= 2
// A block of q4_k of each of R rows by visit(r, i, weights): sixteen weights from column 16i on. The sixteen weights that a
// sub-block can have are computed, and chosen from a register: its lane number is a code.
template <int R, typename Visit>
static inline __attribute__((always_inline)) void visit_q4_k(const uint8_t* const (&block)[R], Visit&& visit) {
  const __m512 codes = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  alignas(32) float scales[R][8], mins[R][8];
#pragma GCC unroll 4
  for (int r = 0; r < R; r++) {
    const uint32_t a = quant::load_u32(block[r] + 4), b = quant::load_u32(block[r] + 8), c = quant::load_u32(block[r] + 12);
    const uint64_t high = (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u), high_min = (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u);
    const auto floats = [](uint64_t bytes) { return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(bytes)))); };
    _mm256_store_ps(scales[r], _mm256_mul_ps(_mm256_set1_ps(half_scale(block[r])), floats((a & 0x3f3f3f3fu) | high << 32)));
    _mm256_store_ps(mins[r], _mm256_mul_ps(_mm256_set1_ps(half_scale(block[r] + 2)), floats((b & 0x3f3f3f3fu) | high_min << 32)));
  }
#pragma GCC unroll 4
  for (int s = 0; s < 8; s += 2) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const auto weights_of = [&](int sub) __attribute__((always_inline)) {
        return _mm512_sub_ps(_mm512_mul_ps(_mm512_set1_ps(scales[r][sub]), codes), _mm512_set1_ps(mins[r][sub]));
      };
      const __m512 even = weights_of(s), odd = weights_of(s + 1);
      const __m512i first = _mm512_cvtepu8_epi32(sixteen(block[r] + 16 + 16 * s)), second = _mm512_cvtepu8_epi32(sixteen(block[r] + 32 + 16 * s));
      visit(r, 2 * s, _mm512_permutexvar_ps(first, even));
      visit(r, 2 * s + 1, _mm512_permutexvar_ps(second, even));
      visit(r, 2 * s + 2, _mm512_permutexvar_ps(_mm512_srli_epi32(first, 4), odd));
      visit(r, 2 * s + 3, _mm512_permutexvar_ps(_mm512_srli_epi32(second, 4), odd));
    }
  }
}
static inline bool is_fused(const BoundWeight& weight, int64_t rows) { return rows == 1 && weight_format(*weight.format) == WeightFormat::q4_k; }
static inline void fetch_block(const uint8_t* block) {
  for (int i = 0; i < 144; i += 64) __builtin_prefetch(block + kAheadBytes + i, 0, 2);
}
// out[c] = Σ_d q[d] · w[first + d][c] over the columns, added up in the order of d.
static void fused_weighted_rows(const BoundWeight& weight, int64_t first, int64_t count, Span columns, const float* q, float* out) {
  for (int64_t c = columns.begin; c < columns.end; c += 256, out += 256) {
    __m512 sums[16];
    for (int i = 0; i < 16; i++) sums[i] = _mm512_setzero_ps();
    const uint8_t* block = weight.matrix(0) + first * weight.row_bytes + c / 256 * 144;
    for (int64_t d = 0; d < count; d++, block += weight.row_bytes) {
      fetch_block(block);
      const __m512 factor = _mm512_set1_ps(q[d]);
      visit_q4_k<1>({block}, [&](int, int i, __m512 w) __attribute__((always_inline)) { sums[i] = _mm512_fmadd_ps(factor, w, sums[i]); });
    }
    for (int i = 0; i < 16; i++) _mm512_storeu_ps(out + 16 * i, sums[i]);
  }
}
// out[v] = w[first + v] · x, v < count; four at a time: `out` reaches to the next multiple of four.
static void fused_products(const BoundWeight& weight, int64_t e, int64_t first, int64_t count, const float* x, float* out) {
  for (int64_t v = 0; v < count; v += 4) {
    __m512 sums[4];
    const uint8_t* block[4];
    for (int r = 0; r < 4; r++) {
      sums[r] = _mm512_setzero_ps();
      block[r] = weight.matrix(e) + (first + (v + r < count ? v + r : v)) * weight.row_bytes;
    }
    for (int64_t c = 0; c < weight.columns; c += 256) {
      for (int r = 0; r < 4; r++) fetch_block(block[r]);
      visit_q4_k<4>(block, [&](int r, int i, __m512 w) __attribute__((always_inline)) {
        sums[r] = _mm512_fmadd_ps(_mm512_loadu_ps(x + c + 16 * i), w, sums[r]);
      });
      for (int r = 0; r < 4; r++) block[r] += 144;
    }
    vec_store_sum4(out + v, sums[0], sums[1], sums[2], sums[3]);
  }
}
#else
static inline bool is_fused(const BoundWeight&, int64_t) { return false; }
static void fused_weighted_rows(const BoundWeight&, int64_t, int64_t, Span, const float*, float*) {}
static void fused_products(const BoundWeight&, int64_t, int64_t, int64_t, const float*, float*) {}
#endif

// W_UK and W_UV: kv_b, or k_b (W_UK transposed) and v_b.
struct MlaWeights {
  const BoundWeight *kv_b, *k_b, *v_b;
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
