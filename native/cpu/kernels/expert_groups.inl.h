// The rows of a pass sorted by the expert they visit.
#pragma once

#include "core/batch.h"
#include "core/kernel.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// The (token, slot) pairs of a pass, sorted by expert, then token, then slot. Pair p belongs to group g where
// groups[g].begin <= p < groups[g + 1].begin.
struct ExpertGroups {
  struct Group {
    int64_t expert, begin;
  };
  int64_t pairs = 0, count = 0;
  Group* groups = nullptr;      // [count + 1], the last one closes the list
  int32_t* token_of = nullptr;  // [pairs]
  int32_t* pair_of = nullptr;   // [T, k], -1 where skipped
  int64_t rows(int64_t g) const { return groups[g + 1].begin - groups[g].begin; }
};

static inline Status refuse_scratch() {
  return {Code::out_of_memory, "[native] experts needs scratch memory; the machine gave none; use a smaller batch or fewer pages"};
}

static Status group_by_expert(StepContext& context, int64_t experts, ExpertGroups& out) {
  const MatrixView ids = context.inputs[1];
  const int64_t tokens = ids.rows, k = ids.columns;
  const auto is_dead = [&](int64_t t) {
    return context.dead && context.batch && context.dead[context.batch->sequence_of_row[static_cast<size_t>(t)]];
  };
  int64_t* begin = context.scratch->take_array<int64_t>(static_cast<size_t>(experts + 1));
  out.pair_of = context.scratch->take_array<int32_t>(static_cast<size_t>(tokens * k));
  if (!begin || !out.pair_of) return refuse_scratch();
  for (int64_t e = 0; e <= experts; e++) begin[e] = 0;
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < k; j++) {
      const int32_t e = is_dead(t) ? -1 : ids.ints(t)[j];
      if (e >= experts) {
        return {Code::request_invalid, "[native] expert ids are below the number of experts; row " + std::to_string(t) + " names " +
                                           std::to_string(e) + " of " + std::to_string(experts) + "; check the router's output"};
      }
      out.pair_of[t * k + j] = e < 0 ? -1 : e;
      if (e >= 0) begin[e + 1]++;
    }
  }
  for (int64_t e = 0; e < experts; e++) {
    out.count += begin[e + 1] > 0;
    begin[e + 1] += begin[e];
  }
  out.pairs = begin[experts];
  out.groups = context.scratch->take_array<ExpertGroups::Group>(static_cast<size_t>(out.count + 1));
  out.token_of = context.scratch->take_array<int32_t>(static_cast<size_t>(out.pairs));
  if (!out.groups || !out.token_of) return refuse_scratch();
  int64_t g = 0;
  for (int64_t e = 0; e < experts; e++) {
    if (begin[e + 1] > begin[e]) out.groups[g++] = {e, begin[e]};
  }
  out.groups[g] = {experts, out.pairs};
  // `begin` now counts up to the end of each expert's pairs.
  for (int64_t t = 0; t < tokens; t++) {
    for (int64_t j = 0; j < k; j++) {
      int32_t& pair = out.pair_of[t * k + j];
      if (pair < 0) continue;
      const int64_t p = begin[pair]++;
      out.token_of[p] = static_cast<int32_t>(t);
      pair = static_cast<int32_t>(p);
    }
  }
  return {};
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
