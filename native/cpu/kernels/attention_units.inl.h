// Units: how attention in fast mode multiplies small matrices.
//
// A unit names the element both operands are stored in and has one product,
//
//     c [m, kColumns]  (+)=  a [m, k] · panel [k, kColumns]      f32 sums
//
// `a` lies in rows; a *panel* holds kColumns columns side by side, kPair consecutive k of a column next to each other:
// [k / kPair][kColumns][kPair]. So lanes are columns (query rows, mostly) and nothing is added up across lanes.
// m is a multiple of kRowStep, k of kDepthStep. A sum runs over k in one order, whatever m is and whoever the neighbours are.
#pragma once

#include <cstring>

#include "cpu/kernels/attention_core.inl.h"
#include "cpu/tiles.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kRowStep = 16;
constexpr int64_t kDepthStep = 32;
static inline int64_t pad_depth(int64_t k) { return (k + kDepthStep - 1) / kDepthStep * kDepthStep; }

// ---- transposition of kLanes × kLanes words of 32 bits ----------------------------------------------------------------

#if TANDEM_ISA_LEVEL >= 2
using Words = __m512i;
static inline Words words_load(const void* p) { return _mm512_loadu_si512(p); }
static inline void words_store(void* p, Words w) { _mm512_storeu_si512(p, w); }
static inline void transpose_words(Words* r) {
  Words s[16];
  for (int i = 0; i < 16; i += 2) {
    s[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    r[i] = _mm512_unpacklo_epi64(s[i], s[i + 2]);
    r[i + 1] = _mm512_unpackhi_epi64(s[i], s[i + 2]);
    r[i + 2] = _mm512_unpacklo_epi64(s[i + 1], s[i + 3]);
    r[i + 3] = _mm512_unpackhi_epi64(s[i + 1], s[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    s[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    s[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    s[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    s[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(s[i], s[i + 8], 0xdd);
    r[i + 4] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0x88);
    r[i + 12] = _mm512_shuffle_i32x4(s[i + 4], s[i + 12], 0xdd);
  }
}
#elif TANDEM_ISA_LEVEL == 1
using Words = __m256i;
static inline Words words_load(const void* p) { return _mm256_loadu_si256(static_cast<const Words*>(p)); }
static inline void words_store(void* p, Words w) { _mm256_storeu_si256(static_cast<Words*>(p), w); }
static inline void transpose_words(Words* r) {
  Words s[8];
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
  }
  Words t[8];
  for (int i = 0; i < 8; i += 4) {
    t[i] = _mm256_unpacklo_epi64(s[i], s[i + 2]);
    t[i + 1] = _mm256_unpackhi_epi64(s[i], s[i + 2]);
    t[i + 2] = _mm256_unpacklo_epi64(s[i + 1], s[i + 3]);
    t[i + 3] = _mm256_unpackhi_epi64(s[i + 1], s[i + 3]);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x20);
    r[i + 4] = _mm256_permute2x128_si256(t[i], t[i + 4], 0x31);
  }
}
#else
struct Words {
  uint32_t lane[kLanes];
};
static inline Words words_load(const void* p) {
  Words w;
  std::memcpy(&w, p, sizeof w);
  return w;
}
static inline void words_store(void* p, Words w) { std::memcpy(p, &w, sizeof w); }
static inline void transpose_words(Words* r) {
  for (int i = 0; i < kLanes; i++) {
    for (int j = 0; j < i; j++) std::swap(r[i].lane[j], r[j].lane[i]);
  }
}
#endif

// ---- f32, on every machine ---------------------------------------------------------------------------------------------

struct FloatUnit {
  explicit FloatUnit(const TileEngine*) {}
  using Element = float;
  static constexpr int64_t kPair = 1;
  static constexpr int64_t kColumns = 2 * kLanes;
  static constexpr int kRows = TANDEM_ISA_LEVEL >= 2 ? 8 : 4;  // of a product at a time; sums fill the registers

  template <int M, int V>
  static void block(const float* a, int64_t a_stride, const float* panel, int64_t k, float* c, bool add) {
    Vec sum[M][V];
    for (int i = 0; i < M; i++) {
      for (int v = 0; v < V; v++) sum[i][v] = add ? vec_load(c + i * kColumns + v * kLanes) : vec_set(0.0f);
    }
    for (int64_t p = 0; p < k; p++, panel += kColumns) {
      Vec right[V];
      for (int v = 0; v < V; v++) right[v] = vec_load(panel + v * kLanes);
      for (int i = 0; i < M; i++) {
        const Vec left = vec_set(a[i * a_stride + p]);
        for (int v = 0; v < V; v++) sum[i][v] = vec_fma(left, right[v], sum[i][v]);
      }
    }
    for (int i = 0; i < M; i++) {
      for (int v = 0; v < V; v++) vec_store(c + i * kColumns + v * kLanes, sum[i][v]);
    }
  }
  // `columns`: how many of the panel's are wanted; others may be left as they were.
  void multiply(const float* a, int64_t a_stride, int64_t m, const float* panel, int64_t k, int64_t columns, float* c, bool add,
                Ahead& ahead) const {
    for (int64_t i = 0; i < m; i += kRows) {
      ahead.step();
      if (columns > kLanes) block<kRows, 2>(a + i * a_stride, a_stride, panel, k, c + i * kColumns, add);
      else block<kRows, 1>(a + i * a_stride, a_stride, panel, k, c + i * kColumns, add);
    }
  }

  // `count` elements from floats, or from a row of the cache.
  static void store(float* to, const float* from, int64_t count) { std::memcpy(to, from, static_cast<size_t>(count) * sizeof(float)); }
  static void store(float* to, const uint16_t* from, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) vec_store(to + i, vec_load_bf16(from + i));
    for (; i < count; i++) to[i] = bf16_to_f32(from[i]);
  }
  // Two rows of weights, one vector wide, as they lie in a panel.
  static void store_pair(float* panel_row, Vec even, Vec odd) {
    vec_store(panel_row, even);
    vec_store(panel_row + kColumns, odd);
  }
  // kLanes columns of `rows` [k, kColumns], as they lie in a panel; k is even.
  static void store_rows(float* panel, const float* rows, int64_t k) {
    for (int64_t p = 0; p < k; p++) vec_store(panel + p * kColumns, vec_load(rows + p * kColumns));
  }

  // Rows [0, kLanes) of `rows` (width: a multiple of kLanes) become columns [0, kLanes) of a panel.
  static void pack_columns(const float* rows, int64_t stride, int64_t width, float* panel) {
    for (int64_t k = 0; k < width; k += kLanes) {
      Words words[kLanes];
      for (int i = 0; i < kLanes; i++) words[i] = words_load(rows + i * stride + k);
      transpose_words(words);
      for (int i = 0; i < kLanes; i++) words_store(panel + (k + i) * kColumns, words[i]);
    }
  }
  // out [width, out_stride]: the transpose of `rows` [count, width]; both multiples of kLanes.
  static void transpose(const float* rows, int64_t stride, int64_t count, int64_t width, float* out, int64_t out_stride) {
    for (int64_t t = 0; t < count; t += kLanes) {
      for (int64_t c = 0; c < width; c += kLanes) {
        Words words[kLanes];
        for (int i = 0; i < kLanes; i++) words[i] = words_load(rows + (t + i) * stride + c);
        transpose_words(words);
        for (int i = 0; i < kLanes; i++) words_store(out + (c + i) * out_stride + t, words[i]);
      }
    }
  }
};

// ---- bf16 · bf16 → f32 -------------------------------------------------------------------------------------------------

#if TANDEM_ISA_LEVEL >= 2
// The avx512 build has no BF16 of its own (Cascade Lake): these functions are entered only where cpu_features() says so.
#define TANDEM_BF16 __attribute__((target("avx512bf16")))

struct Bf16Unit {
  // On the engine's tiles, where it has some for these products; else by VDPBF16PS.
  explicit Bf16Unit(const TileEngine* engine) : dense_(engine->dense) {}
  using Element = uint16_t;
  static constexpr int64_t kPair = 2;
  static constexpr int64_t kColumns = 32;
  static constexpr int kRows = 8;

  template <int M, int V>
  TANDEM_BF16 static void block(const uint16_t* a, int64_t a_stride, const uint16_t* panel, int64_t k, float* c, bool add) {
    __m512 sum[M][V];
    for (int i = 0; i < M; i++) {
      for (int v = 0; v < V; v++) sum[i][v] = add ? _mm512_loadu_ps(c + i * kColumns + v * 16) : _mm512_setzero_ps();
    }
    for (int64_t p = 0; p < k; p += 2, panel += 2 * kColumns) {
      __m512bh right[V];
      for (int v = 0; v < V; v++) right[v] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(panel + v * 32));
      for (int i = 0; i < M; i++) {
        int pair;
        std::memcpy(&pair, a + i * a_stride + p, 4);
        const __m512bh left = reinterpret_cast<__m512bh>(_mm512_set1_epi32(pair));
        for (int v = 0; v < V; v++) sum[i][v] = _mm512_dpbf16_ps(sum[i][v], left, right[v]);
      }
    }
    for (int i = 0; i < M; i++) {
      for (int v = 0; v < V; v++) _mm512_storeu_ps(c + i * kColumns + v * 16, sum[i][v]);
    }
  }
  TANDEM_BF16 void multiply(const uint16_t* a, int64_t a_stride, int64_t m, const uint16_t* panel, int64_t k, int64_t columns, float* c,
                            bool add, Ahead& ahead) const {
    if (dense_ != nullptr) {
      for (int64_t i = 0; i < m; i += kRows) ahead.step();
      return dense_({a, a_stride, m, panel, k, columns, c, add});
    }
    for (int64_t i = 0; i < m; i += kRows) {
      ahead.step();
      if (columns > 16) block<kRows, 2>(a + i * a_stride, a_stride, panel, k, c + i * kColumns, add);
      else block<kRows, 1>(a + i * a_stride, a_stride, panel, k, c + i * kColumns, add);
    }
  }

  TANDEM_BF16 static __m512i round_pair(__m512 even, __m512 odd) {  // words: even low, odd high
    const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even)));
    const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd)));
    return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
  }
  TANDEM_BF16 static void store(uint16_t* to, const float* from, int64_t count) {
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(_mm512_loadu_ps(from + i))));
    }
    for (; i < count; i++) to[i] = f32_to_bf16(from[i]);
  }
  static void store(uint16_t* to, const uint16_t* from, int64_t count) { std::memcpy(to, from, static_cast<size_t>(count) * sizeof(uint16_t)); }
  TANDEM_BF16 static void store_pair(uint16_t* panel_row, Vec even, Vec odd) { _mm512_storeu_si512(panel_row, round_pair(even, odd)); }
  TANDEM_BF16 static void store_rows(uint16_t* panel, const float* rows, int64_t k) {
    for (int64_t p = 0; p < k; p += 2, panel += 2 * kColumns, rows += 2 * kColumns)
      store_pair(panel, _mm512_loadu_ps(rows), _mm512_loadu_ps(rows + kColumns));
  }

  TANDEM_BF16 static void pack_columns(const float* rows, int64_t stride, int64_t width, uint16_t* panel) {
    for (int64_t k = 0; k < width; k += 32) {
      Words words[16];
      for (int i = 0; i < 16; i++) {
        const float* at = rows + i * stride + k;
        words[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(at + 16), _mm512_loadu_ps(at)));
      }
      transpose_words(words);
      for (int i = 0; i < 16; i++) _mm512_storeu_si512(panel + (k / 2 + i) * 2 * kColumns, words[i]);
    }
  }
  static void transpose(const uint16_t* rows, int64_t stride, int64_t count, int64_t width, uint16_t* out, int64_t out_stride) {
    for (int64_t t = 0; t < count; t += 32) {
      for (int64_t c = 0; c < width; c += 16) {
        Words words[16];
        for (int i = 0; i < 16; i++) {
          const uint16_t* at = rows + (t + 2 * i) * stride + c;
          const __m512i even = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
          const __m512i odd = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at + stride)));
          words[i] = _mm512_or_si512(even, _mm512_slli_epi32(odd, 16));
        }
        transpose_words(words);
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(out + (c + i) * out_stride + t, words[i]);
      }
    }
  }

 private:
  void (*dense_)(const DenseProduct& product);
};
#endif

// body(unit, engine) with the unit of this machine: bf16 where the tile engine is, else f32.
template <typename Body>
static Status with_unit(const StepContext& context, Body&& body) {
  const TileEngine* engine = nullptr;
  TANDEM_TRY(choose_tiles(context.isa, engine));
#if TANDEM_ISA_LEVEL >= 2
  if (engine != nullptr) return body(Bf16Unit(engine), engine);
#endif
  return body(FloatUnit(engine), engine);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
