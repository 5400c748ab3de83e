// What `sample` on a GPU is told of a pass, and what it says: a record an output row and the lists that records name, tokens and
// log-probabilities back.
#pragma once

#include <memory>
#include <vector>

#include "core/batch.h"
#include "core/executor.h"
#include "cuda/arena.h"
#include "cuda/header.h"
#include "cuda/kernels/arguments.h"

namespace tandem::cuda {

class Sampling {
 public:
  static Status create(Device& device, int64_t max_outputs, int64_t vocabulary, std::unique_ptr<Sampling>& out);

  // Lists have no bound that memory could be kept for (a penalty counts every token that occurred): their place grows here, between
  // passes, which no graph sees. REQUEST_INVALID where a list names a token twice.
  Status fill(const Batch& batch, const PassHeader& header);
  // Gives the copies to a stream.
  Status send(Stream& stream) const;
  // Of the kernels: all that does not belong to a step.
  SampleArguments arguments() const;
  // Gives the copies back to a stream; `tokens`: of `rows` outputs.
  Status fetch(Stream& stream, const int32_t* tokens, int64_t rows);
  // What the pass's stream brought; rows without a token are left alone.
  void take(const Batch& batch, PassOutput& out) const;
  size_t bytes() const { return fixed_.size() + list_bytes_; }

 private:
  Sampling(Device& device, int64_t max_outputs, int64_t vocabulary) : device_(device), max_outputs_(static_cast<size_t>(max_outputs)), vocabulary_(vocabulary), seen_(static_cast<size_t>(vocabulary)) {}
  Status check_once(std::span<const int32_t> tokens);
  Status grow(size_t bytes);

  Device& device_;
  size_t max_outputs_;
  int64_t vocabulary_;
  Arena fixed_;                      // lists, records; results
  size_t lists_ = 0, records_ = 0, results_ = 0;
  Pinned told_, said_;               // the machine's side of it; of the results tokens come first
  Memory list_memory_;
  Pinned list_staging_;
  size_t list_bytes_ = 0, list_used_ = 0, records_used_ = 0;
  std::vector<uint32_t> seen_;       // by token: the list that named it last
  uint32_t list_ = 0;
};

}  // namespace tandem::cuda
