// Ops whose elements do not meet: glu, add, gather-rows.
#pragma once

#include <cstring>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// Rows of `columns` floats that are worth waking another thread: about 16 KB.
static inline int64_t row_grain(int64_t columns) { return columns >= 4096 ? 1 : 4096 / (columns > 0 ? columns : 1); }

// Applies body(vector, vector) to two rows; the tail runs through padded lanes, so that each element has one arithmetic.
template <typename Body>
static void map_rows(const float* a, const float* b, float* out, int64_t count, Body&& body) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) vec_store(out + i, body(vec_load(a + i), vec_load(b + i)));
  if (i == count) return;
  float left[kLanes] = {}, right[kLanes] = {}, result[kLanes];
  std::memcpy(left, a + i, static_cast<size_t>(count - i) * sizeof(float));
  std::memcpy(right, b + i, static_cast<size_t>(count - i) * sizeof(float));
  vec_store(result, body(vec_load(left), vec_load(right)));
  std::memcpy(out + i, result, static_cast<size_t>(count - i) * sizeof(float));
}

// silu(gate) · up, silu(x) = x / (1 + e^-x).
static Status glu(StepContext& context) {
  const MatrixView gate = context.inputs[0], up = context.inputs[1], out = context.outputs[0];
  const auto body = [](Vec g, Vec u) {
    const Vec one = vec_set(1.0f);
    return vec_mul(vec_div(g, vec_add(one, vec_exp(vec_sub(vec_set(0.0f), g)))), u);
  };
  context.pool->parallel_for(out.rows, row_grain(out.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) map_rows(gate.row(r), up.row(r), out.row(r), out.columns, body);
  });
  return {};
}

static Status add(StepContext& context) {
  const MatrixView a = context.inputs[0], b = context.inputs[1], out = context.outputs[0];
  context.pool->parallel_for(out.rows, 4 * row_grain(out.columns), [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) map_rows(a.row(r), b.row(r), out.row(r), out.columns, vec_add);
  });
  return {};
}

static Status gather_rows(StepContext& context) {
  const MatrixView x = context.inputs[0], out = context.outputs[0];
  for (int64_t o = 0; o < out.rows; o++) {
    std::memcpy(out.row(o), x.row(context.batch->outputs[o].row), static_cast<size_t>(out.columns) * sizeof(float));
  }
  return {};
}

static void register_elementwise() {
  register_kernel({"glu", "", TANDEM_ISA}, glu);
  register_kernel({"add", "", TANDEM_ISA}, add);
  register_kernel({"gather-rows", "", TANDEM_ISA}, gather_rows);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
