// attention: grouped-query attention of this pass's rows over the paged cache.
#pragma once

#include "cpu/kernels/attention_core.inl.h"
#include "cpu/kernels/decode.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

static Status attention(StepContext& context) {
  const Step& step = *context.step;
  const std::vector<KvCache::Stream>& streams = context.kv->layers[step.integer("cache")];
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
  plan.window = step.integer("window", 0);
  if (context.weights.size() > 1 && context.weights[1] != nullptr) {
    const BoundWeight& sinks = *context.weights[1];
    float* decoded = context.scratch->take_array<float>(static_cast<size_t>(plan.heads));
    if (decoded == nullptr) return Status(Code::out_of_memory, "[native] scratch memory for attention; the machine refused; use smaller batches");
    decode_row(*sinks.format, sinks.matrix(0), decoded, plan.heads, sinks.row_scales(0, 0));
    plan.sinks = decoded;
  }
  return attend(context, plan);
}

static void register_attention() { register_kernel({"attention", "", TANDEM_ISA}, attention); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
