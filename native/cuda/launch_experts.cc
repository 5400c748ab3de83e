// experts that live on a GPU: gate and up of every visit, the gated activation, down, and the weighted sum of a row's visits.
#include <algorithm>

#include "cuda/expert_kernels.h"

namespace tandem::cuda {

Status bind_experts(const Binding& b, Launch& out) {
  // All experts or none: one kernel has the visits of all of them.
  if (b.step.tiles > 1) return b.refuse("experts on a GPU are all multiplied on tiles (tiles 1) or none", "asks for tiles from " + std::to_string(b.step.tiles) + " rows on");
  const bool tiled = b.step.tiles == 1;
  ExpertKernels kernels;
  TANDEM_TRY(kernels.bind(b, b.part.header->limits().max_rows, false));
  const ValueView x = b.input(0), ids = b.input(1), chosen = b.input(2), y = b.output(0);
  const GpuPart& part = b.part;
  const GpuMatrix *const gate = &b.matrix(3, true), *const up = &b.matrix(4, true), *const down = &b.matrix(5, true);
  // Kernels read the choices of a row right behind those of the row before; some columns of a value are copied together first.
  const bool whole = ids.columns == ids.stride && chosen.columns == chosen.stride;
  FunctionHandle* copy = nullptr;
  const size_t visits = static_cast<size_t>(b.part.header->limits().max_rows * ids.columns);
  const size_t ids_at = kernels.scratch(), chosen_at = ids_at + (visits * 4 + 255) / 256 * 256;
  if (!whole) {
    TANDEM_TRY(b.kernel("copy_heads", copy));
    b.part.want_scratch(chosen_at + visits * 4);
  }
  out = [=, &part](Stream& stream, PassRows rows) {
    const auto together = [&](const ValueView& view, size_t place) {
      const int64_t columns = view.columns;
      const CopyHeadsArguments a = {view.at(rows), view.stride, columns, part.scratch_at(place), columns, columns, 1, columns, view.live()};
      return launch_kernel(stream, copy, elementwise_shape(columns, rows.tokens), a);
    };
    if (!whole) {
      TANDEM_TRY(together(ids, ids_at));
      TANDEM_TRY(together(chosen, chosen_at));
    }
    const auto table = [&](const GpuMatrix& m) {
      return ExpertTable{part.weights.at<const uint8_t*>(m.data_table), m.scale_rows == 0 ? nullptr : part.weights.at<const uint8_t*>(m.scale_table)};
    };
    ExpertCall call;
    call.gate = table(*gate), call.up = table(*up), call.down = table(*down);
    call.x = x.at(rows), call.x_stride = x.stride;
    call.ids = whole ? ids.ints(rows) : reinterpret_cast<const int32_t*>(part.scratch_at(ids_at));
    call.weights = whole ? chosen.at(rows) : part.scratch_at(chosen_at);
    call.y = y.at(rows), call.y_stride = y.stride;
    call.rows = rows.tokens;
    call.tiled = tiled;
    return kernels.launch(stream, call);
  };
  return {};
}

}  // namespace tandem::cuda
