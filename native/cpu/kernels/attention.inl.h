// attention: grouped-query attention of this pass's rows over the paged cache.
#pragma once

#include "cpu/kernels/attention_exact.inl.h"
#include "cpu/kernels/attention_tiles.inl.h"
#include "cpu/kernels/decode.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

static Status attention(StepContext& context) {
  const Step& step = *context.step;
  const std::vector<KvCache::Stream>& streams = context.kv->layers[step.integer("cache")];
  const std::vector<Sequence>& sequences = context.batch->sequences;
  AttentionPlan plan;
  plan.heads = step.integer("heads");
  plan.kv_heads = step.integer("kvHeads");
  plan.key_width = step.integer("headSize");
  plan.value_width = step.integer("valueSize");
  plan.queries = context.inputs[0].data;
  plan.query_stride = context.inputs[0].stride;
  plan.query_head_stride = plan.key_width;
  plan.out = context.outputs[0].data;
  plan.out_stride = context.outputs[0].stride;
  plan.out_head_stride = plan.value_width;
  plan.keys = streams[0];
  plan.values = streams[1];
  plan.values_in_keys = false;
  plan.scale = static_cast<float>(step.number("scale"));
  plan.window = step.integer("window");
  AttentionMode* modes = context.scratch->take_array<AttentionMode>(sequences.size());
  float* sinks = context.scratch->take_array<float>(static_cast<size_t>(plan.heads));
  if (modes == nullptr || sinks == nullptr) return Status(Code::out_of_memory, "[native] scratch memory for attention; the machine refused; use smaller batches");
  if (context.weights[1] != nullptr) {
    const BoundWeight& weight = *context.weights[1];
    decode_row(*weight.format, weight.matrix(0), sinks, plan.heads, weight.row_scales(0, 0));
    plan.sinks = sinks;
  }
  return with_unit(context, [&](auto unit, const TileEngine* engine) -> Status {
    using Unit = decltype(unit);
    plan.engine = engine;
    for (size_t s = 0; s < sequences.size(); s++) modes[s] = panels_pay<Unit>(step.tiles, sequences[s].rows, plan.heads / plan.kv_heads) ? AttentionMode::panels : AttentionMode::exact;
    plan.modes = modes;
    TANDEM_TRY(attend<ExactCore>(context, plan));
    plan.mode = AttentionMode::panels;
    return attend<TileCore<Unit>>(context, plan);
  });
}

static void register_attention() { register_kernel({"attention", "", TANDEM_ISA}, attention); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
