// From integer sums of a block to the f32 result: what makes an element's bits the same in a tile of any shape and in a panel.
//
// Of blocks b = 0, 1, … in order, starting from +0, every operation rounded once to f32:
//   y ← fma(d_w[b] · d_x[b], float(S_b), y)        S_b = Σ scale · code · q over the block, exact in int32
//   y ← fma(−(dmin_w[b] · d_x[b]), float(M_b), y)  M_b = Σ minimum · Σq, exact (formats with minima)
// Tiles keep S_b in lanes along K. Adding the lanes of several rows at once takes three to four operations a row and block.
#pragma once

#include "cpu/kernels/dot_codes256.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL > 0 && TANDEM_ISA_LEVEL < 3

using Sums = decltype(zero_sums());

static inline int32_t add_lanes(__m128i v) {
  v = _mm_add_epi32(v, _mm_shuffle_epi32(v, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(v, _mm_shuffle_epi32(v, 0xb1)));
}
static inline int32_t add_lanes(__m256i v) {
  return add_lanes(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
}
#if TANDEM_ISA_LEVEL >= 2
static inline int32_t add_lanes(__m512i v) {
  return add_lanes(_mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1)));
}
#endif

// One row, any number of tokens: the plain way.
template <int R, int M, bool kMins>
struct Totals {
  static_assert(R == 1);
  __m128 totals[M];

  Totals() {
    for (int m = 0; m < M; m++) totals[m] = _mm_setzero_ps();
  }
  template <typename Head>
  void add(const Sums (&sums)[R][M], const Head (&heads)[R], const ActivationRow* x, int64_t b) {
    for (int m = 0; m < M; m++) {
      const float d = x[m].scales[b];
      totals[m] = _mm_fmadd_ss(_mm_set_ss(static_cast<float>(add_lanes(sums[0][m]))), _mm_set_ss(heads[0].d * d), totals[m]);
      if constexpr (kMins) {
        const __m256i taken = _mm256_madd_epi16(heads[0].mins, load256(x[m].bsums + b * 16));
        totals[m] = _mm_fnmadd_ss(_mm_set_ss(static_cast<float>(add_lanes(taken))), _mm_set_ss(heads[0].dmin * d), totals[m]);
      }
    }
  }
  void store(float* out) const {
    for (int m = 0; m < M; m++) out[m] = _mm_cvtss_f32(totals[m]);
  }
};

#if TANDEM_ISA_LEVEL >= 2

// Two rows, one token: the tile of decode.
template <bool kMins>
struct Totals<2, 1, kMins> {
  __m128 totals[2] = {_mm_setzero_ps(), _mm_setzero_ps()};

  template <typename Head>
  void add(const Sums (&sums)[2][1], const Head (&heads)[2], const ActivationRow* x, int64_t b) {
    const __m512i a = sums[0][0], c = sums[1][0];
    // Row 0 in the lower half, row 1 in the upper.
    __m512i v = _mm512_add_epi32(_mm512_shuffle_i64x2(a, c, 0x44), _mm512_shuffle_i64x2(a, c, 0xee));
    if constexpr (kMins) {
      const __m512i mins = _mm512_inserti64x4(_mm512_castsi256_si512(heads[0].mins), heads[1].mins, 1);
      const __m512i taken = _mm512_madd_epi16(mins, _mm512_broadcast_i64x4(load256(x->bsums + b * 16)));
      v = _mm512_add_epi32(_mm512_unpacklo_epi64(v, taken), _mm512_unpackhi_epi64(v, taken));
    } else {
      v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, static_cast<_MM_PERM_ENUM>(0x4e)));
    }
    v = _mm512_add_epi32(v, _mm512_shuffle_epi32(v, static_cast<_MM_PERM_ENUM>(0xb1)));
    v = _mm512_add_epi32(v, _mm512_shuffle_i64x2(v, v, 0xb1));
    const __m512 whole = _mm512_cvtepi32_ps(v);
    const __m128 rows[2] = {_mm512_castps512_ps128(whole), _mm512_extractf32x4_ps(whole, 2)};
    const float d = x->scales[b];
    for (int r = 0; r < 2; r++) {
      totals[r] = _mm_fmadd_ss(rows[r], _mm_set_ss(heads[r].d * d), totals[r]);
      if constexpr (kMins) {
        totals[r] = _mm_fnmadd_ss(_mm_movehl_ps(rows[r], rows[r]), _mm_set_ss(heads[r].dmin * d), totals[r]);
      }
    }
  }
  void store(float* out) const {
    for (int r = 0; r < 2; r++) out[r] = _mm_cvtss_f32(totals[r]);
  }
};

// Four rows: row r and token m meet in lane 4r + m.
template <int M, bool kMins>
struct Totals<4, M, kMins> {
  __m512 totals = _mm512_setzero_ps();

  // Row r in the four lanes of quarter r, still to be added up.
  static __m512i quarters(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xdd));
  }
  static __m512i halves(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_shuffle_i64x2(a, b, 0x44), _mm512_shuffle_i64x2(a, b, 0xee));
  }
  // Lane m of each quarter: the sum of that quarter of v[m].
  static __m512i lanes(const __m512i (&v)[M]) {
    const auto pairs = [](__m512i a, __m512i b) { return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b)); };
    const __m512i low = pairs(v[0], v[M > 1 ? 1 : 0]);
    const __m512i high = M > 2 ? pairs(v[M > 2 ? 2 : 0], v[M - 1]) : low;
    return _mm512_add_epi32(_mm512_unpacklo_epi64(low, high), _mm512_unpackhi_epi64(low, high));
  }
  static __m512 each_quarter(float a, float b, float c, float d) {
    const __m512i index = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
    return _mm512_permutexvar_ps(index, _mm512_castps128_ps512(_mm_set_ps(d, c, b, a)));
  }
  template <typename Head>
  void add(const Sums (&sums)[4][M], const Head (&heads)[4], const ActivationRow* x, int64_t b) {
    alignas(16) float d[4] = {};
    __m512i v[M];
    for (int m = 0; m < M; m++) {
      d[m] = x[m].scales[b];
      v[m] = quarters(halves(sums[0][m], sums[1][m]), halves(sums[2][m], sums[3][m]));
    }
    const __m512 scale = _mm512_broadcast_f32x4(_mm_load_ps(d));
    const __m512 rows = _mm512_mul_ps(each_quarter(heads[0].d, heads[1].d, heads[2].d, heads[3].d), scale);
    totals = _mm512_fmadd_ps(_mm512_cvtepi32_ps(lanes(v)), rows, totals);
    if constexpr (kMins) {
      const __m512i low = _mm512_inserti64x4(_mm512_castsi256_si512(heads[0].mins), heads[1].mins, 1);
      const __m512i high = _mm512_inserti64x4(_mm512_castsi256_si512(heads[2].mins), heads[3].mins, 1);
      for (int m = 0; m < M; m++) {
        const __m512i bsums = _mm512_broadcast_i64x4(load256(x[m].bsums + b * 16));
        v[m] = quarters(_mm512_madd_epi16(low, bsums), _mm512_madd_epi16(high, bsums));
      }
      const __m512 minima = _mm512_mul_ps(each_quarter(heads[0].dmin, heads[1].dmin, heads[2].dmin, heads[3].dmin), scale);
      totals = _mm512_fnmadd_ps(_mm512_cvtepi32_ps(lanes(v)), minima, totals);
    }
  }
  void store(float* out) const {
    alignas(64) float all[16];
    _mm512_store_ps(all, totals);
    for (int r = 0; r < 4; r++) {
      for (int m = 0; m < M; m++) out[r * M + m] = all[4 * r + m];
    }
  }
};

#else

// Two rows: row r and token m meet in lane 2 · (m mod 2) + r of vector m / 2.
template <int M, bool kMins>
struct Totals<2, M, kMins> {
  static constexpr int kPairs = (M + 1) / 2;
  __m128 totals[kPairs];

  Totals() {
    for (int i = 0; i < kPairs; i++) totals[i] = _mm_setzero_ps();
  }
  // The sums of a, b, c, d in one vector.
  static __m128 lanes(__m256i a, __m256i b, __m256i c, __m256i d) {
    const __m256i v = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    return _mm_cvtepi32_ps(_mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)));
  }
  static __m128 both_tokens(float a, float b) { return _mm_castpd_ps(_mm_movedup_pd(_mm_castps_pd(_mm_set_ps(0, 0, b, a)))); }
  template <typename Head>
  void add(const Sums (&sums)[2][M], const Head (&heads)[2], const ActivationRow* x, int64_t b) {
    const __m128 rows = both_tokens(heads[0].d, heads[1].d);
    if constexpr (M == 1) {
      const __m128 d = _mm_set1_ps(x->scales[b]);
      if constexpr (kMins) {
        const __m256i bsums = load256(x->bsums + b * 16);
        const __m128 v = lanes(sums[0][0], sums[1][0], _mm256_madd_epi16(heads[0].mins, bsums), _mm256_madd_epi16(heads[1].mins, bsums));
        totals[0] = _mm_fmadd_ps(v, _mm_mul_ps(rows, d), totals[0]);
        totals[0] = _mm_fnmadd_ps(_mm_movehl_ps(v, v), _mm_mul_ps(both_tokens(heads[0].dmin, heads[1].dmin), d), totals[0]);
      } else {
        totals[0] = _mm_fmadd_ps(lanes(sums[0][0], sums[1][0], sums[0][0], sums[1][0]), _mm_mul_ps(rows, d), totals[0]);
      }
      return;
    }
    for (int i = 0; i < kPairs; i++) {
      const int m = 2 * i, n = m + 1 < M ? m + 1 : m;
      const __m128 d = _mm_set_ps(x[n].scales[b], x[n].scales[b], x[m].scales[b], x[m].scales[b]);
      totals[i] = _mm_fmadd_ps(lanes(sums[0][m], sums[1][m], sums[0][n], sums[1][n]), _mm_mul_ps(rows, d), totals[i]);
      if constexpr (kMins) {
        const __m256i one = load256(x[m].bsums + b * 16), two = load256(x[n].bsums + b * 16);
        const __m128 v = lanes(_mm256_madd_epi16(heads[0].mins, one), _mm256_madd_epi16(heads[1].mins, one),
                               _mm256_madd_epi16(heads[0].mins, two), _mm256_madd_epi16(heads[1].mins, two));
        totals[i] = _mm_fnmadd_ps(v, _mm_mul_ps(both_tokens(heads[0].dmin, heads[1].dmin), d), totals[i]);
      }
    }
  }
  void store(float* out) const {
    for (int m = 0; m < M; m++) {
      alignas(16) float all[4];
      _mm_store_ps(all, totals[m / 2]);
      for (int r = 0; r < 2; r++) out[r * M + m] = all[2 * (m % 2) + r];
    }
  }
};

#endif
#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
