// sample: one token a row with all its parameters, as src/ops/sampling.ts says. One block a row; grid: (1, output rows), 256 threads.
//
// Nothing is sorted. Candidates are ranked by logit, equals by id, and every question of sampling (top-k, top-p, the draw) is: at which
// candidate does a running sum over the ranking, of candidates or of probability, reach a target? It is found in three looks at the
// row, each fixing some more bits of the logit, by histograms in shared memory.
//
// Probabilities are e^((logit − best) / temperature) in f64, then whole numbers of 2^-shift: sums of them depend on no order. A draw
// that falls within vocabulary · 2^-shift of the border between two tokens (2^-27 of the best one's probability at 2^18 tokens) may go to the neighbour
// of the one that sums of f64 give; all others are the same.
#pragma once

#include "cpu/uniform.h"
#include "cuda/kernels/arguments.h"
#include "cuda/kernels/router.cuh"

namespace tandem::cuda {

using Mass = unsigned long long;

static constexpr int kSampleBins = 1 << 11;

// Bits of a rank that look d fixes, the most significant first.
static TANDEM_DEVICE int digit_bits(int d) { return d < 2 ? 11 : 10; }

struct SampleMemory {
  Mass mass[kSampleBins];
  uint32_t count[kSampleBins];
  Mass sums[8];
  uint32_t starts[256];
  float values[8];
  int32_t indices[8];
  // Where the last sum reached its target: bin, and what lies before it.
  int32_t bin;
  uint32_t before_count;
  Mass before_mass;
};

// Order of candidates: the better logit has the lower rank. −0 ranks as 0; what is no candidate has none.
static TANDEM_DEVICE uint32_t rank_of(float logit) {
  const uint32_t bits = float_bits(logit == 0 ? 0.0f : logit);
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
static TANDEM_DEVICE float logit_of(uint32_t rank) { return bits_float(rank >> 31 ? rank : ~rank & 0x7fffffffu); }
static TANDEM_DEVICE bool is_candidate(float logit) { return logit > -INFINITY; }

struct Sampler {
  const float* logits;
  int64_t vocabulary;
  float best;
  double temperature;
  int shift;

  TANDEM_DEVICE double probability(float logit) const {
    return logit == best ? 1.0 : exp((static_cast<double>(logit) - static_cast<double>(best)) / temperature);
  }
  TANDEM_DEVICE Mass mass_of(float logit) const {
    if (logit == best) return Mass(1) << shift;
    const double x = (static_cast<double>(logit) - static_cast<double>(best)) / temperature;
    return x < -44.0 ? 0 : static_cast<Mass>(exp(x) * static_cast<double>(Mass(1) << shift) + 0.5);  // e^-44 is under half of 2^-62
  }
};

// The beginning of a ranking: all candidates of a lower rank, and the first `ties` of this one.
struct Kept {
  uint32_t rank = 0xffffffffu, ties = 0;
  uint32_t count = 0;
  Mass mass = 0;
};

// Sums over candidates of `within` whose rank begins with `prefix`, by the digit that follows.
static TANDEM_DEVICE void fill_bins(const Sampler& s, const Kept& within, uint32_t prefix, int known, int digit, bool weigh, SampleMemory& memory) {
  const int after = 32 - known - digit;
  const uint32_t mask = (1u << digit) - 1;
  for (int i = threadIdx.x; i < kSampleBins; i += blockDim.x) memory.mass[i] = 0, memory.count[i] = 0;
  __syncthreads();
  const auto matches = [&](uint32_t rank) { return known == 0 || rank >> (32 - known) == prefix; };
  for (int64_t t = threadIdx.x; t < s.vocabulary; t += blockDim.x) {
    const float logit = s.logits[t];
    const uint32_t rank = rank_of(logit);
    if (!is_candidate(logit) || rank >= within.rank || !matches(rank)) continue;
    const uint32_t bin = rank >> after & mask;
    atomicAdd(&memory.count[bin], 1u);
    if (weigh) atomicAdd(&memory.mass[bin], s.mass_of(logit));
  }
  if (threadIdx.x == 0 && within.ties > 0 && matches(within.rank)) {
    const uint32_t bin = within.rank >> after & mask;
    atomicAdd(&memory.count[bin], within.ties);
    if (weigh) atomicAdd(&memory.mass[bin], within.ties * s.mass_of(logit_of(within.rank)));
  }
  __syncthreads();
}

// The first bin at which the sum, of masses or of candidates, reaches `target`; the last one that holds any if none does. By the first warp.
static TANDEM_DEVICE void find_bin(Mass target, bool weigh, Mass before_mass, uint32_t before_count, SampleMemory& memory) {
  constexpr int kEach = kSampleBins / 32;
  if (threadIdx.x < 32) {
    const int lane = threadIdx.x;
    Mass mass = 0;
    uint32_t count = 0;
    for (int i = 0; i < kEach; i++) {
      const int bin = lane * kEach + ((i + lane) & (kEach - 1));  // no two lanes in the same bank
      mass += memory.mass[bin];
      count += memory.count[bin];
    }
    // What lies before this lane's bins.
    Mass mass_to = mass;
    uint32_t count_to = count;
    for (int step = 1; step < 32; step <<= 1) {
      const Mass other_mass = __shfl_sync(kAllLanes, mass_to, lane - step < 0 ? lane : lane - step);
      const uint32_t other_count = __shfl_sync(kAllLanes, count_to, lane - step < 0 ? lane : lane - step);
      if (lane >= step) mass_to += other_mass, count_to += other_count;
    }
    mass_to += before_mass;
    count_to += before_count;
    int first = count > 0 && (weigh ? mass_to : Mass(count_to)) >= target ? lane : 32, last = count > 0 ? lane : -1;
    for (int step = 16; step > 0; step >>= 1) {
      const int other_first = __shfl_xor_sync(kAllLanes, first, step), other_last = __shfl_xor_sync(kAllLanes, last, step);
      first = other_first < first ? other_first : first;
      last = other_last > last ? other_last : last;
    }
    if (lane == (first < 32 ? first : last)) {
      Mass own_mass = mass_to - mass;
      uint32_t own_count = count_to - count;
      for (int i = 0; i < kEach; i++) {
        const int bin = lane * kEach + i;
        if (memory.count[bin] == 0) continue;
        memory.bin = bin;
        memory.before_mass = own_mass;
        memory.before_count = own_count;
        own_mass += memory.mass[bin];
        own_count += memory.count[bin];
        if ((weigh ? own_mass : Mass(own_count)) >= target) break;
      }
    }
  }
  __syncthreads();
}

// The shortest beginning of `within` that has a sum of `target` ≥ 1, of masses or of candidates; `within` has a candidate.
static TANDEM_DEVICE Kept shortest(const Sampler& s, const Kept& within, Mass target, bool weigh, SampleMemory& memory) {
  Kept found;
  uint32_t prefix = 0, before_count = 0;
  Mass before_mass = 0;
  int known = 0;
  TANDEM_UNROLL
  for (int d = 0; d < 3; d++) {
    fill_bins(s, within, prefix, known, digit_bits(d), weigh, memory);
    find_bin(target, weigh, before_mass, before_count, memory);
    prefix = prefix << digit_bits(d) | static_cast<uint32_t>(memory.bin);
    known += digit_bits(d);
    before_mass = memory.before_mass;
    before_count = memory.before_count;
  }
  // All that are left have the same logit.
  const uint32_t equals = memory.count[memory.bin];
  const Mass each = weigh ? memory.mass[memory.bin] / equals : 1, missing = target - (weigh ? before_mass : before_count);
  const Mass ties = each == 0 ? equals : (missing + each - 1) / each;
  found.rank = prefix;
  found.ties = ties < equals ? static_cast<uint32_t>(ties) : equals;
  found.count = before_count + found.ties;
  found.mass = before_mass + (weigh ? found.ties * each : 0);
  __syncthreads();
  return found;
}

// Sum of the masses of all of `within` that have at least this probability.
static TANDEM_DEVICE Mass mass_from(const Sampler& s, const Kept& within, double floor, SampleMemory& memory) {
  Mass sum = 0;
  for (int64_t t = threadIdx.x; t < s.vocabulary; t += blockDim.x) {
    const float logit = s.logits[t];
    if (!is_candidate(logit) || rank_of(logit) >= within.rank) continue;
    if (floor <= 0 || s.probability(logit) >= floor) sum += s.mass_of(logit);
  }
  sum = block_sum(sum, memory.sums);
  if (within.ties > 0) {
    const float logit = logit_of(within.rank);
    if (floor <= 0 || s.probability(logit) >= floor) sum += within.ties * s.mass_of(logit);
  }
  return sum;
}

// The id of the `place`-th (from 0) of the tokens that have this rank.
static TANDEM_DEVICE void token_at(const Sampler& s, uint32_t rank, uint32_t place, int32_t* token, SampleMemory& memory) {
  const int64_t each = (s.vocabulary + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * each;
  const int64_t end = begin + each < s.vocabulary ? begin + each : s.vocabulary;
  const auto is = [&](int64_t t) { return is_candidate(s.logits[t]) && rank_of(s.logits[t]) == rank; };
  uint32_t count = 0;
  for (int64_t t = begin; t < end; t++) count += is(t);
  memory.starts[threadIdx.x] = count;
  __syncthreads();
  uint32_t before = 0;
  for (int i = 0; i < static_cast<int>(threadIdx.x); i++) before += memory.starts[i];
  if (place >= before && place < before + count) {
    for (int64_t t = begin; t < end; t++) {
      if (is(t) && before++ == place) *token = static_cast<int32_t>(t);
    }
  }
  __syncthreads();
}

// What presence and frequency take from a logit, every operation rounded by itself.
static TANDEM_DEVICE float less_penalties(float logit, const SampleRow& row, float times) {
#ifdef __CUDA_ARCH__
  return __fsub_rn(logit, __fadd_rn(row.presence_penalty, __fmul_rn(row.frequency_penalty, times)));
#else
  return logit - (row.presence_penalty + row.frequency_penalty * times);
#endif
}

// The row with bias, penalties and mask, and the best of it.
static TANDEM_DEVICE Candidate adjust(const SampleArguments& a, const SampleRow& row, const float* logits, float* out, SampleMemory& memory) {
  const SampleLists lists = *a.lists;
  for (int64_t t = threadIdx.x; t < a.vocabulary; t += blockDim.x) out[t] = logits[t];
  __syncthreads();
  for (int64_t i = threadIdx.x; i < row.bias_count; i += blockDim.x) out[lists.bias_tokens[row.bias_first + i]] += lists.bias_values[row.bias_first + i];
  __syncthreads();
  for (int64_t i = threadIdx.x; i < row.penalty_count; i += blockDim.x) {
    float& logit = out[lists.penalty_tokens[row.penalty_first + i]];
    const int32_t times = lists.penalty_counts[row.penalty_first + i];
    float value = logit > 0 ? logit / row.repetition_penalty : logit * row.repetition_penalty;
    if (times > 0) value = less_penalties(value, row, static_cast<float>(times));
    logit = value;
  }
  __syncthreads();
  Candidate best = {0, -1};
  for (int64_t t = threadIdx.x; t < a.vocabulary; t += blockDim.x) {
    if (row.mask_first >= 0 && !(lists.masks[row.mask_first + (t >> 5)] >> (t & 31) & 1)) out[t] = -INFINITY;
    if (is_candidate(out[t])) best = better(best, {out[t], static_cast<int32_t>(t)});
  }
  best = warp_best(best);
  if ((threadIdx.x & 31) == 0) {
    memory.values[threadIdx.x >> 5] = best.value;
    memory.indices[threadIdx.x >> 5] = best.index;
  }
  __syncthreads();
  for (int w = 0; w < static_cast<int>(blockDim.x >> 5); w++) best = better(best, {memory.values[w], memory.indices[w]});
  __syncthreads();
  return best;
}

static TANDEM_DEVICE void sample(const SampleArguments& a) {
  __shared__ SampleMemory memory;
  const int64_t o = blockIdx.y;
  if (o >= *a.rows) return;
  const SampleRow row = a.records[o];
  if (!row.sampled || (a.dead != nullptr && a.dead[row.sequence])) {
    if (threadIdx.x == 0) a.token[o] = -1;
    return;
  }
  float* adjusted = a.adjusted + o * a.adjusted_stride;
  const Candidate best = adjust(a, row, a.logits + o * a.logits_stride, adjusted, memory);
  if (best.index < 0 || row.temperature == 0) {
    if (threadIdx.x == 0) a.token[o] = best.index;
    return;
  }
  int shift = 62;  // all of them together stay below 2^63
  while (a.vocabulary >> (62 - shift) > 1) shift--;
  const Sampler s = {adjusted, a.vocabulary, best.value, row.temperature, shift};
  Kept kept;
  if (row.top_k > 0) kept = shortest(s, kept, row.top_k, false, memory);
  kept.mass = mass_from(s, kept, 0, memory);
  if (row.top_p < 1) {
    const double target = ceil(static_cast<double>(row.top_p) * static_cast<double>(kept.mass));
    kept = shortest(s, kept, target < 1 ? 1 : static_cast<Mass>(target), true, memory);
  }
  if (row.min_p > 0) {
    const Mass likely = mass_from(s, kept, row.min_p, memory);
    if (likely < kept.mass) kept.mass = likely > 0 ? likely : 1;
  }
  const double u = uniform(row.seed_low, row.seed_high, row.position);
  const Mass target = static_cast<Mass>(u * static_cast<double>(kept.mass)) + 1;
  const Kept drawn = shortest(s, kept, target < kept.mass ? target : kept.mass, true, memory);
  token_at(s, drawn.rank, drawn.ties - 1, a.token + o, memory);
}

// Log-probability of the row's token under the raw logits, and the likeliest of them, best first. Grid: (1, output rows), 256 threads.
static TANDEM_DEVICE void logprobs(const SampleArguments& a) {
  __shared__ double sums[8];
  __shared__ float values[8];
  __shared__ int32_t indices[8];
  const int64_t o = blockIdx.y;
  if (o >= *a.rows || a.token[o] < 0) return;
  const SampleRow row = a.records[o];
  const float* logits = a.logits + o * a.logits_stride;
  const int warp = threadIdx.x >> 5, warps = static_cast<int>(blockDim.x >> 5);
  double total = 0;
  Candidate last = {0, -1};
  for (int64_t place = 0; place <= row.top_logprobs; place++) {  // the first time to know the largest
    Candidate best = {0, -1};
    for (int64_t t = threadIdx.x; t < a.vocabulary; t += blockDim.x) {
      const Candidate own = {logits[t], static_cast<int32_t>(t)};
      const bool later = last.index < 0 || own.value < last.value || (own.value == last.value && own.index > last.index);
      if (is_candidate(own.value) && later) best = better(best, own);
    }
    best = warp_best(best);
    if ((threadIdx.x & 31) == 0) values[warp] = best.value, indices[warp] = best.index;
    __syncthreads();
    for (int w = 0; w < warps; w++) best = better(best, {values[w], indices[w]});
    __syncthreads();
    if (place == 0) {
      double sum = 0;
      for (int64_t t = threadIdx.x; t < a.vocabulary; t += blockDim.x) sum += expf(logits[t] - best.value);
      total = static_cast<double>(best.value) + log(block_sum(sum, sums));
      if (threadIdx.x == 0) a.logprob[o] = static_cast<float>(static_cast<double>(logits[a.token[o]]) - total);
      continue;
    }
    if (threadIdx.x == 0) {
      a.top_tokens[o * a.max_top + place - 1] = best.index;
      a.top_logprobs[o * a.max_top + place - 1] = best.index < 0 ? -INFINITY : static_cast<float>(static_cast<double>(best.value) - total);
    }
    if (best.index < 0) break;
    last = best;
  }
}

}  // namespace tandem::cuda
