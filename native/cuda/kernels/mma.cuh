// The one tensor-core instruction kernels use: D (16×8, f32) += A (16×16, bf16) · B (16×8, bf16), by a warp together.
//
// Which lane holds what (PTX ISA, mma.m16n8k16): g = lane / 4, q = lane % 4; two bf16 a word, the lower column in the low half.
//     a[0] row g, columns 2q 2q+1    a[1] row g + 8    a[2] row g, columns 2q+8 2q+9    a[3] row g + 8, those columns
//     b[0] rows 2q 2q+1, column g    b[1] rows 2q+8 2q+9
//     d[0] d[1] row g, columns 2q 2q+1    d[2] d[3] row g + 8
// On the host the products are summed in f64 and rounded once; the card sums in f32, in an order of its own.
#pragma once

#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

static TANDEM_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#ifdef __CUDA_ARCH__
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif !defined(__CUDACC__)
  const uint32_t words[6] = {a[0], a[1], a[2], a[3], b[0], b[1]};
  const auto lanes = emulation::Machine::current().exchange("mma", words, 6);
  const int lane = emulation::Machine::current().lane();
  const auto halves = [](uint32_t word, double* out) {
    out[0] = bits_float(word << 16);
    out[1] = bits_float(word & 0xffff0000u);
  };
  double left[2][16], right[2][16];  // rows g and g + 8, columns 2q and 2q + 1
  for (int q = 0; q < 4; q++) {
    for (int i = 0; i < 4; i++) halves(lanes[lane / 4 * 4 + q][i], &left[i & 1][2 * q + 4 * (i & 2)]);
    for (int i = 0; i < 4; i++) halves(lanes[(lane % 4 * 2 + (i & 1)) * 4 + q][4 + i / 2], &right[i & 1][2 * q + 4 * (i & 2)]);
  }
  for (int i = 0; i < 4; i++) {
    double sum = d[i];
    for (int k = 0; k < 16; k++) sum += left[i / 2][k] * right[i & 1][k];
    d[i] = static_cast<float>(sum);
  }
#endif
}

}  // namespace tandem::cuda
