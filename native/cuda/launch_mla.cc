// mla in its absorbed form: q_nope·W_UK beside the rope part, attention over the latent as one shared head, then W_UV.
#include "cuda/launch_mla.h"

#include <algorithm>
#include <tuple>

namespace tandem::cuda {

namespace {

constexpr int64_t kMostWidth = 576, kMostLatent = 512;  // kernels/attention.cuh, mla_part.cuh

// Whether mla_part has the step.
bool fits_mla_part(const Binding& b, const MlaStep& step) {
  return fits_tensor_cores(b.part, *step.cache) && step.width() % 16 == 0 && step.latent % 16 == 0 && b.part.device->info().shared_memory >= kMlaPartShared;
}

// Matrices of a head each are taken as rows of one.
Status check_stacked(const Binding& b, const GpuMatrix& m) {
  if (m.scale_rows == 0 || m.scale_rows == m.n || m.n % m.format->scale_rows == 0) return {};
  return b.refuse("matrices of heads on a GPU have whole blocks of scales", "has " + std::to_string(m.n) + " rows of " + m.format->name);
}

// Any rows of a pass, as one shared head of the latent.
struct AbsorbedMla {
  const GpuPart* part = nullptr;
  MlaStep step;
  AttendKernels kernels;
  bool on_tensor_cores = false;  // kernels.part is mla_part
  FunctionHandle *copy = nullptr, *transposed = nullptr;
  LinearKernels up, down;
  PartedRows parted;

  Status bind(const Binding& b, const MlaStep& of);
  // `count` rows from `first` on, of which `live` says how many there are.
  Status launch(Stream& stream, PassRows rows, int64_t first, int64_t count, const int32_t* live, const float* q, int64_t q_stride, float* y, int64_t y_stride) const;
};

Status AbsorbedMla::bind(const Binding& b, const MlaStep& of) {
  part = &b.part;
  step = of;
  TANDEM_TRY(kernels.find(b));
  on_tensor_cores = fits_mla_part(b, step);
  if (on_tensor_cores) TANDEM_TRY(b.kernel(std::string("mla_part_") + cache_name(b.part), kernels.part, kMlaPartShared));
  TANDEM_TRY(b.kernel("copy_heads", copy));
  TANDEM_TRY(up.find(b, step.up_format));
  TANDEM_TRY(down.find(b, step.down_format));
  TANDEM_TRY(b.kernel("linear_transposed_" + step.up_format, transposed));
  parted = PartedRows::of(b.part, step.heads * (step.width() + step.latent) * 4, step.heads * (step.latent + 2) * 4);
  return {};
}

Status AbsorbedMla::launch(Stream& stream, PassRows rows, int64_t first, int64_t count, const int32_t* live, const float* q, int64_t q_stride, float* y, int64_t y_stride) const {
  const auto [heads, nope, rope, latent, value] = std::tuple(step.heads, step.nope, step.rope, step.latent, step.value);
  const int64_t width = step.width(), chunk = parted.chunking(rows).rows;
  float* const absorbed = part->scratch_at(0);
  float* const attended = absorbed + chunk * heads * width;
  float* const partial = attended + chunk * heads * latent;

  LinearArguments a = {};
  a.weight = part->weights.arguments(*step.up);
  a.x = q, a.x_stride = q_stride, a.x_batch = nope + rope;
  a.y = absorbed, a.y_stride = heads * width, a.y_batch = width;
  a.rows = live;
  a.weight.n = step.together ? nope : latent;
  a.weight_batch = step.together ? nope + value : latent;
  if (step.together) TANDEM_TRY(launch_kernel(stream, transposed, transposed_shape(latent, count, heads), a));
  else TANDEM_TRY(up.launch(stream, a, count, heads));
  const CopyHeadsArguments beside = {q + nope, q_stride, nope + rope, absorbed + latent, heads * width, width, heads, rope, live};
  if (rope > 0) TANDEM_TRY(launch_kernel(stream, copy, elementwise_shape(heads * rope, count), beside));

  AttentionArguments t = {};
  t.keys = cache_view(*part, *step.cache);
  t.keys.positions += first;
  t.keys.sequence_of_row += first;
  t.keys.rows = live;
  t.values = t.keys;
  t.q = absorbed, t.q_stride = heads * width;
  t.y = attended, t.y_stride = heads * latent;
  t.partial = partial;
  t.heads = heads, t.kv_heads = 1, t.head_size = width, t.value_size = latent, t.values_stride = width;
  t.parts = parted.parts(rows), t.part = parted.part;
  t.scale = step.scale;
  TANDEM_TRY(launch_kernel(stream, kernels.part, on_tensor_cores ? mla_part_shape(heads, t.parts, count) : attention_part_shape(heads, 1, t.parts, count), t));
  TANDEM_TRY(launch_kernel(stream, kernels.merge, attention_merge_shape(heads, count), t));

  LinearArguments e = {};
  e.weight = part->weights.arguments(*step.down);
  e.weight.n = value;
  e.weight_first = step.together ? nope : 0;
  e.weight_batch = step.together ? nope + value : value;
  e.x = attended, e.x_stride = heads * latent, e.x_batch = latent;
  e.y = y, e.y_stride = y_stride, e.y_batch = value;
  e.rows = live;
  return down.launch(stream, e, count, heads);
}

}  // namespace

Status MlaStep::read(const Binding& b) {
  heads = b.step.integer("heads"), nope = b.step.integer("nope"), rope = b.step.integer("rope");
  latent = b.step.integer("latent"), value = b.step.integer("value");
  scale = static_cast<float>(b.step.number("scale"));
  if (width() % 8 != 0 || width() > kMostWidth || latent % 2 != 0 || latent > kMostLatent)
    return b.refuse("latent and rope key on a GPU are a multiple of 8 wide, up to " + std::to_string(kMostWidth) + ", the latent up to " + std::to_string(kMostLatent),
                    "has " + std::to_string(latent) + " and " + std::to_string(rope));
  together = b.has(1);
  const size_t up_operand = together ? 1 : 2, down_operand = together ? 1 : 3;
  TANDEM_TRY(b.format(up_operand, up_format));
  TANDEM_TRY(b.format(down_operand, down_format));
  up = &b.matrix(up_operand);
  down = &b.matrix(down_operand);
  cache = &b.part.cache.layers.at(b.step.integer("cache"))[0];
  if (together) return {};
  TANDEM_TRY(check_stacked(b, *up));
  return check_stacked(b, *down);
}

Status bind_mla(const Binding& b, Launch& out) {
  MlaStep step;
  TANDEM_TRY(step.read(b));
  AbsorbedMla absorbed;
  TANDEM_TRY(absorbed.bind(b, step));
  const bool tiled = b.step.tiles > 0 && ExpandedMla::fits(step);
  ExpandedMla expanded;
  if (tiled) TANDEM_TRY(expanded.bind(b, step));
  const GpuPart& part = b.part;
  const size_t numbers = tiled ? b.part.row_numbers() : 0;
  out = [=, &part, q = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    const PassHeader& header = *part.header;
    const RowChunks& chunks = absorbed.parted.chunking(rows);
    const auto absorb = [&](int64_t first, int64_t count, const int32_t* live) {
      return absorbed.launch(stream, rows, first, count, live, q.at(rows) + first * q.stride, q.stride, y.at(rows) + first * y.stride, y.stride);
    };
    if (!tiled || header.tiled().empty()) {
      for (int64_t first = 0, j = 0; first < rows.tokens; first += chunks.rows, j++) TANDEM_TRY(absorb(first, std::min(chunks.rows, rows.tokens - first), chunks.live(part, j)));
      return Status();
    }
    for (const PassHeader::Range& range : header.untiled()) {
      for (int64_t done = 0; done < range.rows; done += chunks.rows) {
        const int64_t count = std::min(chunks.rows, range.rows - done);
        TANDEM_TRY(absorb(range.first + done, count, part.weights.at<int32_t>(numbers) + count));
      }
    }
    return expanded.launch(stream, q.at(rows), q.stride, y.at(rows), y.stride);
  };
  return {};
}

}  // namespace tandem::cuda
