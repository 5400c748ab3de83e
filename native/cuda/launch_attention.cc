// kv-append, mla-append, attention.
#include "cuda/launch_attention.h"

#include <algorithm>

namespace tandem::cuda {

namespace {

constexpr int64_t kLeastPart = 256, kMostParts = 64;
constexpr int64_t kMostHeadSize = 576, kMostValueSize = 512;  // kernels/attention.cuh
constexpr int64_t kMostTileSize = 128;                        // kernels/list.h, of attention_group too

}  // namespace

const char* cache_name(const GpuPart& part) { return kv_type_name(part.program->kv_type); }

int64_t attention_part_size(const GpuPart& part) {
  const int64_t least = (part.header->limits().context + kMostParts - 1) / kMostParts;
  return std::max(kLeastPart, (least + 63) / 64 * 64);
}

CacheView cache_view(const GpuPart& part, const KvCache::Stream& stream) {
  const PassHeader& header = *part.header;
  const size_t d = part.index;
  return {reinterpret_cast<uint8_t*>(part.cache.memory.get()), part.cache.page_elements, header.limits().page_tokens, stream.offset, stream.width, header.pages(d), 1,
          header.positions(d), header.owners(d), header.dead(d), header.tokens(d)};
}

bool fits_tensor_cores(const GpuPart& part, const KvCache::Stream& stream) {
  return part.program->kv_type != KvType::f32 && (stream.width | stream.offset | part.cache.page_elements) * part.cache.element_bytes % 16 == 0;
}

PartedRows PartedRows::of(GpuPart& gpu, int64_t row_bytes, int64_t partial_bytes) {
  PartedRows rows;
  rows.part = attention_part_size(gpu);
  const int64_t most = (gpu.header->limits().context + rows.part - 1) / rows.part;
  for (int64_t parts = 1;; parts *= 2) {
    rows.chunks.push_back(RowChunks::of(gpu, row_bytes + parts * partial_bytes));
    if (parts >= most) return rows;
  }
}

const RowChunks& PartedRows::chunking(PassRows rows) const {
  size_t at = 0;
  while ((int64_t{1} << at) < parts(rows) && at + 1 < chunks.size()) at++;
  return chunks[at];
}

Status AttendKernels::find(const Binding& b) {
  TANDEM_TRY(b.kernel(std::string("attention_part_") + cache_name(b.part), part));
  return b.kernel("attention_merge", merge);
}

// k and v to their streams; of mla latent and rope key side by side into one.
Status bind_append(const Binding& b, Launch& out) {
  FunctionHandle* function = nullptr;
  TANDEM_TRY(b.kernel(std::string("cache_append_") + cache_name(b.part), function));
  const GpuPart& part = b.part;
  const std::vector<KvCache::Stream>& streams = b.part.cache.layers.at(b.step.integer("cache"));
  const bool joined = b.step.op == "mla-append";
  out = [=, &part, &streams, first = b.input(0), second = b.input(1)](Stream& stream, PassRows rows) {
    for (int i = 0; i < 2; i++) {
      const ValueView& x = i == 0 ? first : second;
      const KvCache::Stream& to = streams[joined ? 0 : static_cast<size_t>(i)];
      CacheAppendArguments a = {};
      a.cache = cache_view(part, to);
      a.x = x.at(rows), a.x_stride = x.stride;
      a.heads = to.heads;
      a.columns = joined ? x.columns : to.width;
      a.first = joined && i == 1 ? first.columns : 0;
      TANDEM_TRY(launch_kernel(stream, function, elementwise_shape(a.heads * a.columns, rows.tokens), a));
    }
    return Status();
  };
  return {};
}

Status bind_attention(const Binding& b, Launch& out) {
  AttendKernels kernels;
  TANDEM_TRY(kernels.find(b));
  const std::vector<KvCache::Stream>& streams = b.part.cache.layers.at(b.step.integer("cache"));
  AttentionArguments fixed = {};
  fixed.heads = b.step.integer("heads");
  fixed.kv_heads = b.step.integer("kvHeads");
  fixed.head_size = b.step.integer("headSize");
  fixed.value_size = b.step.integer("valueSize");
  fixed.values_stride = streams[1].width;
  fixed.window = b.step.integer("window");
  fixed.scale = static_cast<float>(b.step.number("scale"));
  if (fixed.head_size % 8 != 0 || fixed.head_size > kMostHeadSize || fixed.value_size % 2 != 0 || fixed.value_size > kMostValueSize)
    return b.refuse("heads on a GPU are a multiple of 8 wide, up to " + std::to_string(kMostHeadSize) + ", and their values even, up to " + std::to_string(kMostValueSize),
                    "has " + std::to_string(fixed.head_size) + " and " + std::to_string(fixed.value_size));
  FunctionHandle* tiles = nullptr;
  bool grouped = false;  // kernels.part is attention_group
  const int64_t larger = std::max(fixed.head_size, fixed.value_size);
  const int room = larger <= 64 ? 64 : 128;
  if (b.step.tiles > 0 && larger <= kMostTileSize)
    TANDEM_TRY(b.kernel(std::string("attention_tiles_") + cache_name(b.part) + "_" + std::to_string(room), tiles, attention_tiles_shape(fixed.heads, fixed.kv_heads, 1, room).shared));
  if (larger <= kMostTileSize && fits_tensor_cores(b.part, streams[0]) && fits_tensor_cores(b.part, streams[1])) {
    grouped = true;
    TANDEM_TRY(b.kernel(std::string("attention_group_") + cache_name(b.part) + "_" + std::to_string(room), kernels.part, attention_group_shape(fixed.heads, fixed.kv_heads, 1, 1, room).shared));
  }
  const GpuPart& part = b.part;
  const GpuFloats* const sinks = b.floats(1);
  const PartedRows parted = PartedRows::of(b.part, 0, fixed.heads * (fixed.value_size + 2) * 4);
  out = [=, &part, &streams, q = b.input(0), y = b.output(0)](Stream& stream, PassRows rows) {
    const PassHeader& header = *part.header;
    const size_t d = part.index;
    AttentionArguments a = fixed;
    a.keys = cache_view(part, streams[0]);
    a.values = cache_view(part, streams[1]);
    a.q = q.at(rows), a.q_stride = q.stride;
    a.y = y.at(rows), a.y_stride = y.stride;
    a.partial = part.scratch_at(0);
    a.parts = parted.parts(rows), a.part = parted.part;
    a.sinks = sinks == nullptr ? nullptr : part.weights.at<float>(sinks->place);
    if (tiles != nullptr && header.tiles_used() > 0) {
      a.tiles = header.tiles(d), a.tile_count = header.tile_count(d);
      TANDEM_TRY(launch_kernel(stream, tiles, attention_tiles_shape(a.heads, a.kv_heads, header.tiles_used(), room), a));
      if (!header.has_untiled()) return Status();
      a.keys.dead = a.values.dead = header.dead_or_tiled(d);
    }
    const RowChunks& chunks = parted.chunking(rows);
    for (int64_t first = 0, j = 0; first < rows.tokens; first += chunks.rows, j++) {
      const int64_t count = std::min(chunks.rows, rows.tokens - first);
      AttentionArguments piece = a;
      for (CacheView* view : {&piece.keys, &piece.values}) {
        view->positions += first;
        view->sequence_of_row += first;
        view->rows = chunks.live(part, j);
      }
      piece.q += first * a.q_stride;
      piece.y += first * a.y_stride;
      const Shape shape = grouped ? attention_group_shape(a.heads, a.kv_heads, a.parts, count, room) : attention_part_shape(a.heads, a.kv_heads, a.parts, count);
      TANDEM_TRY(launch_kernel(stream, kernels.part, shape, piece));
      TANDEM_TRY(launch_kernel(stream, kernels.merge, attention_merge_shape(a.heads, count), piece));
    }
    return Status();
  };
  return {};
}

}  // namespace tandem::cuda
