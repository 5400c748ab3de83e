// rms-norm: y = x / sqrt(mean(x²) + ε) · w over groups of G adjacent columns. Squares are summed in f64: they neither
// overflow nor lose the small ones, at a price nobody sees beside the products.
#pragma once

#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// Σ x[i]². Eight partial sums in a fixed order: i mod 8, then pairwise.
static double sum_of_squares(const float* x, int64_t count) {
  double part[8] = {};
  int64_t i = 0;
#if TANDEM_ISA_LEVEL >= 2
  __m512d low = _mm512_setzero_pd();
  for (; i + 8 <= count; i += 8) {
    const __m512d v = _mm512_cvtps_pd(_mm256_loadu_ps(x + i));
    low = _mm512_fmadd_pd(v, v, low);
  }
  _mm512_storeu_pd(part, low);
#elif TANDEM_ISA_LEVEL == 1
  __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();
  for (; i + 8 <= count; i += 8) {
    const __m256d a = _mm256_cvtps_pd(_mm_loadu_ps(x + i)), b = _mm256_cvtps_pd(_mm_loadu_ps(x + i + 4));
    low = _mm256_fmadd_pd(a, a, low);
    high = _mm256_fmadd_pd(b, b, high);
  }
  _mm256_storeu_pd(part, low);
  _mm256_storeu_pd(part + 4, high);
#endif
  for (; i + 8 <= count; i += 8) {
    for (int j = 0; j < 8; j++) part[j] += static_cast<double>(x[i + j]) * x[i + j];
  }
  for (int j = 0; i + j < count; j++) part[j] += static_cast<double>(x[i + j]) * x[i + j];
  return ((part[0] + part[1]) + (part[2] + part[3])) + ((part[4] + part[5]) + (part[6] + part[7]));
}

static void normalize_group(const float* x, const float* weight, float* y, int64_t count, double epsilon) {
  const float factor = static_cast<float>(1.0 / ::sqrt(sum_of_squares(x, count) / static_cast<double>(count) + epsilon));
  const Vec scale = vec_set(factor);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) vec_store(y + i, vec_mul(vec_mul(vec_load(x + i), scale), vec_load(weight + i)));
  for (; i < count; i++) y[i] = x[i] * factor * weight[i];
}

static Status rms_norm(StepContext& context) {
  const MatrixView x = context.inputs[0], out = context.outputs[0];
  const BoundWeight& weight = *context.weights[1];
  const double epsilon = context.step->number("epsilon");
  const int64_t group = weight.columns;
  float* gains = context.scratch->take_array<float>(static_cast<size_t>(group));
  if (gains == nullptr) return Status(Code::out_of_memory, "[native] scratch memory for rms-norm; the machine refused; free memory");
  decode_row(*weight.format, weight.matrix(0), gains, group, weight.row_scales(0, 0));
  const int64_t groups = out.columns / group;
  // 8 K elements are a few microseconds: worth a thread.
  const int64_t grain = group >= 8192 ? 1 : 8192 / group;
  context.pool->parallel_for(out.rows * groups, grain, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      const int64_t start = i % groups * group;
      normalize_group(x.row(i / groups) + start, gains, out.row(i / groups) + start, group, epsilon);
    }
  });
  return {};
}

static void register_rms_norm() { register_kernel({"rms-norm", "", TANDEM_ISA}, rms_norm); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
