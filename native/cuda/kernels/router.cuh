// router: which experts a row goes to, and with what weights; rank-experts: the same, the heaviest first. One warp a row; grid: (1, rows),
// 32 threads.
//
// exp and sums are f64, scores, choices and group scores are rounded to f32 where src/ops/routing.ts rounds them, so that ties
// are the same ties; they go to the lowest index, and a nan counts as −∞: ids are in range and distinct whatever comes in.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

static constexpr int kMaxExperts = 1024;  // 32 a lane: one bit each in a word that says which are taken
static constexpr int kMaxGroups = 32;     // one a lane

struct Candidate {
  float value;
  int32_t index;  // −1: none
};

static TANDEM_DEVICE Candidate better(const Candidate& a, const Candidate& b) {
  if (a.index < 0) return b;
  if (b.index < 0) return a;
  if (a.value != b.value) return a.value > b.value ? a : b;
  return a.index < b.index ? a : b;
}

// The best of the lanes' candidates, in every lane.
static TANDEM_DEVICE Candidate warp_best(Candidate own) {
  for (int step = 16; step > 0; step >>= 1) {
    const Candidate other = {__shfl_xor_sync(kAllLanes, own.value, step), __shfl_xor_sync(kAllLanes, own.index, step)};
    own = better(own, other);
  }
  return own;
}

// Maximum of a group, or the sum of its two best.
static TANDEM_DEVICE float group_score(const float* choice, int size, bool top2) {
  float first = choice[0], second = -INFINITY;
  for (int i = 1; i < size; i++) {
    if (choice[i] > first) {
      second = first;
      first = choice[i];
    } else if (choice[i] > second) {
      second = choice[i];
    }
  }
  return top2 && size > 1 ? first + second : first;
}

static TANDEM_DEVICE void router_scores(const float* logits, int experts, bool sigmoid, int lane, float* scores) {
  if (sigmoid) {
    for (int e = lane; e < experts; e += 32) scores[e] = static_cast<float>(1.0 / (1.0 + exp(-static_cast<double>(logits[e]))));
    return;
  }
  float maximum = -INFINITY;
  for (int e = lane; e < experts; e += 32) maximum = logits[e] > maximum ? logits[e] : maximum;
  maximum = warp_max(maximum);
  double sum = 0;
  for (int e = lane; e < experts; e += 32) sum += exp(static_cast<double>(logits[e] - maximum));
  sum = warp_sum(sum);
  for (int e = lane; e < experts; e += 32) scores[e] = static_cast<float>(exp(static_cast<double>(logits[e] - maximum)) / sum);
}

static TANDEM_DEVICE void router(const RouterArguments& a) {
  __shared__ float scores[kMaxExperts];
  __shared__ float choice[kMaxExperts];
  const int64_t row = blockIdx.y;
  if (row >= *a.rows) return;
  const int lane = threadIdx.x, experts = a.experts;
  router_scores(a.logits + row * a.logits_stride, experts, a.sigmoid != 0, lane, scores);
  __syncwarp();
  for (int e = lane; e < experts; e += 32) {
    const float value = scores[e] + (a.bias == nullptr ? 0.0f : a.bias[e]);
    choice[e] = value == value ? value : -INFINITY;
  }
  __syncwarp();
  if (a.groups > 1 && a.group_topk < a.groups) {
    const int size = experts / a.groups;
    Candidate own = {0, -1};
    if (lane < a.groups) own = {group_score(choice + lane * size, size, a.top2 != 0), lane};
    uint32_t kept = 0;
    for (int j = 0; j < a.group_topk; j++) {
      const int best = warp_best(own).index;
      kept |= 1u << best;
      if (lane == best) own.index = -1;
    }
    for (int e = lane; e < experts; e += 32) {
      if (!(kept >> (e / size) & 1)) choice[e] = -INFINITY;
    }
    __syncwarp();
  }
  uint32_t taken = 0;  // bit j: expert lane + 32·j
  double sum = 0;
  int32_t* ids = a.ids + row * a.ids_stride;
  float* weights = a.weights + row * a.weights_stride;
  for (int k = 0; k < a.topk; k++) {
    Candidate own = {0, -1};
    for (int j = 0, e = lane; e < experts; j++, e += 32) {
      if (!(taken >> j & 1)) own = better(own, {choice[e], e});
    }
    const int best = warp_best(own).index;
    if (best % 32 == lane) taken |= 1u << (best / 32);
    sum += scores[best];
    if (lane == 0) ids[k] = best;
  }
  __syncwarp();
  const double factor = a.scale / (a.normalize ? sum + 1e-20 : 1.0);
  for (int k = lane; k < a.topk; k += 32) weights[k] = static_cast<float>(scores[ids[k]] * factor);
}

// No expert and nan come last.
static TANDEM_DEVICE float heaviness(int32_t id, float weight) { return id >= 0 && weight == weight ? weight : -INFINITY; }

// An expert's place is how many come before it; equals stay in their order.
static TANDEM_DEVICE void rank_experts(const RankExpertsArguments& a) {
  const int64_t row = blockIdx.y;
  if (row >= *a.rows) return;
  const int32_t* ids = a.ids + row * a.ids_stride;
  const float* weights = a.weights + row * a.weights_stride;
  for (int j = threadIdx.x; j < a.topk; j += 32) {
    const float own = heaviness(ids[j], weights[j]);
    int place = 0;
    for (int i = 0; i < a.topk; i++) {
      const float other = heaviness(ids[i], weights[i]);
      if (other > own || (other == own && i < j)) place++;
    }
    a.ranked[row * a.ranked_stride + place] = ids[j];
    a.shares[row * a.shares_stride + place] = weights[j];
  }
}

}  // namespace tandem::cuda
