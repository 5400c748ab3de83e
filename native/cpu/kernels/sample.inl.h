// sample: one token an output row and the log-probabilities reported with it; src/ops/sampling.ts defines it.
// NaN and -inf are no candidates; a row without any is an error of the pass, not a token.
#pragma once

#include <cstring>
#include <string>

#include "core/batch.h"
#include "core/executor.h"
#include "core/kernel.h"
#include "cpu/kernels/sample_ranking.inl.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"
#include "cpu/uniform.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// The largest logit; nan is passed over; -inf where there is none.
static float largest_logit(const float* logits, int64_t count) {
  Vec top[4];
  for (Vec& v : top) v = vec_set(-INFINITY);
  int64_t i = 0;
  for (; i + 4 * kLanes <= count; i += 4 * kLanes) {
    for (int j = 0; j < 4; j++) top[j] = vec_max(vec_load(logits + i + j * kLanes), top[j]);  // nan gives the second
  }
  float best = vec_hmax(vec_max(vec_max(top[0], top[1]), vec_max(top[2], top[3])));
  for (; i < count; i++) best = logits[i] > best ? logits[i] : best;
  return best;
}

static int64_t first_equal(const float* logits, int64_t count, float value) {
  for (int64_t i = 0; i < count; i++) {
    if (logits[i] == value) return i;
  }
  return -1;
}

// log Σ e^logit; sums of lanes in f64. Any nan gives nan.
static double log_sum_exp(const float* logits, int64_t count, float best) {
  double sum = 0;
  float lanes[kLanes];
  for (int64_t i = 0; i < count; i += kLanes) {
    const int64_t n = count - i < kLanes ? count - i : kLanes;
    if (n < kLanes) {
      for (int64_t j = n; j < kLanes; j++) lanes[j] = -INFINITY;
      std::memcpy(lanes, logits + i, static_cast<size_t>(n) * sizeof(float));
      vec_store(lanes, vec_exp(vec_sub(vec_load(lanes), vec_set(best))));
    } else {
      vec_store(lanes, vec_exp(vec_sub(vec_load(logits + i), vec_set(best))));
    }
    double part = 0;
    for (int j = 0; j < kLanes; j++) part += lanes[j];
    sum += part;
  }
  return static_cast<double>(best) + ::log(sum);
}

// Bias, penalties, mask into `out`, in f32.
static void adjust_logits(const float* logits, int64_t count, const SamplingRecord& record, float* out) {
  std::memcpy(out, logits, static_cast<size_t>(count) * sizeof(float));
  for (size_t i = 0; i < record.bias_tokens.size(); i++) out[record.bias_tokens[i]] += record.bias_values[i];
  for (size_t i = 0; i < record.penalty_tokens.size(); i++) {
    float& logit = out[record.penalty_tokens[i]];
    logit = logit > 0 ? logit / record.repetition_penalty : logit * record.repetition_penalty;
    const int32_t times = record.penalty_counts[i];
    if (times > 0) logit -= record.presence_penalty + record.frequency_penalty * static_cast<float>(times);
  }
  if (record.mask.empty()) return;
  for (int64_t t = 0; t < count; t++) {
    if (!((record.mask[t >> 5] >> (t & 31)) & 1u)) out[t] = -INFINITY;
  }
}

// The token of a row, or -1 where nothing can be drawn.
static int32_t draw_token(const float* raw, int64_t vocabulary, const SamplingRecord& record, const RankingMemory& memory) {
  const float* logits = raw;
  if (!record.bias_tokens.empty() || !record.penalty_tokens.empty() || !record.mask.empty()) {
    adjust_logits(raw, vocabulary, record, memory.logits);
    logits = memory.logits;
  }
  const float best = largest_logit(logits, vocabulary);
  if (!(best > -INFINITY)) return -1;
  if (record.temperature == 0) return static_cast<int32_t>(first_equal(logits, vocabulary, best));
  Ranking ranking(logits, vocabulary, best, record.temperature, memory);
  Prefix kept = ranking.all();
  if (record.top_k > 0) kept = ranking.top_k(kept, record.top_k);
  if (record.top_p < 1) kept = ranking.top_p(kept, record.top_p * kept.mass);
  if (record.min_p > 0) kept = ranking.min_p(kept, record.min_p);
  return ranking.draw(kept, uniform(record.seed_low, record.seed_high, record.position) * kept.mass);
}

// The `count` (≤ kMaxTopLogprobs) likeliest tokens under the raw logits, best first; returns how many there are.
static int64_t top_tokens(const float* logits, int64_t vocabulary, int64_t count, Candidate* best) {
  int64_t found = 0;
  for (int64_t start = 0; start < vocabulary; start += 4 * kLanes) {
    const int64_t end = start + 4 * kLanes < vocabulary ? start + 4 * kLanes : vocabulary;
    // Most blocks hold nothing above the least of the best.
    if (found == count && end - start == 4 * kLanes && !(largest_logit(logits + start, end - start) > best[count - 1].logit)) continue;
    for (int64_t t = start; t < end; t++) {
      if (!(logits[t] > (found == count ? best[count - 1].logit : -INFINITY))) continue;
      int64_t at = found < count ? found++ : count - 1;
      for (; at > 0 && best[at - 1].logit < logits[t]; at--) best[at] = best[at - 1];
      best[at] = {logits[t], static_cast<int32_t>(t)};
    }
  }
  return found;
}

static void report_logprobs(const float* logits, int64_t vocabulary, int32_t token, int64_t top, int64_t o, PassOutput& result) {
  const double total = log_sum_exp(logits, vocabulary, largest_logit(logits, vocabulary));
  result.logprobs[o] = static_cast<float>(logits[token] - total);
  if (top == 0) return;
  Candidate best[kMaxTopLogprobs];
  const int64_t found = top_tokens(logits, vocabulary, top, best);
  for (int64_t i = 0; i < found; i++) {
    result.top_tokens[o * result.max_top + i] = best[i].token;
    result.top_logprobs[o * result.max_top + i] = static_cast<float>(best[i].logit - total);
  }
}

static Status sample(StepContext& context) {
  const MatrixView logits = context.inputs[0], tokens = context.outputs[0];
  const Batch& batch = *context.batch;
  const int64_t vocabulary = logits.columns, threads = context.pool->threads();
  if (logits.rows == 0) return {};
  const int64_t per_thread = (vocabulary * static_cast<int64_t>(sizeof(float) + sizeof(Candidate) + 1) + 63) / 64 * 64;
  uint8_t* memory = static_cast<uint8_t*>(context.scratch->take(static_cast<size_t>(threads * per_thread)));
  if (memory == nullptr) return Status(Code::out_of_memory, "[native] scratch memory for sample; the machine refused; free memory");
  context.pool->parallel_for(logits.rows, 1, [&](int64_t begin, int64_t end, int thread) {
    uint8_t* base = memory + thread * per_thread;
    RankingMemory mine;
    mine.candidates = reinterpret_cast<Candidate*>(base);
    mine.logits = reinterpret_cast<float*>(mine.candidates + vocabulary);
    mine.bins = reinterpret_cast<uint8_t*>(mine.logits + vocabulary);
    for (int64_t o = begin; o < end; o++) {
      const OutputRow& output = batch.outputs[o];
      tokens.ints(o)[0] = -1;
      if (!output.sampled || (context.dead != nullptr && context.dead[output.sequence])) continue;
      const int32_t token = draw_token(logits.row(o), vocabulary, output.sampling, mine);
      if (token < 0) continue;  // masked, nan or -inf all over: the engine ends that request, the others go on
      tokens.ints(o)[0] = token;
      if (context.result == nullptr) continue;
      context.result->tokens[o] = token;
      report_logprobs(logits.row(o), vocabulary, token, output.sampling.top_logprobs, o, *context.result);
    }
  });
  return {};
}

static void register_sample() { register_kernel({"sample", "", TANDEM_ISA}, sample); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
