// router: which experts a token goes to, and with what weights; rank-experts orders them by those. exp and sums are f64; scores, choices and group scores are
// rounded to f32 where src/ops/routing.ts rounds them, so that ties are the same ties. A nan counts as -inf: ids stay in
// range and distinct whatever the logits are.
#pragma once

#include <math.h>

#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

struct RouterShape {
  int64_t experts, topk, groups, group_topk;
  bool sigmoid, top2, normalize;
  double scale;
};

// Memory of one thread.
struct RouterScratch {
  double* exponentials;
  float *scores, *choice, *group_scores;
  uint8_t* taken;  // experts, then groups, that have been chosen
};

static void router_scores(const float* logits, int64_t experts, bool sigmoid, double* exponentials, float* scores) {
  if (sigmoid) {
    for (int64_t e = 0; e < experts; e++) scores[e] = static_cast<float>(1.0 / (1.0 + ::exp(-static_cast<double>(logits[e]))));
    return;
  }
  double maximum = -INFINITY, sum = 0;
  for (int64_t e = 0; e < experts; e++) maximum = logits[e] > maximum ? logits[e] : maximum;
  for (int64_t e = 0; e < experts; e++) sum += exponentials[e] = ::exp(logits[e] - maximum);
  for (int64_t e = 0; e < experts; e++) scores[e] = static_cast<float>(exponentials[e] / sum);
}

// Takes the free place with the largest value, the lowest of equals; at least one place is free.
static int64_t take_best(const float* values, uint8_t* taken, int64_t count) {
  int64_t best = -1;
  for (int64_t i = 0; i < count; i++) {
    if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
  }
  taken[best] = 1;
  return best;
}

static float group_score(const float* choice, int64_t size, bool top2) {
  int64_t first = 0, second = -1;
  for (int64_t i = 1; i < size; i++) {
    if (choice[i] > choice[first]) {
      second = first;
      first = i;
    } else if (second < 0 || choice[i] > choice[second]) {
      second = i;
    }
  }
  return top2 && size > 1 ? choice[first] + choice[second] : choice[first];
}

static void route_row(const float* logits, const float* bias, const RouterShape& shape, const RouterScratch& scratch, int32_t* ids, float* weights) {
  const int64_t experts = shape.experts;
  router_scores(logits, experts, shape.sigmoid, scratch.exponentials, scratch.scores);
  for (int64_t e = 0; e < experts; e++) {
    const float choice = scratch.scores[e] + (bias != nullptr ? bias[e] : 0.0f);
    scratch.choice[e] = choice == choice ? choice : -INFINITY;
    scratch.taken[e] = 0;
  }
  if (shape.groups > 1 && shape.group_topk < shape.groups) {
    const int64_t size = experts / shape.groups;
    uint8_t* kept = scratch.taken + experts;
    for (int64_t g = 0; g < shape.groups; g++) {
      scratch.group_scores[g] = group_score(scratch.choice + g * size, size, shape.top2);
      kept[g] = 0;
    }
    for (int64_t j = 0; j < shape.group_topk; j++) take_best(scratch.group_scores, kept, shape.groups);
    for (int64_t e = 0; e < experts; e++) {
      if (!kept[e / size]) scratch.choice[e] = -INFINITY;
    }
  }
  double sum = 0;
  for (int64_t j = 0; j < shape.topk; j++) {
    ids[j] = static_cast<int32_t>(take_best(scratch.choice, scratch.taken, experts));
    sum += scratch.scores[ids[j]];
  }
  const double factor = shape.scale / (shape.normalize ? sum + 1e-20 : 1.0);
  for (int64_t j = 0; j < shape.topk; j++) weights[j] = static_cast<float>(scratch.scores[ids[j]] * factor);
}

static Status router(StepContext& context) {
  const Step& step = *context.step;
  const MatrixView logits = context.inputs[0], ids = context.outputs[0], weights = context.outputs[1];
  RouterShape shape;
  shape.experts = logits.columns;
  shape.topk = step.integer("topk");
  shape.groups = step.integer("groups", 1);
  shape.group_topk = step.integer("groupTopk", 1);
  shape.sigmoid = step.text("score") == "sigmoid";
  shape.top2 = step.text("groupScore") == "top2";
  shape.normalize = step.flag("normalize");
  shape.scale = step.number("scale", 1);
  const int64_t threads = context.pool->threads(), experts = shape.experts;
  const int64_t floats = 2 * experts + shape.groups, bytes = experts + shape.groups;
  double* exponentials = context.scratch->take_array<double>(static_cast<size_t>(threads * experts));
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * floats));
  uint8_t* taken = context.scratch->take_array<uint8_t>(static_cast<size_t>(threads * bytes));
  float* bias = nullptr;
  const BoundWeight* correction = context.weights[1];
  if (correction != nullptr) {
    bias = context.scratch->take_array<float>(static_cast<size_t>(experts));
    if (bias != nullptr) decode_row(*correction->format, correction->matrix(0), bias, experts, correction->row_scales(0, 0));
  }
  if (exponentials == nullptr || memory == nullptr || taken == nullptr || (correction != nullptr && bias == nullptr))
    return Status(Code::out_of_memory, "[native] scratch memory for router; the machine refused; free memory");
  context.pool->parallel_for(logits.rows, 8, [&](int64_t begin, int64_t end, int thread) {
    float* base = memory + thread * floats;
    const RouterScratch scratch = {exponentials + thread * experts, base, base + experts, base + 2 * experts, taken + thread * bytes};
    for (int64_t r = begin; r < end; r++) route_row(logits.row(r), bias, shape, scratch, ids.ints(r), weights.row(r));
  });
  return {};
}

// rank-experts: what a router chose, the heaviest first; equals stay in their order, no expert and nan come last.
static Status rank_experts(StepContext& context) {
  const MatrixView ids = context.inputs[0], weights = context.inputs[1], ranked = context.outputs[0], shares = context.outputs[1];
  for (int64_t t = 0; t < ids.rows; t++) {
    const int32_t* id = ids.ints(t);
    const float* weight = weights.row(t);
    const auto heaviness = [&](int64_t j) { return id[j] >= 0 && weight[j] == weight[j] ? weight[j] : -INFINITY; };
    // An expert's place is how many come before it: k is small, and nothing needs to be stored.
    for (int64_t j = 0; j < ids.columns; j++) {
      int64_t place = 0;
      for (int64_t i = 0; i < ids.columns; i++) place += heaviness(i) > heaviness(j) || (i < j && heaviness(i) == heaviness(j));
      ranked.ints(t)[place] = id[j];
      shares.row(t)[place] = weight[j];
    }
  }
  return {};
}

static void register_router() {
  register_kernel({"router", "", TANDEM_ISA}, router);
  register_kernel({"rank-experts", "", TANDEM_ISA}, rank_experts);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
