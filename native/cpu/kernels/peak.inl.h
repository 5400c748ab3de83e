// peak: what the arithmetic of this instruction set gives at most, operands in registers. For benchmarks alone
// (cpu/probe.cc): registered as op "peak" with the name of the instruction in the place of the weight format.
//
// inputs[0].rows is the number of rounds; outputs[0].data[0] takes the operations of one round (a product and a sum are
// two), or 0 where this processor lacks the instruction.
#pragma once

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "core/kernel.h"
#include "cpu/isa.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// The instructions are written out: compilers add a copy to each intrinsic here, and a processor's front end would be measured.
// Sums that do not wait for each other: two instructions a cycle, six cycles until a sum may be used again.
constexpr int kPeakSums = 12;

#if TANDEM_ISA_LEVEL == 1

// Products of bytes as pairs in 16 bits, pairs of those in 32, and the sum: three instructions for 32 products.
static Status peak_avx2_int8(StepContext& context) {
  constexpr int kSums = 8;  // few registers; an addition takes one cycle
  __m256i a = _mm256_set1_epi8(1), b = a, sums[kSums] = {};
  const __m256i ones = _mm256_set1_epi16(1);
  for (int64_t round = 0; round < context.inputs[0].rows; round++) {
#pragma GCC unroll 8
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(a), "+x"(b));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ones));
    }
  }
  for (__m256i& sum : sums) asm volatile("" : "+x"(sum));
  context.outputs[0].data[0] = kSums * 32 * 2;
  return {};
}

static Status peak_avx2_f32(StepContext& context) {
  const __m256 a = _mm256_set1_ps(0.5f), b = a;
  __m256 sums[kPeakSums] = {};
  for (int64_t round = 0; round < context.inputs[0].rows; round++) {
#pragma GCC unroll 12
    for (__m256& sum : sums) asm volatile("vfmadd231ps %2, %1, %0" : "+x"(sum) : "x"(a), "x"(b));
  }
  for (__m256& sum : sums) asm volatile("" : "+x"(sum));
  context.outputs[0].data[0] = kPeakSums * 8 * 2;
  return {};
}

static void register_peak() {
  register_kernel({"peak", "avx2_int8", TANDEM_ISA}, peak_avx2_int8);
  register_kernel({"peak", "avx2_f32", TANDEM_ISA}, peak_avx2_f32);
}

#elif TANDEM_ISA_LEVEL == 2

static Status peak_avx512_int8(StepContext& context) {
  const __m512i a = _mm512_set1_epi8(1), b = a;
  __m512i sums[kPeakSums] = {};
  for (int64_t round = 0; round < context.inputs[0].rows; round++) {
#pragma GCC unroll 12
    for (__m512i& sum : sums) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  for (__m512i& sum : sums) asm volatile("" : "+v"(sum));
  context.outputs[0].data[0] = kPeakSums * 64 * 2;
  return {};
}

static Status peak_avx512_f32(StepContext& context) {
  const __m512 a = _mm512_set1_ps(0.5f), b = a;
  __m512 sums[kPeakSums] = {};
  for (int64_t round = 0; round < context.inputs[0].rows; round++) {
#pragma GCC unroll 12
    for (__m512& sum : sums) asm volatile("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  for (__m512& sum : sums) asm volatile("" : "+v"(sum));
  context.outputs[0].data[0] = kPeakSums * 16 * 2;
  return {};
}

static void run_bf16(int64_t rounds) {
  __m512 sums[kPeakSums] = {};
  const __m512i a = _mm512_set1_epi16(0x3f00), b = a;  // 0.5
  for (int64_t round = 0; round < rounds; round++) {
#pragma GCC unroll 12
    for (__m512& sum : sums) asm volatile("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  for (__m512& sum : sums) asm volatile("" : "+v"(sum));
}

static Status peak_avx512_bf16(StepContext& context) {
  const bool here = cpu_features().avx512bf16;
  if (here) run_bf16(context.inputs[0].rows);
  context.outputs[0].data[0] = here ? kPeakSums * 32 * 2 : 0;
  return {};
}

static void register_peak() {
  register_kernel({"peak", "avx512_int8", TANDEM_ISA}, peak_avx512_int8);
  register_kernel({"peak", "avx512_f32", TANDEM_ISA}, peak_avx512_f32);
  register_kernel({"peak", "avx512_bf16", TANDEM_ISA}, peak_avx512_bf16);
}

#elif TANDEM_ISA_LEVEL == 3

// Eight full tiles: four sums of two and two operands. The instruction reads all 64 bytes, whatever intrinsics say.
struct alignas(64) PeakTiles {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t columns[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

static void zero_tiles() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
}

#define TANDEM_PEAK_TILES(NAME, MULTIPLY, OPERATIONS)                          \
  static Status NAME(StepContext& context) {                                   \
    const PeakTiles tiles;                                                     \
    asm volatile("ldtilecfg %0" : : "m"(tiles));                               \
    zero_tiles();                                                              \
    for (int64_t round = 0; round < context.inputs[0].rows; round++) {         \
      MULTIPLY(0, 4, 6);                                                       \
      MULTIPLY(1, 4, 7);                                                       \
      MULTIPLY(2, 5, 6);                                                       \
      MULTIPLY(3, 5, 7);                                                       \
    }                                                                          \
    _tile_release();                                                           \
    context.outputs[0].data[0] = 4 * OPERATIONS;                               \
    return {};                                                                 \
  }
TANDEM_PEAK_TILES(peak_amx_int8, _tile_dpbssd, 16 * 16 * 64 * 2)
TANDEM_PEAK_TILES(peak_amx_bf16, _tile_dpbf16ps, 16 * 16 * 32 * 2)
#undef TANDEM_PEAK_TILES

static void register_peak() {
  register_kernel({"peak", "amx_int8", TANDEM_ISA}, peak_amx_int8);
  register_kernel({"peak", "amx_bf16", TANDEM_ISA}, peak_amx_bf16);
}

#else

static void register_peak() {}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
