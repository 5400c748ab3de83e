// Runs a loaded model's steps in order over one batch, on one thread of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "core/status.h"

namespace tandem {

// What a pass gives back. The executor sizes and fills it before the first step (tokens -1, numbers NaN); `sample` writes
// row o at tokens[o], logprobs[o] and top_*[o * max_top ...], for its first `top_logprobs` places. Tokens of sequences
// that were cancelled are set to -1 after the last step.
struct PassOutput {
  std::vector<int32_t> tokens;        // [O]
  std::vector<float> logprobs;        // [O] log-softmax of the raw logits, natural log
  int64_t max_top = 0;                // largest top_logprobs of the batch
  std::vector<int32_t> top_tokens;    // [O, max_top], padded with -1
  std::vector<float> top_logprobs;    // [O, max_top], padded with NaN
  std::vector<float> logits;          // [O, V] when asked
  double milliseconds = 0;
};

}  // namespace tandem
