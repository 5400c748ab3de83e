// attention: grouped-query attention of this pass's rows over the paged cache.
#pragma once

#include "cpu/kernels/attention_core.inl.h"

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
  return attend(context, plan);
}

static void register_attention() { register_kernel({"attention", "", TANDEM_ISA}, attention); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
