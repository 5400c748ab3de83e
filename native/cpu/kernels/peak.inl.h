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

#if TANDEM_ISA_LEVEL == 1 || TANDEM_ISA_LEVEL == 2
// Twelve sums that do not wait for each other: two instructions a cycle, six cycles until a sum may be used again. The loop
// is written out whole: compilers keep an array of sums in memory, and the stores would be measured. Operands are zero.
constexpr int kPeakSums = 12;
#define TANDEM_PEAK_CLOBBERS "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc"
#define TANDEM_PEAK_LOOP(ROUNDS, EACH)                                                                                        \
  asm volatile("vpxor %%xmm0, %%xmm0, %%xmm0\n vpxor %%xmm1, %%xmm1, %%xmm1\n vpxor %%xmm4, %%xmm4, %%xmm4\n"                  \
               "vpxor %%xmm5, %%xmm5, %%xmm5\n vpxor %%xmm6, %%xmm6, %%xmm6\n vpxor %%xmm7, %%xmm7, %%xmm7\n"                  \
               "vpxor %%xmm8, %%xmm8, %%xmm8\n vpxor %%xmm9, %%xmm9, %%xmm9\n vpxor %%xmm10, %%xmm10, %%xmm10\n"               \
               "vpxor %%xmm11, %%xmm11, %%xmm11\n vpxor %%xmm12, %%xmm12, %%xmm12\n vpxor %%xmm13, %%xmm13, %%xmm13\n"         \
               "vpxor %%xmm14, %%xmm14, %%xmm14\n vpxor %%xmm15, %%xmm15, %%xmm15\n"                                          \
               ".p2align 5\n 1:\n" EACH(4) EACH(5) EACH(6) EACH(7) EACH(8) EACH(9) EACH(10) EACH(11) EACH(12) EACH(13) EACH(14) \
                   EACH(15) "dec %0\n jnz 1b\n"                                                                              \
               : "+r"(ROUNDS)                                                                                                 \
               :                                                                                                              \
               : TANDEM_PEAK_CLOBBERS)
#define TANDEM_PEAK(NAME, EACH, OPERATIONS)                \
  static Status NAME(StepContext& context) {               \
    int64_t rounds = context.inputs[0].rows;               \
    if (rounds > 0) TANDEM_PEAK_LOOP(rounds, EACH);        \
    context.outputs[0].data[0] = kPeakSums * (OPERATIONS); \
    return {};                                             \
  }
#endif

#if TANDEM_ISA_LEVEL == 1

// Products of bytes as pairs in 16 bits, pairs of those in 32, and the sum: three instructions for 32 products.
#define TANDEM_EACH_INT8(SUM)                                              \
  "vpmaddubsw %%ymm1, %%ymm0, %%ymm2\n vpmaddwd %%ymm1, %%ymm2, %%ymm2\n" \
  "vpaddd %%ymm2, %%ymm" #SUM ", %%ymm" #SUM "\n"
#define TANDEM_EACH_F32(SUM) "vfmadd231ps %%ymm1, %%ymm0, %%ymm" #SUM "\n"
TANDEM_PEAK(peak_avx2_int8, TANDEM_EACH_INT8, 32 * 2)
TANDEM_PEAK(peak_avx2_f32, TANDEM_EACH_F32, 8 * 2)

static void register_peak() {
  register_kernel({"peak", "avx2_int8", TANDEM_ISA}, peak_avx2_int8);
  register_kernel({"peak", "avx2_f32", TANDEM_ISA}, peak_avx2_f32);
}

#elif TANDEM_ISA_LEVEL == 2

#define TANDEM_EACH_INT8(SUM) "vpdpbusd %%zmm1, %%zmm0, %%zmm" #SUM "\n"
#define TANDEM_EACH_F32(SUM) "vfmadd231ps %%zmm1, %%zmm0, %%zmm" #SUM "\n"
#define TANDEM_EACH_BF16(SUM) "vdpbf16ps %%zmm1, %%zmm0, %%zmm" #SUM "\n"
TANDEM_PEAK(peak_avx512_int8, TANDEM_EACH_INT8, 64 * 2)
TANDEM_PEAK(peak_avx512_f32, TANDEM_EACH_F32, 16 * 2)

static Status peak_avx512_bf16(StepContext& context) {
  int64_t rounds = context.inputs[0].rows;
  const bool here = cpu_features().avx512bf16;
  if (here && rounds > 0) TANDEM_PEAK_LOOP(rounds, TANDEM_EACH_BF16);
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
