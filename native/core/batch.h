// The input of one pass: the blob of src/program/encode.ts, decoded and checked against the model's limits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/status.h"

namespace tandem {

// Rows [first_row, first_row + rows) at positions [first_position, first_position + rows); the context after the append is
// [0, first_position + rows), in `pages` (page_tokens each, in order). Row r attends [0, first_position + r].
struct Sequence {
  int32_t slot;            // index of the cancel flag, [0, kCancelSlots)
  int64_t first_row;
  int64_t rows;            // > 0
  int64_t first_position;
  std::span<const int32_t> pages;  // every id in [0, pages of the cache)
};

// How one output row is sampled; meaning and order of application in src/program/batch.ts.
struct SamplingRecord {
  float temperature, top_p, min_p;
  float repetition_penalty, presence_penalty, frequency_penalty;
  uint32_t top_k;
  uint32_t seed_low, seed_high, position;
  uint32_t top_logprobs;                    // <= 20
  std::span<const int32_t> penalty_tokens;  // every id in [0, V)
  std::span<const int32_t> penalty_counts;  // parallel
  std::span<const int32_t> bias_tokens;     // every id in [0, V)
  std::span<const float> bias_values;       // parallel
  std::span<const uint32_t> mask;           // empty, or at least ceil(V / 32) words; bit set = allowed
};

struct OutputRow {
  int64_t row;        // ascending
  int64_t sequence;   // index of the sequence that holds the row
  bool sampled;       // false: logits only, the token is -1
  SamplingRecord sampling;
};

struct Batch {
  std::span<const int32_t> tokens;          // [T], every id in [0, V)
  std::vector<int32_t> positions;           // [T]
  std::vector<int32_t> sequence_of_row;     // [T] index into `sequences`
  std::vector<Sequence> sequences;          // ascending, disjoint, covering [0, T)
  std::vector<OutputRow> outputs;
  bool want_logits = false;
  std::vector<uint32_t> words;              // owns what the spans point into
  Batch() = default;
  Batch(Batch&&) = default;
  Batch& operator=(Batch&&) = default;
  Batch(const Batch&) = delete;             // spans would point into the other's words
  Batch& operator=(const Batch&) = delete;
};

inline constexpr int32_t kCancelSlots = 4096;
inline constexpr uint32_t kMaxTopLogprobs = 20;

// What a batch may not exceed.
struct BatchLimits {
  int64_t max_rows;
  int64_t max_outputs;
  int64_t pages;
  int64_t page_tokens;
  int64_t vocab_size;
};

Status decode_batch(const uint8_t* data, size_t size, const BatchLimits& limits, Batch& out);

}  // namespace tandem
