// experts: y[t] = Σⱼ w[t,j] · down_e(gated(gate_e x[t], up_e x[t])), e = ids[t,j], summed in the order of j; each product
// plus its bias where there is one.
//
// Rows are grouped by expert, so that a pass reads each active expert once. Two phases with one barrier between:
//   1. units of (expert, kUnit rows of gate and up): h of all the expert's rows; whoever finishes the last unit of a
//      block of `middle` rounds that block;
//   2. units of kUnit output rows over all experts: each output has one owner, so nothing is merged.
// x is rounded once per token, h once per (token, expert).
#pragma once

#include <atomic>
#include <new>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/dot.inl.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/node_units.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL < 3
// Rows of a weight in a unit of work: 32, a block of q8_32.
constexpr int64_t kUnit = 32;

// The (token, slot) pairs of a pass, sorted by expert, then token, then slot. Pair p belongs to group g where
// groups[g].begin <= p < groups[g + 1].begin.
struct ExpertGroups {
  struct Group {
    int64_t expert, begin;
  };
  int64_t pairs = 0, count = 0;
  Group* groups = nullptr;      // [count + 1], the last one closes the list
  int32_t* token_of = nullptr;  // [pairs]
  int32_t* pair_of = nullptr;   // [T, k], -1 where skipped
};

static inline Status refuse_scratch() {
  return {Code::out_of_memory, "[native] experts needs scratch memory; the machine gave none; use a smaller batch or fewer pages"};
}

static Status group_by_expert(StepContext& context, int64_t experts, ExpertGroups& out) {
  const MatrixView ids = context.inputs[1];
  const int64_t tokens = ids.rows, k = ids.columns;
  const auto is_dead = [&](int64_t t) {
    return context.dead && context.batch && context.dead[context.batch->sequence_of_row[static_cast<size_t>(t)]];
  };
  int64_t* begin = context.scratch->take_array<int64_t>(static_cast<size_t>(experts + 1));
  out.pair_of = context.scratch->take_array<int32_t>(static_cast<size_t>(tokens * k));
  if (!begin || !out.pair_of) return refuse_scratch();
  for (int64_t e = 0; e <= experts; e++) begin[e] = 0;
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < k; j++) {
      const int32_t e = is_dead(t) ? -1 : ids.ints(t)[j];
      if (e >= experts) {
        return {Code::request_invalid, "[native] expert ids are below the number of experts; row " + std::to_string(t) + " names " +
                                           std::to_string(e) + " of " + std::to_string(experts) + "; check the router's output"};
      }
      out.pair_of[t * k + j] = e < 0 ? -1 : e;
      if (e >= 0) begin[e + 1]++;
    }
  }
  for (int64_t e = 0; e < experts; e++) {
    out.count += begin[e + 1] > 0;
    begin[e + 1] += begin[e];
  }
  out.pairs = begin[experts];
  out.groups = context.scratch->take_array<ExpertGroups::Group>(static_cast<size_t>(out.count + 1));
  out.token_of = context.scratch->take_array<int32_t>(static_cast<size_t>(out.pairs));
  if (!out.groups || !out.token_of) return refuse_scratch();
  int64_t g = 0;
  for (int64_t e = 0; e < experts; e++) {
    if (begin[e + 1] > begin[e]) out.groups[g++] = {e, begin[e]};
  }
  out.groups[g] = {experts, out.pairs};
  // `begin` now counts up to the end of each expert's pairs.
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < k; j++) {
      int32_t& pair = out.pair_of[t * k + j];
      if (pair < 0) continue;
      const int64_t p = begin[pair]++;
      out.token_of[p] = static_cast<int32_t>(t);
      pair = static_cast<int32_t>(p);
    }
  }
  return {};
}

// The biases [E, N, 1] of a product, or none.
struct ExpertBias {
  const BoundWeight* weight;  // f32, f16 or bf16
  WeightFormat format;

  explicit ExpertBias(const BoundWeight* bound) : weight(bound), format(bound ? weight_format(*bound->format) : WeightFormat::f32) {}

  // Adds those of rows [begin, end) to each of `count` rows of `products`.
  void add(int64_t expert, int64_t begin, int64_t end, float* products, int64_t count, int64_t stride) const {
    if (weight == nullptr) return;
    const uint8_t* from = weight->matrix(expert) + begin * weight->row_bytes;
    for (int64_t n = 0; n < end - begin; n++, from += weight->row_bytes) {
      const float bias = format == WeightFormat::f32    ? quant::bits_float(quant::load_u32(from))
                         : format == WeightFormat::bf16 ? quant::bf16_to_f32(quant::load_u16(from))
                                                        : quant::f16_to_f32(quant::load_u16(from));
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
  for (int64_t i = 0; i < count; i += kLanes) {
    float g[kLanes] = {}, u[kLanes] = {};
    const size_t bytes = static_cast<size_t>(count - i < kLanes ? count - i : kLanes) * sizeof(float);
    memcpy(g, gate + i, bytes);
    memcpy(u, up + i, bytes);
    vec_store(g, gated(vec_load(g), vec_load(u)));
    memcpy(h + i, g, bytes);
  }
}

static Status experts(StepContext& context) {
  const MatrixView x = context.inputs[0], weights = context.inputs[2], out = context.outputs[0];
  const BoundWeight &gate = *context.weights[3], &up = *context.weights[4], &down = *context.weights[5];
  const int64_t tokens = x.rows, k = weights.columns, ffn = gate.rows;
  const Activation middle = context.step->middle;
  if (tokens == 0) return {};
  Scratch& scratch = *context.scratch;
  ThreadPool& pool = *context.pool;

  ExpertGroups plan;
  TANDEM_TRY(group_by_expert(context, gate.experts, plan));
  Activations input, intermediate;
  TANDEM_TRY(input.reserve(scratch, context.step->activation, tokens, x.columns, &x));
  TANDEM_TRY(intermediate.reserve(scratch, middle, plan.pairs, ffn, nullptr));

  const int64_t threads = pool.threads();
  const int64_t block = activation_block(middle) > kUnit ? activation_block(middle) : kUnit;
  const int64_t blocks = (ffn + block - 1) / block;             // of `middle` in a row
  const int64_t lane = plan.pairs * kUnit;                      // floats a thread needs at most
  float* h = middle == Activation::f32 ? intermediate.values : scratch.take_array<float>(static_cast<size_t>(plan.pairs * ffn));
  const int64_t h_stride = middle == Activation::f32 ? intermediate.stride : ffn;
  float* lanes = scratch.take_array<float>(static_cast<size_t>(2 * threads * lane));
  using Counter = std::atomic<int32_t>;
  Counter* done = scratch.take_array<Counter>(static_cast<size_t>(plan.count * blocks));
  ActivationRow* rows = scratch.take_array<ActivationRow>(static_cast<size_t>(plan.pairs));
  ActivationRow* middle_rows = scratch.take_array<ActivationRow>(static_cast<size_t>(plan.pairs));
  if (!h || !lanes || !done || !rows || !middle_rows) return refuse_scratch();
  for (int64_t i = 0; i < plan.count * blocks; i++) new (&done[i]) Counter(0);
  for (int64_t p = 0; p < plan.pairs; p++) {
    rows[p] = input.row(plan.token_of[p]);
    middle_rows[p] = intermediate.row(p);
  }
  if (input.owns(x)) {
    pool.parallel_for(tokens, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; t++) input.round_span(t, 0, x.columns, x.row(t));
    });
  }

  const Dot gate_dot(&gate, context.step->activation), up_dot(&up, context.step->activation), down_dot(&down, middle);

  const auto bias_of = [&](size_t operand) { return ExpertBias(operand < context.weights.size() ? context.weights[operand] : nullptr); };
  const ExpertBias gate_bias = bias_of(6), up_bias = bias_of(7), down_bias = bias_of(8);
  const Gated gated(*context.step);

  // Rows [begin, end) of gate and up for all the pairs of group g.
  const auto gate_up = [&](int64_t g, int64_t begin, int64_t end, int thread) {
    const ExpertGroups::Group group = plan.groups[g];
    const int64_t count = plan.groups[g + 1].begin - group.begin;
    float *gates = lanes + 2 * thread * lane, *ups = gates + lane;
    gate_dot.rows(group.expert, begin, end, rows + group.begin, count, gates, kUnit);
    up_dot.rows(group.expert, begin, end, rows + group.begin, count, ups, kUnit);
    gate_bias.add(group.expert, begin, end, gates, count, kUnit);
    up_bias.add(group.expert, begin, end, ups, count, kUnit);
    for (int64_t i = 0; i < count; i++) {
      fuse_gated(gated, gates + i * kUnit, ups + i * kUnit, h + (group.begin + i) * h_stride + begin, end - begin);
    }
    if (middle == Activation::f32) return;
    const int64_t b = begin / block, first = b * block, last = first + block < ffn ? first + block : ffn;
    const int32_t parts = static_cast<int32_t>((last - first + kUnit - 1) / kUnit);
    if (done[g * blocks + b].fetch_add(1, std::memory_order_acq_rel) + 1 != parts) return;
    for (int64_t p = group.begin; p < group.begin + count; p++) {
      intermediate.round_span(p, first, last - first, h + p * h_stride + first);
    }
  };

  // Output rows [begin, end) of all tokens.
  const auto down_all = [&](int64_t begin, int64_t end, int thread) {
    float* products = lanes + 2 * thread * lane;
    for (int64_t g = 0; g < plan.count; g++) {
      const int64_t first = plan.groups[g].begin, count = plan.groups[g + 1].begin - first;
      down_dot.rows(plan.groups[g].expert, begin, end, middle_rows + first, count, products + first * kUnit, kUnit);
      down_bias.add(plan.groups[g].expert, begin, end, products + first * kUnit, count, kUnit);
    }
    for (int64_t t = 0; t < tokens; t++) {
      float* y = out.row(t);
      for (int64_t n = begin; n < end; n++) y[n] = 0.0f;
      for (int64_t j = 0; j < k; j++) {
        const int32_t p = plan.pair_of[t * k + j];
        if (p < 0) continue;
        const float weight = weights.row(t)[j];
        for (int64_t n = begin; n < end; n++) y[n] += weight * products[p * kUnit + n - begin];
      }
    }
  };

  const NodeUnits gate_units(gate.node_rows != nullptr ? gate : up, kUnit, plan.count), down_units(down, kUnit, 1);
  WorkRange &first = pool.range(0), &second = pool.range(1);
  gate_units.reset(first);
  down_units.reset(second);
  pool.run([&](int thread) {
    int64_t item, after;
    while (first.next(thread, item, after)) {
      const NodeUnits::Unit unit = gate_units.at(item);
      gate_up(unit.group, unit.begin, unit.end, thread);
    }
    pool.barrier();
    while (second.next(thread, item, after)) {
      const NodeUnits::Unit unit = down_units.at(item);
      down_all(unit.begin, unit.end, thread);
    }
  });
  return {};
}

static void register_experts() { register_kernel({"experts", "", TANDEM_ISA}, experts); }

#else

// Machines with AMX run the avx512 build.
static void register_experts() {}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
