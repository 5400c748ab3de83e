// Eight tile registers of up to 16 rows × 64 bytes: the AMX unit, and the same in memory for machines without one.
//
// A kernel takes the unit as a template parameter, so that every test of the emulation tests its addresses and shapes too.
// What the hardware answers with an exception (a shape that is not configured, operands that do not fit one another) makes
// the emulation store NaN in every place. Semantics: Intel SDM volume 1, chapter 18, and the pages of the instructions.
//
//     Unit unit; unit.configure(config);                       // before any other call, once per piece of work
//     unit.zero<0>(); unit.load<4>(a, 64); unit.load<6>(b, 64);
//     unit.dot_bf16<0, 4, 6>(); unit.store<0>(c, 64); unit.release();
#pragma once

#include <cstdint>
#include <cstring>

#if TANDEM_ISA_LEVEL >= 3
#include <immintrin.h>

namespace tandem::TANDEM_ISA_NAMESPACE {

// The operand of LDTILECFG, palette 1.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};  // of tiles 0 … 7; the others stay 0
  uint8_t rows[16] = {};
  void shape(int tile, int row_count, int bytes) {
    rows[tile] = static_cast<uint8_t>(row_count);
    row_bytes[tile] = static_cast<uint16_t>(bytes);
  }
};
static_assert(sizeof(TileConfig) == 64);

// The hardware. Every instruction is volatile and clobbers memory: the compiler knows neither tile registers nor what the
// instructions read and write.
struct AmxTiles {
  // The operand is the whole struct: gcc 12's own intrinsic names its first 8 bytes only, and the rest is never written.
  void configure(const TileConfig& config) { asm volatile("ldtilecfg %0" ::"m"(config) : "memory"); }
  // Back to the initial state, so that the system need not save 8 KB at every switch to another thread.
  void release() { asm volatile("tilerelease" ::: "memory"); }

  template <int tile>
  void zero() {
    asm volatile("tilezero %%tmm%c0" ::"i"(tile) : "memory");
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride), "i"(tile) : "memory");
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride), "i"(tile) : "memory");
  }
  // c[m][n] += Σ over pairs k of a[m][2k] · b[k][2n] + a[m][2k + 1] · b[k][2n + 1]; in the order of operands of AT&T: b, a, c.
  template <int c, int a, int b>
  void dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(c), "i"(a), "i"(b) : "memory");
  }
};

// The same in memory.
class EmulatedTiles {
 public:
  void configure(const TileConfig& config) {
    config_ = config;
    good_ = config.palette == 1 && config.start_row == 0;
    for (uint8_t byte : config.reserved) good_ = good_ && byte == 0;
    for (int t = 0; t < 16; t++) {
      const int rows = config.rows[t], bytes = config.row_bytes[t];
      good_ = good_ && rows <= (t < 8 ? 16 : 0) && bytes <= (t < 8 ? 64 : 0) && (rows == 0) == (bytes == 0);
    }
    std::memset(tiles_, 0, sizeof tiles_);
  }
  void release() { good_ = false; }

  template <int tile>
  void zero() {
    expect(is_shaped(tile));
    std::memset(tiles_[tile], 0, sizeof tiles_[tile]);
  }
  template <int tile>
  void load(const void* from, int64_t stride) {
    expect(is_shaped(tile));
    std::memset(tiles_[tile], 0, sizeof tiles_[tile]);
    for (int r = 0; r < config_.rows[tile]; r++) {
      std::memcpy(tiles_[tile] + 64 * r, static_cast<const uint8_t*>(from) + r * stride, config_.row_bytes[tile]);
    }
  }
  template <int tile>
  void store(void* to, int64_t stride) {
    expect(is_shaped(tile));
    for (int r = 0; r < config_.rows[tile]; r++) {
      uint8_t* row = static_cast<uint8_t*>(to) + r * stride;
      if (good_) std::memcpy(row, tiles_[tile] + 64 * r, config_.row_bytes[tile]);
      else std::memset(row, 0xff, config_.row_bytes[tile]);
    }
  }
  template <int c, int a, int b>
  void dot_bf16() {
    static_assert(c != a && c != b && a != b, "operands are three different tiles");
    expect(is_shaped(c) && is_shaped(a) && is_shaped(b));
    expect(config_.rows[c] == config_.rows[a] && config_.row_bytes[c] == config_.row_bytes[b] &&
           config_.row_bytes[a] == 4 * config_.rows[b] && config_.row_bytes[c] % 4 == 0);
    if (good_) multiply(tiles_[c], tiles_[a], tiles_[b], config_.rows[c], config_.rows[b]);
  }

 private:
  bool is_shaped(int tile) const { return config_.rows[tile] > 0; }
  void expect(bool rule) { good_ = good_ && rule; }

  // Subnormals count as zero and become zero (DAZ, FTZ); even and odd columns have a sum of their own within a tile.
  static __attribute__((noinline)) void multiply(uint8_t* c, const uint8_t* a, const uint8_t* b, int rows, int pairs) {
    const auto high = [](__m512i words) { return flushed(_mm512_and_si512(words, _mm512_set1_epi32(static_cast<int32_t>(0xffff0000u)))); };
    const auto low = [](__m512i words) { return flushed(_mm512_slli_epi32(words, 16)); };
    for (int m = 0; m < rows; m++) {
      __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
      for (int k = 0; k < pairs; k++) {
        int32_t pair;
        std::memcpy(&pair, a + 64 * m + 4 * k, sizeof pair);
        const __m512i weights = _mm512_set1_epi32(pair), values = _mm512_loadu_si512(b + 64 * k);
        even = flushed(_mm512_castps_si512(_mm512_fmadd_ps(low(weights), low(values), even)));
        odd = flushed(_mm512_castps_si512(_mm512_fmadd_ps(high(weights), high(values), odd)));
      }
      const __m512 sum = flushed(_mm512_castps_si512(_mm512_add_ps(even, odd)));
      const __m512 before = flushed(_mm512_loadu_si512(c + 64 * m));
      _mm512_storeu_ps(c + 64 * m, flushed(_mm512_castps_si512(_mm512_add_ps(before, sum))));
    }
  }
  static __m512 flushed(__m512i bits) {
    const __mmask16 normal = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x7f800000));
    return _mm512_maskz_mov_ps(normal, _mm512_castsi512_ps(bits));
  }

  TileConfig config_;
  alignas(64) uint8_t tiles_[8][16 * 64];
  bool good_ = false;
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
#endif
