#include "cuda/expert_kernels.h"

#include <algorithm>

namespace tandem::cuda {

namespace {

constexpr int64_t kMostVisits = 65535;  // blocks of a grid in y

size_t padded(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) & ~size_t{255}; }

}  // namespace

Status ExpertKernels::bind(const Binding& b, size_t operand, Product& out) {
  std::string format;
  TANDEM_TRY(b.format(operand, format));
  TANDEM_TRY(b.kernel("experts_" + format + "_tiles", out.tiles));
  TANDEM_TRY(out.rounder.bind(b, format));
  const std::vector<int64_t>& shape = b.part.program->weights[b.step.inputs[operand].index].shape;
  const quant::FormatInfo& info = *quant::find_format(format);
  out.info = &info;
  out.n = shape[1];
  out.k = shape[2];
  TANDEM_TRY(b.kernel("experts_" + format + "_rows", out.rows, experts_rows_shape(info, out.n, out.k, 1, 1).shared));
  out.row_bytes = quant::row_bytes(info, out.k);
  if (info.scale_rows > 0) out.scale_stride = (out.k + info.scale_columns - 1) / info.scale_columns * info.scale_bytes;
  out.bias = b.floats(operand + 3);
  return {};
}

Status ExpertKernels::bind(const Binding& b, int64_t most, bool accumulates) {
  part_ = &b.part;
  TANDEM_TRY(bind(b, 3, gate_));
  TANDEM_TRY(bind(b, 4, up_));
  TANDEM_TRY(bind(b, 5, down_));
  TANDEM_TRY(b.kernel("expert_groups", groups_));
  TANDEM_TRY(b.kernel("gated", gated_));
  TANDEM_TRY(b.kernel("combine", combine_));
  if (accumulates) TANDEM_TRY(b.kernel("add", add_));
  topk_ = b.step.inputs[1].columns;
  experts_ = b.part.program->weights[b.step.inputs[3].index].shape[0];
  inner_ = gate_.n;
  hidden_ = down_.n;
  activation_.clamped = b.step.text("activation") == "swiglu-clamped";
  activation_.alpha = static_cast<float>(b.step.number("alpha", 1.702));
  activation_.limit = static_cast<float>(b.step.number("limit", 7));

  // Of a row: gate, up and down of its visits, their order, and what tiles multiply; its sum, where that is added to what is there.
  const int64_t rounded_row = std::max(rounded_columns(gate_.k), topk_ * rounded_columns(down_.k)) * 2;
  const int64_t bytes_a_row = topk_ * ((2 * inner_ + hidden_) * 4 + 4) + rounded_row + (accumulates ? hidden_ * 4 : 0);
  const int64_t rows = std::max<int64_t>(1, std::min({RowChunks::kScratchBytes / bytes_a_row, kMostVisits / topk_, most}));
  chunks_ = {rows, b.part.header->reserve_chunks(rows)};
  const int64_t visits = rows * topk_;
  up_at_ = padded(visits * inner_ * 4);
  down_at_ = up_at_ + padded(visits * inner_ * 4);
  order_at_ = down_at_ + padded(visits * hidden_ * 4);
  offsets_at_ = order_at_ + padded(visits * 4);
  tiles_at_ = offsets_at_ + padded((experts_ + 1) * 4);
  count_at_ = tiles_at_ + padded(expert_tiles(rows, topk_, experts_) * 8);
  rounded_at_ = count_at_ + 256;
  sum_at_ = rounded_at_ + padded(rows * rounded_row);
  scratch_ = sum_at_ + (accumulates ? padded(rows * hidden_ * 4) : 0);
  b.part.want_scratch(scratch_);
  return {};
}

Status ExpertKernels::launch(Stream& stream, const ExpertCall& call) const {
  const auto ints = [&](size_t place) { return reinterpret_cast<int32_t*>(part_->scratch_at(place)); };
  for (int64_t first = 0, j = 0; first < call.rows; first += chunks_.rows, j++) {
    const int64_t count = std::min(chunks_.rows, call.rows - first);
    const int32_t* const live = chunks_.live(*part_, j);
    const int32_t* const ids = call.ids + first * topk_;
    if (call.tiled) {
      const ExpertGroupsArguments a = {ids, topk_, experts_, live, ints(order_at_), ints(offsets_at_), ints(tiles_at_), ints(count_at_)};
      TANDEM_TRY(launch_kernel(stream, groups_, expert_groups_shape(), a));
    }
    const auto rounded = [&](const Product& product) { return RoundedRows{reinterpret_cast<uint16_t*>(part_->scratch_at(rounded_at_)), rounded_columns(product.k)}; };
    // x of a product on tiles: a row of the pass has `times` of them.
    const auto round = [&](const Product& product, const float* x, int64_t stride, int64_t times) {
      if (!call.tiled) return Status();
      return product.rounder.launch(stream, x, stride, product.k, rounded(product), count * times, live, times);
    };
    const auto multiply = [&](const Product& product, const ExpertTable& table, const float* x, int64_t stride, int64_t visits_a_row, float* y) {
      ExpertsArguments a = {};
      a.matrices = table.data, a.scales = table.scales;
      a.row_bytes = product.row_bytes, a.scale_stride = product.scale_stride;
      a.n = product.n, a.k = product.k;
      a.bias = product.bias == nullptr ? nullptr : part_->weights.at<float>(product.bias->place);
      a.x = x, a.x_stride = stride;
      a.rounded = rounded(product).data, a.rounded_stride = rounded(product).stride;
      a.y = y, a.y_stride = a.n;
      a.ids = ids;
      a.topk = topk_, a.visits_a_row = visits_a_row;
      a.rows = live;
      a.order = ints(order_at_), a.offsets = ints(offsets_at_), a.tiles = ints(tiles_at_), a.tile_count = ints(count_at_);
      if (call.tiled) return launch_kernel(stream, product.tiles, experts_tiles_shape(a.n, count, topk_, experts_), a);
      return launch_kernel(stream, product.rows, experts_rows_shape(*product.info, a.n, a.k, count, topk_), a);
    };
    float* const gates = part_->scratch_at(0);
    float* const ups = part_->scratch_at(up_at_);
    float* const downs = part_->scratch_at(down_at_);
    const float* const x = call.x + first * call.x_stride;
    TANDEM_TRY(round(gate_, x, call.x_stride, 1));
    TANDEM_TRY(multiply(gate_, call.gate, x, call.x_stride, topk_, gates));
    if (!gate_.rounder.serves(up_.rounder)) TANDEM_TRY(round(up_, x, call.x_stride, 1));
    TANDEM_TRY(multiply(up_, call.up, x, call.x_stride, topk_, ups));
    GatedArguments g = activation_;
    g.gate = gates, g.up = ups, g.y = gates;  // each thread reads and writes one place
    g.stride = g.columns = inner_;
    g.topk = topk_;
    g.rows = live;
    TANDEM_TRY(launch_kernel(stream, gated_, elementwise_shape(inner_, count * topk_), g));
    TANDEM_TRY(round(down_, gates, inner_, topk_));
    TANDEM_TRY(multiply(down_, call.down, gates, inner_, 1, downs));
    float* const y = call.y + first * call.y_stride;
    float* const sum = call.accumulates ? part_->scratch_at(sum_at_) : y;
    const int64_t stride = call.accumulates ? hidden_ : call.y_stride;
    const CombineArguments c = {downs, hidden_, ids, call.weights + first * topk_, call.down.data, sum, stride, hidden_, topk_, live};
    TANDEM_TRY(launch_kernel(stream, combine_, elementwise_shape(hidden_, count), c));
    if (!call.accumulates) continue;
    const ElementwiseArguments a = {y, call.y_stride, sum, stride, y, call.y_stride, hidden_, live};
    TANDEM_TRY(launch_kernel(stream, add_, elementwise_shape(hidden_, count), a));
  }
  return {};
}

}  // namespace tandem::cuda
