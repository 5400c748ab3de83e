#include "cuda/sampling.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace tandem::cuda {

namespace {

constexpr size_t kTop = kMaxTopLogprobs;
// Log-probability, likeliest tokens and theirs of a row.
constexpr size_t kResultWords = 1 + 2 * kTop;
constexpr size_t kLeastLists = size_t{64} << 10;

size_t words_of(const SamplingRecord& s, int64_t vocabulary) {
  return 2 * (s.penalty_tokens.size() + s.bias_tokens.size()) + (s.mask.empty() ? 0 : static_cast<size_t>((vocabulary + 31) / 32));
}

}  // namespace

Status Sampling::create(Device& device, int64_t max_outputs, int64_t vocabulary, std::unique_ptr<Sampling>& out) {
  std::unique_ptr<Sampling> s(new Sampling(device, max_outputs, vocabulary));
  const size_t rows = s->max_outputs_;
  s->lists_ = s->fixed_.reserve(sizeof(SampleLists));
  s->records_ = s->fixed_.reserve(rows * sizeof(SampleRow));
  s->results_ = s->fixed_.reserve(rows * kResultWords * 4);
  TANDEM_TRY(s->fixed_.allocate(device, "what is sampled"));
  TANDEM_TRY(device.pin(s->records_ + rows * sizeof(SampleRow), "what is sampled", s->told_));
  TANDEM_TRY(device.pin(rows * (1 + kResultWords) * 4, "what is sampled", s->said_));
  TANDEM_TRY(s->grow(kLeastLists));
  out = std::move(s);
  return {};
}

Status Sampling::grow(size_t bytes) {
  TANDEM_TRY(device_.allocate(bytes, "the lists of samplers", list_memory_));
  TANDEM_TRY(device_.pin(bytes, "the lists of samplers", list_staging_));
  list_bytes_ = bytes;
  return {};
}

Status Sampling::check_once(std::span<const int32_t> tokens) {
  list_++;
  for (const int32_t token : tokens) {
    uint32_t& seen = seen_[static_cast<size_t>(token)];
    if (seen == list_)
      return Status(Code::request_invalid, "[native] penalties and biases that a GPU applies name a token once; token " + std::to_string(token) + " is named twice; add them up, or place sample on cpu");
    seen = list_;
  }
  return {};
}

Status Sampling::fill(const Batch& batch, const PassHeader& header) {
  size_t words = 0, penalties = 0, biases = 0;
  for (const OutputRow& row : batch.outputs) {
    if (!row.sampled) continue;
    words += words_of(row.sampling, vocabulary_);
    penalties += row.sampling.penalty_tokens.size();
    biases += row.sampling.bias_tokens.size();
  }
  if (words * 4 > list_bytes_) TANDEM_TRY(grow(std::max(words * 4, 2 * list_bytes_)));
  list_used_ = words * 4;
  records_used_ = batch.outputs.size();

  const Address base = list_memory_.get();
  const auto at = [&](size_t word) { return base + word * 4; };
  SampleLists lists = {};
  lists.penalty_tokens = reinterpret_cast<const int32_t*>(at(0));
  lists.penalty_counts = reinterpret_cast<const int32_t*>(at(penalties));
  lists.bias_tokens = reinterpret_cast<const int32_t*>(at(2 * penalties));
  lists.bias_values = reinterpret_cast<const float*>(at(2 * penalties + biases));
  lists.masks = reinterpret_cast<const uint32_t*>(at(2 * (penalties + biases)));
  std::memcpy(told_.data() + lists_, &lists, sizeof lists);

  uint32_t* const staged = reinterpret_cast<uint32_t*>(list_staging_.data());
  const auto put = [&](size_t word, auto list) {
    if (!list.empty()) std::memcpy(staged + word, list.data(), list.size() * 4);
  };
  size_t penalty = 0, bias = 0, mask = 0;
  for (size_t o = 0; o < batch.outputs.size(); o++) {
    const OutputRow& row = batch.outputs[o];
    SampleRow record = {};
    record.sampled = row.sampled;
    record.sequence = header.owner(row.row);
    if (row.sampled) {
      const SamplingRecord& s = row.sampling;
      TANDEM_TRY(check_once(s.penalty_tokens));
      TANDEM_TRY(check_once(s.bias_tokens));
      record.temperature = s.temperature, record.top_p = s.top_p, record.min_p = s.min_p;
      record.repetition_penalty = s.repetition_penalty, record.presence_penalty = s.presence_penalty, record.frequency_penalty = s.frequency_penalty;
      record.top_k = s.top_k, record.seed_low = s.seed_low, record.seed_high = s.seed_high, record.position = s.position;
      record.top_logprobs = static_cast<int32_t>(s.top_logprobs);
      record.penalty_first = static_cast<int32_t>(penalty), record.penalty_count = static_cast<int32_t>(s.penalty_tokens.size());
      record.bias_first = static_cast<int32_t>(bias), record.bias_count = static_cast<int32_t>(s.bias_tokens.size());
      record.mask_first = s.mask.empty() ? -1 : static_cast<int32_t>(mask);
      put(penalty, s.penalty_tokens);
      put(penalties + penalty, s.penalty_counts);
      put(2 * penalties + bias, s.bias_tokens);
      put(2 * penalties + biases + bias, s.bias_values);
      if (!s.mask.empty()) put(2 * (penalties + biases) + mask, s.mask.first(static_cast<size_t>((vocabulary_ + 31) / 32)));
      penalty += s.penalty_tokens.size();
      bias += s.bias_tokens.size();
      if (!s.mask.empty()) mask += static_cast<size_t>((vocabulary_ + 31) / 32);
    }
    std::memcpy(told_.data() + records_ + o * sizeof record, &record, sizeof record);
  }
  return {};
}

Status Sampling::send(Stream& stream) const {
  TANDEM_TRY(stream.copy_in(fixed_.at(lists_), told_.data() + lists_, records_ + records_used_ * sizeof(SampleRow)));
  return list_used_ == 0 ? Status() : stream.copy_in(list_memory_.get(), list_staging_.data(), list_used_);
}

SampleArguments Sampling::arguments() const {
  SampleArguments a = {};
  a.vocabulary = vocabulary_;
  a.lists = reinterpret_cast<const SampleLists*>(fixed_.at(lists_));
  a.records = reinterpret_cast<const SampleRow*>(fixed_.at(records_));
  a.max_top = kTop;
  float* const results = reinterpret_cast<float*>(fixed_.at(results_));
  a.logprob = results;
  a.top_tokens = reinterpret_cast<int32_t*>(results + max_outputs_);
  a.top_logprobs = results + max_outputs_ * (1 + kTop);
  return a;
}

Status Sampling::fetch(Stream& stream, const int32_t* tokens, int64_t rows) {
  TANDEM_TRY(stream.copy_out(said_.data(), reinterpret_cast<Address>(tokens), static_cast<size_t>(rows) * 4));
  return stream.copy_out(said_.data() + max_outputs_ * 4, fixed_.at(results_), max_outputs_ * kResultWords * 4);
}

void Sampling::take(const Batch& batch, PassOutput& out) const {
  const int32_t* const tokens = reinterpret_cast<const int32_t*>(said_.data());
  const float* const logprobs = reinterpret_cast<const float*>(said_.data()) + max_outputs_;
  const int32_t* const top_tokens = reinterpret_cast<const int32_t*>(logprobs + max_outputs_);
  const float* const top_logprobs = logprobs + max_outputs_ * (1 + kTop);
  const size_t width = static_cast<size_t>(out.max_top);
  for (size_t o = 0; o < batch.outputs.size(); o++) {
    if (!batch.outputs[o].sampled || tokens[o] < 0) continue;
    out.tokens[o] = tokens[o];
    out.logprobs[o] = logprobs[o];
    for (size_t i = 0; i < batch.outputs[o].sampling.top_logprobs && top_tokens[o * kTop + i] >= 0; i++) {
      out.top_tokens[o * width + i] = top_tokens[o * kTop + i];
      out.top_logprobs[o * width + i] = top_logprobs[o * kTop + i];
    }
  }
}

}  // namespace tandem::cuda
