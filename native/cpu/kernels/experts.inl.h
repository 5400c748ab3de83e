// experts: y[t] = Σⱼ w[t,j] · down_e(gated(gate_e x[t], up_e x[t])), e = ids[t,j], summed in the order of j; each product
// plus its bias where there is one.
//
// Rows are grouped by expert, so that a pass reads each active expert once. Two phases with one barrier between:
//   1. units of (expert, kUnit rows of gate and up): h of all the expert's rows; whoever finishes the last unit of a
//      block of `middle` rounds that block;
//   2. units of kUnit output rows over all experts: each output has one owner, so nothing is merged.
// x is rounded once per token, h once per (token, expert). Experts with many rows go by a tile engine in the same phases, in
// larger units (experts_tiles.inl.h).
#pragma once

#include <atomic>
#include <new>

#include "cpu/kernels/dot.inl.h"
#include "cpu/kernels/expert_gated.inl.h"
#include "cpu/kernels/expert_groups.inl.h"
#include "cpu/kernels/experts_tiles.inl.h"
#include "cpu/node_units.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL < 3
// Rows of a weight in a unit of work: 32, a block of q8_32.
constexpr int64_t kUnit = 32;

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
  const auto bias_of = [&](size_t operand) { return ExpertBias(operand < context.weights.size() ? context.weights[operand] : nullptr); };
  const ExpertBias gate_bias = bias_of(6), up_bias = bias_of(7), down_bias = bias_of(8);
  const Gated gated(*context.step);
  ExpertTiles tiles{gated, gate_bias, up_bias, down_bias};
  TANDEM_TRY(tiles.prepare(context, plan));
  // What the others need; nothing where all are on tiles.
  const int64_t pairs = tiles.others() > 0 ? plan.pairs : 0;
  Activations input, intermediate;
  TANDEM_TRY(input.reserve(scratch, context.step->activation, pairs > 0 ? tokens : 0, x.columns, &x));
  TANDEM_TRY(intermediate.reserve(scratch, middle, pairs, ffn, nullptr));

  const int64_t threads = pool.threads();
  const int64_t block = activation_block(middle) > kUnit ? activation_block(middle) : kUnit;
  const int64_t blocks = (ffn + block - 1) / block;             // of `middle` in a row
  const int64_t down_unit = tiles.count() > 0 ? tiles.down_unit : kUnit;
  const int64_t lane = plan.pairs * (2 * kUnit > down_unit ? 2 * kUnit : down_unit);  // floats a thread needs at most
  float* h = middle == Activation::f32 ? intermediate.values : scratch.take_array<float>(static_cast<size_t>(pairs * ffn));
  const int64_t h_stride = middle == Activation::f32 ? intermediate.stride : ffn;
  float* lanes = scratch.take_array<float>(static_cast<size_t>(threads * lane));
  using Counter = std::atomic<int32_t>;
  Counter* done = scratch.take_array<Counter>(static_cast<size_t>(plan.count * blocks));
  ActivationRow* rows = scratch.take_array<ActivationRow>(static_cast<size_t>(pairs));
  ActivationRow* middle_rows = scratch.take_array<ActivationRow>(static_cast<size_t>(pairs));
  if (!h || !lanes || !done || !rows || !middle_rows) return refuse_scratch();
  for (int64_t i = 0; i < plan.count * blocks; i++) new (&done[i]) Counter(0);
  for (int64_t p = 0; p < pairs; p++) {
    rows[p] = input.row(plan.token_of[p]);
    middle_rows[p] = intermediate.row(p);
  }
  tiles.pack(pool, plan, x);
  if (pairs > 0 && input.owns(x)) {
    pool.parallel_for(tokens, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; t++) input.round_span(t, 0, x.columns, x.row(t));
    });
  }

  const Dot gate_dot(&gate, context.step->activation), up_dot(&up, context.step->activation), down_dot(&down, middle);

  // Rows [begin, end) of gate and up for all the pairs of group g; `next` of gate come after them.
  const auto gate_up = [&](int64_t g, int64_t begin, int64_t end, const uint8_t* next, int thread) {
    const ExpertGroups::Group group = plan.groups[g];
    const int64_t count = plan.rows(g);
    float *gates = lanes + thread * lane, *ups = gates + plan.pairs * kUnit;
    gate_dot.rows(group.expert, begin, end, rows + group.begin, count, gates, kUnit, up.row(group.expert, begin));
    up_dot.rows(group.expert, begin, end, rows + group.begin, count, ups, kUnit, next);
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
    float* products = lanes + thread * lane;
    for (int64_t g = 0; g < plan.count; g++) {
      const int64_t first = plan.groups[g].begin, count = plan.rows(g);
      if (tiles.has(g)) {
        tiles.down(plan, g, begin, end, products + first * down_unit, thread);
        continue;
      }
      // The same rows of the next expert; behind the last one, the next rows of the first.
      const bool last = g + 1 == plan.count;
      const uint8_t* next = last && end == down.rows ? nullptr : down.row(plan.groups[last ? 0 : g + 1].expert, last ? end : begin);
      down_dot.rows(plan.groups[g].expert, begin, end, middle_rows + first, count, products + first * down_unit, down_unit, next);
      down_bias.add(plan.groups[g].expert, begin, end, products + first * down_unit, count, down_unit);
    }
    for (int64_t t = 0; t < tokens; t++) {
      const auto add_up = [&](int64_t from, const auto& one, const auto& zero) {
        auto y = zero;
        for (int64_t j = 0; j < k; j++) {
          const int32_t p = plan.pair_of[t * k + j];
          if (p >= 0) y = one(y, weights.row(t)[j], products + p * down_unit + from);
        }
        return y;
      };
      int64_t n = 0;
      for (; n + kLanes <= end - begin; n += kLanes) {
        vec_store(out.row(t) + begin + n, add_up(n, [](Vec y, float weight, const float* product) { return vec_add(y, vec_mul(vec_set(weight), vec_load(product))); }, vec_set(0.0f)));
      }
      for (; n < end - begin; n++) {
        out.row(t)[begin + n] = add_up(n, [](float y, float weight, const float* product) { return y + weight * *product; }, 0.0f);
      }
    }
  };

  const BoundWeight& split = gate.node_rows != nullptr ? gate : up;
  const NodeUnits tile_units(split, tiles.gate_unit, tiles.count()), gate_units(split, kUnit, tiles.others()), down_units(down, down_unit, 1);
  const int64_t items = gate_units.count();
  WorkRange &first = pool.range(0), &second = pool.range(1), &third = pool.range(2);
  tile_units.reset(first);
  gate_units.reset(second);
  down_units.reset(third);
  pool.run([&](int thread) {
    int64_t item, after;
    while (first.next(thread, item, after)) {
      const NodeUnits::Unit unit = tile_units.at(item);
      tiles.gate_up(plan, tiles.group(unit.group), unit.begin, unit.end, thread);
    }
    while (second.next(thread, item, after)) {
      const NodeUnits::Unit unit = gate_units.at(item);
      const NodeUnits::Unit behind = gate_units.at(after < items ? after : item);
      gate_up(tiles.other(unit.group), unit.begin, unit.end, gate.row(plan.groups[tiles.other(behind.group)].expert, behind.begin), thread);
    }
    pool.barrier();
    while (third.next(thread, item, after)) {
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
