// Steps that take each row by itself: embed, gather-rows, add, glu, rms-norm, rope, router, rank-experts.
#include "cuda/launch.h"

namespace tandem::cuda {

namespace {

// Of the kernels (kernels/rope.cuh, kernels/router.cuh).
constexpr int64_t kMostPairs = 512, kMostExperts = 1024, kMostGroups = 32;

}  // namespace

Status bind_embed(const Binding& b, Launch& out) {
  std::string format;
  TANDEM_TRY(b.format(0, format));
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("embed_" + format, function));
  const GpuPart& part = b.part;
  const GpuMatrix* const table = &b.matrix(0);
  out = [=, &part, y = b.output(0)](Stream& stream, PassRows rows) {
    const EmbedArguments a = {part.weights.arguments(*table), part.header->ids(part.index), y.at(rows), y.stride, y.live()};
    return launch_kernel(stream, function, embed_shape(y.columns, rows.tokens), a);
  };
  return {};
}

Status bind_gather(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("gather_rows", function));
  const GpuPart& part = b.part;
  out = [=, &part, x = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    if (rows.outputs == 0) return Status();
    const GatherArguments a = {x.at(rows), x.stride, part.header->rows_out(part.index), y.at(rows), y.stride, y.columns, y.live()};
    return launch_kernel(stream, function, elementwise_shape(y.columns, rows.outputs), a);
  };
  return {};
}

Status bind_elementwise(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel(b.step.op, function));
  out = [=, x = b.input(0), z = b.input(1), y = b.output(0)](Stream& stream, PassRows rows) {
    if (y.count(rows) == 0) return Status();
    const ElementwiseArguments a = {x.at(rows), x.stride, z.at(rows), z.stride, y.at(rows), y.stride, y.columns, y.live()};
    return launch_kernel(stream, function, elementwise_shape(y.columns, y.count(rows)), a);
  };
  return {};
}

Status bind_rms_norm(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("rms_norm", function));
  const GpuWeights& weights = b.part.weights;
  const GpuFloats* const weight = b.floats(1);
  const int64_t group = b.step.integer("group");
  const float epsilon = static_cast<float>(b.step.number("epsilon"));
  out = [=, &weights, x = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    if (y.count(rows) == 0) return Status();
    const RmsNormArguments a = {x.at(rows), x.stride, weights.at<float>(weight->place), y.at(rows), y.stride, y.columns, group, epsilon, y.live()};
    return launch_kernel(stream, function, rms_norm_shape(y.columns, group, y.count(rows)), a);
  };
  return {};
}

Status bind_rope(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("rope", function));
  const std::vector<double>& frequencies = b.step.numbers("frequencies");
  if (static_cast<int64_t>(frequencies.size()) > kMostPairs)
    return b.refuse("rope on a GPU rotates up to " + std::to_string(2 * kMostPairs) + " columns of a head", "rotates " + std::to_string(2 * frequencies.size()));
  const GpuPart& part = b.part;
  const size_t place = b.part.weights.constants(frequencies.data(), frequencies.size() * 8);
  RopeArguments fixed = {};
  fixed.head_size = b.step.integer("headSize");
  fixed.offset = b.step.integer("offset");
  fixed.width = b.step.integer("width");
  fixed.magnitude = b.step.number("magnitude", 1);
  fixed.paired = b.step.text("style") == "pairs";
  out = [=, &part, x = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    RopeArguments a = fixed;
    a.x = x.at(rows), a.x_stride = x.stride;
    a.y = y.at(rows), a.y_stride = y.stride;
    a.columns = y.columns;
    a.frequencies = part.weights.at<double>(place);
    a.positions = part.header->positions(part.index);
    a.rows = y.live();
    return launch_kernel(stream, function, rope_shape(rows.tokens), a);
  };
  return {};
}

Status bind_router(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("router", function));
  const ValueView logits = b.input(0);
  const GpuWeights& weights = b.part.weights;
  const GpuFloats* const bias = b.floats(1);
  const int64_t groups = b.step.integer("groups");
  if (logits.columns > kMostExperts || groups > kMostGroups)
    return b.refuse("a router on a GPU has up to " + std::to_string(kMostExperts) + " experts in up to " + std::to_string(kMostGroups) + " groups",
                    "has " + std::to_string(logits.columns) + " in " + std::to_string(groups));
  RouterArguments fixed = {};
  fixed.experts = static_cast<int32_t>(logits.columns);
  fixed.topk = static_cast<int32_t>(b.step.integer("topk"));
  fixed.groups = static_cast<int32_t>(groups);
  fixed.group_topk = static_cast<int32_t>(b.step.integer("groupTopk"));
  fixed.sigmoid = b.step.text("score") == "sigmoid";
  fixed.top2 = b.step.text("groupScore") == "top2";
  fixed.normalize = b.step.flag("normalize");
  fixed.scale = b.step.number("scale", 1);
  out = [=, &weights, ids = b.output(0), chosen = b.output(1)](Stream& stream, PassRows rows) {
    RouterArguments a = fixed;
    a.logits = logits.at(rows), a.logits_stride = logits.stride;
    a.bias = bias == nullptr ? nullptr : weights.at<float>(bias->place);
    a.ids = ids.ints(rows), a.ids_stride = ids.stride;
    a.weights = chosen.at(rows), a.weights_stride = chosen.stride;
    a.rows = logits.live();
    return launch_kernel(stream, function, router_shape(rows.tokens), a);
  };
  return {};
}

Status bind_rank_experts(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel("rank_experts", function));
  out = [=, ids = b.input(0), weights = b.input(1), ranked = b.output(0), shares = b.output(1)](Stream& stream, PassRows rows) {
    const RankExpertsArguments a = {ids.ints(rows), ids.stride, weights.at(rows), weights.stride, ranked.ints(rows), ranked.stride, shares.at(rows), shares.stride,
                                    static_cast<int32_t>(ids.columns), ids.live()};
    return launch_kernel(stream, function, router_shape(rows.tokens), a);
  };
  return {};
}

}  // namespace tandem::cuda
