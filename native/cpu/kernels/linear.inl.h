// linear: y = x · Wᵀ + bias, x rounded once to the step's activation format; on tiles (tile_rows.inl.h) both to bf16. Threads
// split the rows of W.
#pragma once

#include "core/kernel.h"
#include "cpu/kernels/dot.inl.h"
#include "cpu/kernels/tile_rows.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL < 3
// Bytes of weights that are read again and again, tile of tokens by tile: they stay in a second-level cache.
constexpr int64_t kSpanBytes = 128 * 1024;
// Bytes of weights worth handing to another thread.
constexpr int64_t kGrainBytes = 8 * 1024;

static Status linear(StepContext& context) {
  const MatrixView x = context.inputs[0], out = context.outputs[0];
  const BoundWeight& weight = *context.weights[1];
  const BoundWeight* bias = context.weights.size() > 2 ? context.weights[2] : nullptr;
  if (x.rows == 0) return {};

  const auto refuse = [] {
    return Status(Code::out_of_memory, "[native] linear needs scratch memory; the machine gave none; use a smaller batch or fewer pages");
  };
  float* offsets = nullptr;
  if (bias) {
    offsets = context.scratch->take_array<float>(static_cast<size_t>(weight.rows));
    if (!offsets) return refuse();
    decode_row(*bias->format, bias->matrix(0), offsets, weight.rows, bias->scales ? bias->row_scales(0, 0) : nullptr);
  }
#if TANDEM_ISA_LEVEL == 2
  if (on_tiles(context, x.rows)) return linear_on_tiles(context, weight, offsets);
#endif

  Activations activations;
  TANDEM_TRY(activations.reserve(*context.scratch, context.step->activation, x.rows, x.columns, &x));
  ActivationRow* views = context.scratch->take_array<ActivationRow>(static_cast<size_t>(x.rows));
  if (!views) return refuse();
  for (int64_t r = 0; r < x.rows; r++) views[r] = activations.row(r);
  if (activations.owns(x)) {
    context.pool->parallel_for(x.rows, 4, [&](int64_t begin, int64_t end, int) {
      for (int64_t r = begin; r < end; r++) activations.round_span(r, 0, x.columns, x.row(r));
    });
  }

  const Dot dot(&weight, context.step->activation);
  const int64_t height = dot.height(x.rows), tiles = (weight.rows + height - 1) / height, tile_bytes = height * weight.row_bytes;
  const auto at_least_one = [](int64_t n) { return n < 1 ? int64_t{1} : n; };
  const int64_t span = at_least_one(kSpanBytes / tile_bytes) * height;
  // Four pieces a thread, so that a late one can be helped; none of them too small.
  const int64_t grain = at_least_one(kGrainBytes / tile_bytes), share = tiles / (4 * context.pool->threads());
  const int64_t piece = (share > grain ? share : grain) * height;
  const auto multiply = [&](int64_t first, int64_t stop, int) {
    for (int64_t begin = first; begin < stop; begin += span) {
      const int64_t end = begin + span < stop ? begin + span : stop;
      dot.rows(0, begin, end, views, x.rows, out.data + begin, out.stride, end < weight.rows ? weight.row(0, end) : nullptr);
      if (!bias) continue;
      for (int64_t r = 0; r < x.rows; r++) {
        float* y = out.row(r);
        for (int64_t n = begin; n < end; n++) y[n] += offsets[n];
      }
    }
  };
  if (weight.node_rows != nullptr) context.pool->parallel_for_nodes(weight.node_rows, piece, multiply);
  else context.pool->parallel_for(weight.rows, piece, multiply);
  return {};
}

static void register_linear() { register_kernel({"linear", "", TANDEM_ISA}, linear); }

#else

// Machines with AMX run the avx512 build.
static void register_linear() {}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
