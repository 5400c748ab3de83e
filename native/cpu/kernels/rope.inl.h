// rope: rotates columns [offset, offset + width) of every head by position · frequency; other columns are copied.
// cos and sin are taken in f64, once per row for all heads; the rotation itself is f64 too, rounded once.
#pragma once

#include <cstring>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// (a, b) → (a·cos − b·sin, a·sin + b·cos) for `pairs` pairs; pair i is (x[i·step], x[i·step + gap]).
template <int step>
static void rotate(const float* x, float* y, int64_t pairs, int64_t gap, const double* cosines, const double* sines) {
  for (int64_t i = 0; i < pairs; i++) {
    const double a = x[i * step], b = x[i * step + gap];
    y[i * step] = static_cast<float>(a * cosines[i] - b * sines[i]);
    y[i * step + gap] = static_cast<float>(a * sines[i] + b * cosines[i]);
  }
}

static Status rope(StepContext& context) {
  const MatrixView x = context.inputs[0], out = context.outputs[0];
  const Step& step = *context.step;
  const std::vector<double>& frequencies = step.numbers("frequencies");
  const int64_t head_size = step.integer("headSize"), offset = step.integer("offset");
  const int64_t pairs = static_cast<int64_t>(frequencies.size());
  const double magnitude = step.number("magnitude", 1);
  const bool adjacent = step.text("style") == "pairs";
  const int64_t heads = out.columns / head_size;
  double* tables = context.scratch->take_array<double>(static_cast<size_t>(context.pool->threads() * 2 * pairs));
  if (tables == nullptr) return Status(Code::out_of_memory, "[native] scratch memory for rope; the machine refused; free memory");
  const int64_t grain = out.columns >= 4096 ? 1 : 4096 / out.columns;
  context.pool->parallel_for(out.rows, grain, [&](int64_t begin, int64_t end, int thread) {
    double* cosines = tables + thread * 2 * pairs;
    double* sines = cosines + pairs;
    for (int64_t r = begin; r < end; r++) {
      const double position = context.batch->positions[r];
      for (int64_t i = 0; i < pairs; i++) {
        cosines[i] = ::cos(position * frequencies[i]) * magnitude;
        sines[i] = ::sin(position * frequencies[i]) * magnitude;
      }
      if (2 * pairs < head_size) std::memcpy(out.row(r), x.row(r), static_cast<size_t>(out.columns) * sizeof(float));
      for (int64_t h = 0; h < heads; h++) {
        const float* from = x.row(r) + h * head_size + offset;
        float* to = out.row(r) + h * head_size + offset;
        if (adjacent) rotate<2>(from, to, pairs, 1, cosines, sines);
        else rotate<1>(from, to, pairs, pairs, cosines, sines);
      }
    }
  });
  return {};
}

static void register_rope() { register_kernel({"rope", "", TANDEM_ISA}, rope); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
