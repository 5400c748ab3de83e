// What a GPU can compute of routed experts that are placed on the CPU: of steps whose rows, choices and weights a GPU sends, and whose
// sums it gets back. Which of the choices it computes, if any, is decided pass by pass (hot_experts.h, streaming.h); the CPU has
// the others.
#pragma once

#include <cstdint>
#include <vector>

#include "core/program.h"

namespace tandem::cuda {

struct ExpertShare {
  uint32_t step;             // experts, on the CPU
  int ordinal;               // of the GPU
  uint32_t x, ids, weights;  // values there; of ids and weights the columns that the step reads
  uint32_t after;            // the last copy of them to the CPU; until there all three are what they were
  uint32_t joins;            // the copy that brings the CPU's part, perhaps with more added to it: there the GPU's part is added
  uint32_t buffer = 0;       // [rows, columns of y] that no other share has between `after` and `joins`
};

// How many buffers they have.
uint32_t share_buffers(const std::vector<ExpertShare>& shares);

// In the order of `after`. Steps whose weights no kernel of GPUs reads, or that get a part of x, are none. Late experts are steps
// of their own over the other choices of the same rows.
std::vector<ExpertShare> find_shares(const Program& program);

}  // namespace tandem::cuda
