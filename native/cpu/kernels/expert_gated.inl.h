// What happens to the products of experts: biases, and the gated activation.
#pragma once

#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/vec.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// The biases [E, N, 1] of a product, or none.
struct ExpertBias {
  const BoundWeight* weight;  // f32, f16 or bf16
  WeightFormat format;

  explicit ExpertBias(const BoundWeight* bound) : weight(bound), format(bound ? weight_format(*bound->format) : WeightFormat::f32) {}

  // That of a row; there is one.
  float at(int64_t expert, int64_t row) const {
    const uint8_t* from = weight->matrix(expert) + row * weight->row_bytes;
    return format == WeightFormat::f32    ? quant::bits_float(quant::load_u32(from))
           : format == WeightFormat::bf16 ? quant::bf16_to_f32(quant::load_u16(from))
                                          : quant::f16_to_f32(quant::load_u16(from));
  }

  // Adds those of rows [begin, end) to each of `count` rows of `products`.
  void add(int64_t expert, int64_t begin, int64_t end, float* products, int64_t count, int64_t stride) const {
    if (weight == nullptr) return;
    for (int64_t n = 0; n < end - begin; n++) {
      const float bias = at(expert, begin + n);
      for (int64_t i = 0; i < count; i++) products[i * stride + n] += bias;
    }
  }
};

// How gate and up become h. silu: silu(gate) · up, silu(x) = x / (1 + e^-x), the arithmetic of `glu`. `swiglu-clamped`: of
// g = min(gate, limit) and u = clamp(up, ±limit), g / (1 + e^(-alpha g)) · (u + 1). NaN passes: vec_min and vec_max give
// their second operand then.
struct Gated {
  bool clamped;
  float alpha, limit;

  explicit Gated(const Step& step)
      : clamped(step.text("activation") == "swiglu-clamped"), alpha(static_cast<float>(step.number("alpha", 1.702))), limit(static_cast<float>(step.number("limit", 7))) {}

  Vec operator()(Vec gate, Vec up) const {
    if (clamped) {
      gate = vec_min(vec_set(limit), gate);
      up = vec_add(vec_max(vec_set(-limit), vec_min(vec_set(limit), up)), vec_set(1.0f));
    }
    const Vec steep = clamped ? vec_mul(vec_set(alpha), gate) : gate;
    return vec_mul(vec_div(gate, vec_add(vec_set(1.0f), vec_exp(vec_sub(vec_set(0.0f), steep)))), up);
  }
};

// h = gated(gate, up) over [count] numbers.
static inline void fuse_gated(const Gated& gated, const float* gate, const float* up, float* h, int64_t count) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) vec_store(h + i, gated(vec_load(gate + i), vec_load(up + i)));
  if (i < count) {
    float g[kLanes] = {}, u[kLanes] = {};
    const size_t bytes = static_cast<size_t>(count - i) * sizeof(float);
    memcpy(g, gate + i, bytes);
    memcpy(u, up + i, bytes);
    vec_store(g, gated(vec_load(g), vec_load(u)));
    memcpy(h + i, g, bytes);
  }
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
