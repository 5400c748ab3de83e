// experts that live on a GPU: gate and up of every visit, the gated activation, down, and the weighted sum of a row's visits.
#include <algorithm>

#include "cuda/launch.h"

namespace tandem::cuda {

namespace {

constexpr int64_t kMostVisits = 65535;  // blocks of a grid in y

struct Product {
  FunctionHandle *rows = nullptr, *tiles = nullptr;
  const GpuMatrix* matrix = nullptr;
  const GpuFloats* bias = nullptr;

  Status bind(const Binding& b, size_t operand, size_t bias_operand) {
    std::string format;
    TANDEM_TRY(b.format(operand, format));
    TANDEM_TRY(b.kernel("experts_" + format + "_rows", rows));
    TANDEM_TRY(b.kernel("experts_" + format + "_tiles", tiles));
    matrix = &b.matrix(operand, true);
    bias = b.floats(bias_operand);
    return {};
  }
  ExpertsArguments arguments(const GpuWeights& weights) const {
    ExpertsArguments a = {};
    a.matrices = weights.at<const uint8_t*>(matrix->data_table);
    a.scales = matrix->scale_rows == 0 ? nullptr : weights.at<const uint8_t*>(matrix->scale_table);
    a.row_bytes = matrix->row_bytes, a.scale_stride = matrix->scale_stride;
    a.n = matrix->n, a.k = matrix->k;
    a.bias = bias == nullptr ? nullptr : weights.at<float>(bias->place);
    return a;
  }
};

size_t padded(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) & ~size_t{255}; }

}  // namespace

Status bind_experts(const Binding& b, Launch& out) {
  Product gate, up, down;
  TANDEM_TRY(gate.bind(b, 3, 6));
  TANDEM_TRY(up.bind(b, 4, 7));
  TANDEM_TRY(down.bind(b, 5, 8));
  FunctionHandle *groups = nullptr, *gated = nullptr, *combine = nullptr;
  TANDEM_TRY(b.kernel("expert_groups", groups));
  TANDEM_TRY(b.kernel("gated", gated));
  TANDEM_TRY(b.kernel("combine", combine));
  const ValueView x = b.input(0), ids = b.input(1), chosen = b.input(2), y = b.output(0);
  const int64_t topk = ids.columns, experts = gate.matrix->experts, inner = gate.matrix->n, hidden = x.columns;
  // Kernels read the choices of a row right behind those of the row before; some columns of a value are copied together first.
  const bool whole = ids.columns == ids.stride && chosen.columns == chosen.stride;
  FunctionHandle* copy = nullptr;
  if (!whole) TANDEM_TRY(b.kernel("copy_heads", copy));

  // Of a row: gate, up and down of its visits, and their order.
  RowChunks chunks = RowChunks::of(b.part, topk * ((2 * inner + hidden) * 4 + 16));
  if (chunks.rows * topk > kMostVisits) chunks = {kMostVisits / topk, b.part.header->reserve_chunks(kMostVisits / topk)};
  const int64_t visits = chunks.rows * topk;
  const size_t up_at = padded(visits * inner * 4), down_at = up_at + padded(visits * inner * 4), order_at = down_at + padded(visits * hidden * 4);
  const size_t offsets_at = order_at + padded(visits * 4), tiles_at = offsets_at + padded((experts + 1) * 4);
  const size_t count_at = tiles_at + padded(expert_tiles(chunks.rows, topk, experts) * 8);
  const size_t ids_at = count_at + 256, chosen_at = ids_at + padded(visits * 4);
  b.part.want_scratch(whole ? ids_at : chosen_at + padded(visits * 4));

  GatedArguments fixed = {};
  fixed.clamped = b.step.text("activation") == "swiglu-clamped";
  fixed.alpha = static_cast<float>(b.step.number("alpha", 1.702));
  fixed.limit = static_cast<float>(b.step.number("limit", 7));
  const GpuPart& part = b.part;
  // All experts or none: one kernel has the visits of all of them.
  if (b.step.tiles > 1) return b.refuse("experts on a GPU are all multiplied on tiles (tiles 1) or none", "asks for tiles from " + std::to_string(b.step.tiles) + " rows on");
  const bool tiled = b.step.tiles == 1;
  out = [=, &part](Stream& stream, PassRows rows) {
    const auto ints = [&](size_t place) { return reinterpret_cast<int32_t*>(part.scratch_at(place)); };
    for (int64_t first = 0, j = 0; first < rows.tokens; first += chunks.rows, j++) {
      const int64_t count = std::min(chunks.rows, rows.tokens - first);
      const int32_t* const live = chunks.live(part, j);
      const auto together = [&](const ValueView& view, size_t place) {
        const CopyHeadsArguments a = {view.at(rows) + first * view.stride, view.stride, topk, part.scratch_at(place), topk, topk, 1, topk, live};
        return launch_kernel(stream, copy, elementwise_shape(topk, count), a);
      };
      if (!whole) {
        TANDEM_TRY(together(ids, ids_at));
        TANDEM_TRY(together(chosen, chosen_at));
      }
      const int32_t* const visited = whole ? ids.ints(rows) + first * topk : ints(ids_at);
      const float* const weights = whole ? chosen.at(rows) + first * topk : part.scratch_at(chosen_at);
      if (tiled) {
        const ExpertGroupsArguments a = {visited, topk, experts, live, ints(order_at), ints(offsets_at), ints(tiles_at), ints(count_at)};
        TANDEM_TRY(launch_kernel(stream, groups, expert_groups_shape(), a));
      }
      const auto multiply = [&](const Product& product, const float* from, int64_t stride, int64_t visits_a_row, float* to) {
        ExpertsArguments a = product.arguments(part.weights);
        a.x = from, a.x_stride = stride;
        a.y = to, a.y_stride = a.n;
        a.ids = visited;
        a.topk = topk, a.visits_a_row = visits_a_row;
        a.rows = live;
        a.order = ints(order_at), a.offsets = ints(offsets_at), a.tiles = ints(tiles_at), a.tile_count = ints(count_at);
        if (tiled) return launch_kernel(stream, product.tiles, experts_tiles_shape(a.n, count, topk, experts), a);
        return launch_kernel(stream, product.rows, experts_rows_shape(a.n, count, topk), a);
      };
      float* const gates = part.scratch_at(0);
      float* const ups = part.scratch_at(up_at);
      float* const downs = part.scratch_at(down_at);
      const float* const from = x.at(rows) + first * x.stride;
      TANDEM_TRY(multiply(gate, from, x.stride, topk, gates));
      TANDEM_TRY(multiply(up, from, x.stride, topk, ups));
      GatedArguments g = fixed;
      g.gate = gates, g.up = ups, g.y = gates;  // each thread reads and writes one place
      g.stride = g.columns = inner;
      g.topk = topk;
      g.rows = live;
      TANDEM_TRY(launch_kernel(stream, gated, elementwise_shape(inner, count * topk), g));
      TANDEM_TRY(multiply(down, gates, inner, 1, downs));
      const CombineArguments c = {downs,  hidden, visited, weights, part.weights.at<const uint8_t*>(down.matrix->data_table), y.at(rows) + first * y.stride,
                                  y.stride, hidden, topk,    live};
      TANDEM_TRY(launch_kernel(stream, combine, elementwise_shape(hidden, count), c));
    }
    return Status();
  };
  return {};
}

}  // namespace tandem::cuda
