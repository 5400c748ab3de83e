// mla for many rows of a sequence: keys and values of a chunk of its context are expanded, then attended on tensor cores.
#include <algorithm>

#include "cuda/launch_mla.h"

namespace tandem::cuda {

namespace {

constexpr int64_t kMostHead = 192, kMostValue = 128;  // kernels/mla_tiles.cuh
constexpr int64_t kStep = 64;                         // positions that tiles take at once
constexpr int64_t kMostPositions = 1024;              // of a chunk: enough that the time of a launch does not count

size_t padded(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) & ~size_t{255}; }

}  // namespace

bool ExpandedMla::fits(const MlaStep& step) {
  const auto even = [](int64_t size) { return size % 2 == 0; };
  return even(step.nope) && even(step.rope) && even(step.value) && step.nope + step.rope <= kMostHead && step.value <= kMostValue;
}

Status ExpandedMla::bind(const Binding& b, const MlaStep& step) {
  part_ = &b.part;
  step_ = step;
  TANDEM_TRY(b.kernel(std::string("mla_gather_") + cache_name(b.part), gather_));
  TANDEM_TRY(b.kernel("mla_tiles", tiles_, kMlaTilesShared));
  TANDEM_TRY(b.kernel("transpose_" + step.up_format, transpose_));
  TANDEM_TRY(up_.bind(b, step.together ? step.up_format : std::string("bf16")));
  TANDEM_TRY(down_.bind(b, step.down_format));
  // A chunk takes about as much scratch memory as a chunk of rows does elsewhere.
  const PassHeader::Limits& limits = b.part.header->limits();
  const int64_t a_position = step.latent * 4 + (step.rope + rounded_columns(step.latent) + step.heads * (step.nope + step.value)) * 2;
  const int64_t most = std::max<int64_t>((limits.context + kStep - 1) / kStep, 1) * kStep;
  positions_ = std::clamp(RowChunks::kScratchBytes / a_position / kStep * kStep, kStep, std::min(most, kMostPositions));
  chunks_ = b.part.header->reserve_context(positions_, b.step.tiles);
  turned_ = 0;
  latents_ = turned_ + (step.together ? 0 : padded(step.heads * step.nope * step.latent * 2));
  ropes_ = latents_ + padded(positions_ * step.latent * 4);
  rounded_ = ropes_ + padded(positions_ * step.rope * 2);
  keys_ = rounded_ + RoundedRows::bytes(positions_, step.latent);
  values_ = keys_ + padded(positions_ * step.heads * step.nope * 2);
  state_ = values_ + padded(positions_ * step.heads * step.value * 2);
  b.part.want_scratch(state_ + padded(limits.max_rows * step.heads * 8));
  return {};
}

Status ExpandedMla::launch(Stream& stream, const float* q, int64_t q_stride, float* y, int64_t y_stride) const {
  const PassHeader& header = *part_->header;
  const size_t d = part_->index;
  if (!step_.together) {
    TransposeArguments turn = {};
    turn.weight = part_->weights.arguments(*step_.up), turn.weight_batch = step_.latent;
    turn.y = reinterpret_cast<uint16_t*>(part_->scratch_at(turned_)), turn.y_stride = step_.latent, turn.y_batch = step_.nope * step_.latent;
    TANDEM_TRY(launch_kernel(stream, transpose_, transpose_shape(step_.latent, step_.nope, step_.heads), turn));
  }
  MlaChunkArguments a = {};
  a.cache = cache_view(*part_, *step_.cache);
  const auto halves = [&](size_t place) { return reinterpret_cast<uint16_t*>(part_->scratch_at(place)); };
  a.latents = part_->scratch_at(latents_), a.ropes = halves(ropes_), a.keys = halves(keys_), a.values = halves(values_), a.state = part_->scratch_at(state_);
  a.q = q, a.q_stride = q_stride, a.y = y, a.y_stride = y_stride;
  a.heads = step_.heads, a.nope = step_.nope, a.rope = step_.rope, a.latent = step_.latent, a.value = step_.value;
  a.scale = step_.scale;
  for (size_t s = 0; s < header.tiled().size(); s++) {
    const PassHeader::Tiled& sequence = header.tiled()[s];
    a.tiles = header.tiles(d) + 2 * sequence.first_tile;
    for (int64_t first = 0, j = 0; first < sequence.context; first += positions_, j++) {
      a.chunk = header.context_chunk(d, chunks_, s, j);
      a.tile_count = a.chunk + PassHeader::kContextWords - 1;
      TANDEM_TRY(expand(stream, a, std::min(positions_, sequence.context - first)));
      TANDEM_TRY(launch_kernel(stream, tiles_, mla_tiles_shape(step_.heads, sequence.tiles), a));
    }
  }
  return {};
}

// Latents of a chunk, its keys and its values; these in bf16, as tiles take them.
Status ExpandedMla::expand(Stream& stream, const MlaChunkArguments& chunk, int64_t positions) const {
  TANDEM_TRY(launch_kernel(stream, gather_, mla_gather_shape(step_.latent + step_.rope, positions), chunk));
  const int64_t heads = step_.heads, nope = step_.nope, value = step_.value, latent = step_.latent;
  const RoundedRows rounded = {reinterpret_cast<uint16_t*>(part_->scratch_at(rounded_)), rounded_columns(latent)};
  LinearTilesArguments keys = {}, values = {};
  keys.rows = values.rows = chunk.chunk + 2;
  keys.y_bf16 = reinterpret_cast<uint16_t*>(part_->scratch_at(keys_)), keys.y_stride = heads * nope;
  values.y_bf16 = reinterpret_cast<uint16_t*>(part_->scratch_at(values_)), values.y_stride = heads * value;
  values.weight = part_->weights.arguments(*step_.down);
  keys.batches = values.batches = 1;
  if (step_.together) {
    keys.weight = values.weight;
    keys.weight.n = nope, values.weight.n = value;
    keys.batches = values.batches = heads;
    keys.y_batch = nope, values.y_batch = value;
    keys.weight_batch = values.weight_batch = nope + value, values.weight_first = nope;
  } else {
    keys.weight = {reinterpret_cast<const uint8_t*>(part_->scratch_at(turned_)), latent * 2, nullptr, 0, heads * nope, latent};
    values.weight.n = heads * value;
  }
  TANDEM_TRY(up_.launch(stream, chunk.latents, latent, rounded, keys, positions));
  if (up_.rounder().serves(down_.rounder())) return down_.multiply(stream, rounded, values, positions);
  return down_.launch(stream, chunk.latents, latent, rounded, values, positions);
}

}  // namespace tandem::cuda
