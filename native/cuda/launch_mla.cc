// mla in its absorbed form: q_nope·W_UK beside the rope part, attention over the latent as one shared head, then W_UV.
#include <algorithm>

#include "cuda/launch_attention.h"

namespace tandem::cuda {

namespace {

constexpr int64_t kMostWidth = 576, kMostLatent = 512;  // kernels/attention.cuh

// Matrices of a head each are taken as rows of one.
Status check_stacked(const Binding& b, const GpuMatrix& m) {
  if (m.scale_rows == 0 || m.scale_rows == m.n || m.n % m.format->scale_rows == 0) return {};
  return b.refuse("matrices of heads on a GPU have whole blocks of scales", "has " + std::to_string(m.n) + " rows of " + m.format->name);
}

}  // namespace

Status bind_mla(const Binding& b, Launch& out) {
  const int64_t heads = b.step.integer("heads"), nope = b.step.integer("nope"), rope = b.step.integer("rope");
  const int64_t latent = b.step.integer("latent"), value = b.step.integer("value"), width = latent + rope;
  if (width % 8 != 0 || width > kMostWidth || latent % 2 != 0 || latent > kMostLatent)
    return b.refuse("latent and rope key on a GPU are a multiple of 8 wide, up to " + std::to_string(kMostWidth) + ", the latent up to " + std::to_string(kMostLatent),
                    "has " + std::to_string(latent) + " and " + std::to_string(rope));
  AttendKernels kernels;
  TANDEM_TRY(kernels.find(b));
  FunctionHandle *copy = nullptr, *transposed = nullptr;
  TANDEM_TRY(b.kernel("copy_heads", copy));
  // kvB holds both, kB is W_UK transposed.
  const bool together = b.has(1);
  const size_t up_operand = together ? 1 : 2, down_operand = together ? 1 : 3;
  std::string up_format, down_format;
  TANDEM_TRY(b.format(up_operand, up_format));
  TANDEM_TRY(b.format(down_operand, down_format));
  LinearKernels up_kernels, down_kernels;
  TANDEM_TRY(up_kernels.find(b, up_format));
  TANDEM_TRY(down_kernels.find(b, down_format));
  TANDEM_TRY(b.kernel("linear_transposed_" + up_format, transposed));
  const GpuMatrix* const up = &b.matrix(up_operand);
  const GpuMatrix* const down = &b.matrix(down_operand);
  if (!together) {
    TANDEM_TRY(check_stacked(b, *up));
    TANDEM_TRY(check_stacked(b, *down));
  }
  const GpuPart& part = b.part;
  const KvCache::Stream& cache = b.part.cache.layers.at(b.step.integer("cache"))[0];
  const float scale = static_cast<float>(b.step.number("scale"));
  const PartedRows parted = PartedRows::of(b.part, heads * (width + latent) * 4, heads * (latent + 2) * 4);
  out = [=, &part, &cache, q = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    const RowChunks& chunks = parted.chunking(rows);
    float* const absorbed = part.scratch_at(0);
    float* const attended = absorbed + chunks.rows * heads * width;
    float* const partial = attended + chunks.rows * heads * latent;
    for (int64_t first = 0, j = 0; first < rows.tokens; first += chunks.rows, j++) {
      const int64_t count = std::min(chunks.rows, rows.tokens - first);
      const int32_t* const live = chunks.live(part, j);
      const float* const from = q.at(rows) + first * q.stride;

      LinearArguments a = {};
      a.weight = part.weights.arguments(*up);
      a.x = from, a.x_stride = q.stride, a.x_batch = nope + rope;
      a.y = absorbed, a.y_stride = heads * width, a.y_batch = width;
      a.rows = live;
      a.weight.n = together ? nope : latent;
      a.weight_batch = together ? nope + value : latent;
      if (together) TANDEM_TRY(launch_kernel(stream, transposed, transposed_shape(latent, count, heads), a));
      else TANDEM_TRY(up_kernels.launch(stream, a, count, heads, 0));
      const CopyHeadsArguments beside = {from + nope, q.stride, nope + rope, absorbed + latent, heads * width, width, heads, rope, live};
      if (rope > 0) TANDEM_TRY(launch_kernel(stream, copy, elementwise_shape(heads * rope, count), beside));

      AttentionArguments t = {};
      t.keys = cache_view(part, cache);
      t.keys.positions += first;
      t.keys.sequence_of_row += first;
      t.keys.rows = live;
      t.values = t.keys;
      t.q = absorbed, t.q_stride = heads * width;
      t.y = attended, t.y_stride = heads * latent;
      t.partial = partial;
      t.heads = heads, t.kv_heads = 1, t.head_size = width, t.value_size = latent, t.values_stride = width;
      t.parts = parted.parts(rows), t.part = parted.part;
      t.scale = scale;
      TANDEM_TRY(launch_kernel(stream, kernels.part, attention_part_shape(heads, 1, t.parts, count), t));
      TANDEM_TRY(launch_kernel(stream, kernels.merge, attention_merge_shape(heads, count), t));

      LinearArguments e = {};
      e.weight = part.weights.arguments(*down);
      e.weight.n = value;
      e.weight_first = together ? nope : 0;
      e.weight_batch = together ? nope + value : value;
      e.x = attended, e.x_stride = heads * latent, e.x_batch = latent;
      e.y = y.at(rows) + first * y.stride, e.y_stride = y.stride, e.y_batch = value;
      e.rows = live;
      TANDEM_TRY(down_kernels.launch(stream, e, count, heads, 0));
    }
    return Status();
  };
  return {};
}

}  // namespace tandem::cuda
