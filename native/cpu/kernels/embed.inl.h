// embed: the table's rows of the batch's tokens, decoded to f32. Ids were checked with the batch.
#pragma once

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL < 3
static Status embed(StepContext& context) {
  const BoundWeight& table = *context.weights[0];
  const MatrixView out = context.outputs[0];
  const WeightFormat format = weight_format(*table.format);
  const uint8_t* rows = table.matrix(0);
  context.pool->parallel_for(out.rows, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t id = context.batch->tokens[static_cast<size_t>(r)];
      decode_row(format, rows + id * table.row_bytes, out.row(r), table.columns, table.scales ? table.row_scales(0, id) : nullptr);
    }
  });
  return {};
}

static void register_embed() { register_kernel({"embed", "", TANDEM_ISA}, embed); }

#else

// Machines with AMX run the avx512 build.
static void register_embed() {}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
