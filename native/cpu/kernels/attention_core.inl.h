// Causal attention over the paged cache: how the work of a pass is cut and put together, whatever computes it.
//
// The context of a row is cut into splits of kSplitPages pages, whatever else is in the batch:
//
//     [0, 512)  [512, 1024)  …  [.., limit)        limit = position + 1
//
// Splits are folded from left to right. So a row's bits depend on its own tokens only, and splits may be computed by
// different threads. With a window w a row sees [limit − w, limit); splits before it are left out.
//
// A *tile* is what one thread computes at a time: query rows (tokens × heads that share one kv head), token-major so that
// limits ascend. A *core* computes one split of a tile (attention_exact.inl.h, attention_tiles.inl.h) into a *state*: per row
// the softmax-weighted values so far, the largest score and the sum of the weights.
#pragma once

#include <cstring>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"
#include "cpu/tiles.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kSplitPages = 8;
static inline int64_t split_tokens(const StepContext& context) { return kSplitPages * context.kv->page_tokens; }

// Cuts the memory of one thread into aligned arrays; without memory it only counts.
struct Carve {
  float* memory = nullptr;
  int64_t floats = 0;
  template <typename T>
  T* take(int64_t count) {
    const int64_t at = floats;
    floats += pad_columns((count * static_cast<int64_t>(sizeof(T)) + 3) / 4);
    return memory ? reinterpret_cast<T*>(memory + at) : nullptr;
  }
};

// How a sequence is attended: in f32 (attention_exact.inl.h), on panels (attention_tiles.inl.h), or with keys and values
// expanded from the latent (mla_expanded.inl.h).
enum class AttentionMode : uint8_t { exact, panels, expanded };

struct AttentionPlan {
  const float* queries;     // row t, head h: queries + t * query_stride + h * query_head_stride
  int64_t query_stride, query_head_stride;
  float* out;               // the same for results
  int64_t out_stride, out_head_stride;
  int64_t heads, kv_heads;
  int64_t key_width, value_width;
  KvCache::Stream keys, values;
  bool values_in_keys;      // the values are the first value_width columns of the keys (mla)
  float scale;
  const float* sinks = nullptr;      // per head: a score without a value that joins the softmax
  int64_t window = 0;                // 0: all positions
  const AttentionMode* modes = nullptr;  // per sequence
  AttentionMode mode = AttentionMode::exact;  // of the sequences that are attended
  const TileEngine* engine = nullptr;    // of the unit that panels are made for
};

struct AttentionTile {
  int64_t sequence, first_row, tokens;  // rows of the batch [first_row, first_row + tokens)
  int64_t first_head, heads;
  int64_t kv_head;
  int64_t begin_split, end_split;       // splits that any of its rows sees
  int64_t part;                         // floats before its partial states, when splits run apart
  int64_t rows() const { return tokens * heads; }
  int64_t splits() const { return end_split - begin_split; }
};

// First position that the row at `position` sees.
static inline int64_t first_seen(const AttentionPlan& plan, int64_t position) {
  return plan.window > 0 && position + 1 > plan.window ? position + 1 - plan.window : 0;
}

// What is subtracted from scores: their maximum, or 0 where all are -inf (so that e^(-inf) = 0 and not nan).
static inline float finite_base(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

// Heads of a tile: all that share a kv head, as far as they fit; fewer where a short pass would leave threads without a tile.
static int64_t choose_tile_heads(const StepContext& context, const AttentionPlan& plan, int64_t tile_rows, int64_t least) {
  const int64_t group = plan.heads / plan.kv_heads, threads = context.pool->threads();
  const int64_t rows = static_cast<int64_t>(context.batch->tokens.size());
  int64_t heads = group < tile_rows ? group : tile_rows;
  while (heads > least && rows * plan.kv_heads * ((group + heads - 1) / heads) < threads) heads = (heads + 1) / 2;
  return heads;
}

// Tiles of all live sequences, [tokens × heads] each; returns their number. With `tiles` null only counts.
static int64_t plan_tiles(const StepContext& context, const AttentionPlan& plan, int64_t tile_rows, int64_t least, AttentionTile* tiles) {
  const Batch& batch = *context.batch;
  const int64_t group = plan.heads / plan.kv_heads;
  const int64_t tile_heads = choose_tile_heads(context, plan, tile_rows, least), tile_tokens = tile_rows / tile_heads, split = split_tokens(context);
  int64_t count = 0;
  for (int64_t s = 0; s < static_cast<int64_t>(batch.sequences.size()); s++) {
    const Sequence& sequence = batch.sequences[s];
    if (context.dead != nullptr && context.dead[s]) continue;
    if (plan.modes[s] != plan.mode) continue;
    // Late rows see the longest context: they go first, so that threads end together.
    for (int64_t end = sequence.rows; end > 0; end -= tile_tokens) {
      const int64_t begin = end > tile_tokens ? end - tile_tokens : 0;
      for (int64_t kv_head = 0; kv_head < plan.kv_heads; kv_head++) {
        for (int64_t h = 0; h < group; h += tile_heads) {
          if (tiles != nullptr) {
            AttentionTile& tile = tiles[count];
            tile.sequence = s;
            tile.first_row = sequence.first_row + begin;
            tile.tokens = end - begin;
            tile.first_head = kv_head * group + h;
            tile.heads = group - h < tile_heads ? group - h : tile_heads;
            tile.kv_head = kv_head;
            tile.begin_split = first_seen(plan, sequence.first_position + begin) / split;
            tile.end_split = (sequence.first_position + end + split - 1) / split;
          }
          count++;
        }
      }
    }
  }
  return count;
}

// Memory that is wanted next: products ask for some of it after each few rows, so that it arrives while they compute.
// The processor does not foresee the pages of a sequence.
class Ahead {
 public:
  void add(const void* data, int64_t bytes) {
    if (count_ == kPieces) return;
    pieces_[count_++] = {static_cast<const char*>(data), bytes};
    total_ += bytes;
  }
  // Spreads what is left over the next `steps` calls of `step`.
  void spread(int64_t steps) { bytes_ = steps > 0 ? (total_ / steps + 63) / 64 * 64 : 0; }
  void step() {
    for (int64_t wanted = bytes_; wanted > 0 && now_ < count_;) {
      Piece& piece = pieces_[now_];
      const int64_t size = piece.bytes < wanted ? piece.bytes : wanted;
      for (int64_t i = 0; i < size; i += 64) __builtin_prefetch(piece.data + i, 0, 2);
      piece.data += size;
      piece.bytes -= size;
      total_ -= size;
      wanted -= size;
      if (piece.bytes <= 0) now_++;
    }
  }

 private:
  static constexpr size_t kPieces = 8;
  struct Piece {
    const char* data;
    int64_t bytes;
  };
  Piece pieces_[kPieces];
  size_t count_ = 0, now_ = 0;
  int64_t total_ = 0, bytes_ = 0;
};

// Adds rows [begin, begin + count) of a stream of a sequence.
static void fetch_rows(const StepContext& context, const Sequence& sequence, const KvCache::Stream& stream, int64_t head, int64_t begin,
                       int64_t count, Ahead& ahead) {
  const KvCache& kv = *context.kv;
  const int64_t row = stream.width * (kv.type == KvCache::Type::f32 ? 4 : 2);
  for (int64_t end = begin + count; begin < end;) {
    const int64_t place = begin % kv.page_tokens, left = kv.page_tokens - place, size = left < end - begin ? left : end - begin;
    ahead.add(kv.block(sequence.pages[begin / kv.page_tokens], stream, head) + place * row, size * row);
    begin += size;
  }
}

// Attends every row of the plan's sequences. Core, made of (context, plan, the Carve of one thread):
//   kTileRows, kLeastHeads        most rows of a tile; tiles are not cut below so many heads
//   state_floats(plan, rows)      of one state
//   load(tile)                    the tile's queries
//   clear(tile, state)            the empty state, with sinks
//   split(tile, index, state)     a state of one split, without sinks
//   fold(tile, index, into, part) into ← into ⊕ part
//   store(tile, state)            the results
template <typename Core>
static Status attend(StepContext& context, const AttentionPlan& plan) {
  const auto refused = [] { return Status(Code::out_of_memory, "[native] scratch memory for attention; the machine refused; use smaller batches"); };
  const int64_t threads = context.pool->threads();
  const int64_t count = plan_tiles(context, plan, Core::kTileRows, Core::kLeastHeads, nullptr);
  if (count == 0) return {};
  const int64_t state = pad_columns(Core::state_floats(plan, Core::kTileRows));
  Carve counted;
  Core(context, plan, counted);
  const int64_t floats = counted.floats + 2 * state;
  AttentionTile* tiles = context.scratch->take_array<AttentionTile>(static_cast<size_t>(count));
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * floats));
  if (tiles == nullptr || memory == nullptr) return refused();
  plan_tiles(context, plan, Core::kTileRows, Core::kLeastHeads, tiles);
  const auto states_of = [&](int thread) { return memory + thread * floats; };
  const auto core_of = [&](int thread) {
    Carve carve = {states_of(thread) + 2 * state, 0};
    return Core(context, plan, carve);
  };

  // Few tiles with long contexts are taken apart, as far as 256 MB of partial states allow; many run whole.
  int64_t parts = 0, jobs = 0, longest = 0;
  for (int64_t i = 0; i < count; i++) {
    tiles[i].part = parts;
    parts += tiles[i].splits() * Core::state_floats(plan, tiles[i].rows());
    jobs += tiles[i].splits();
    longest = tiles[i].splits() > longest ? tiles[i].splits() : longest;
  }
  const bool apart = threads > 1 && longest > 1 && count < 4 * threads && parts <= (int64_t{64} << 20);
  if (!apart) {
    context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
      Core core = core_of(thread);
      float *whole = states_of(thread), *part = whole + state;
      for (int64_t i = begin; i < end; i++) {
        const AttentionTile& tile = tiles[i];
        core.load(tile);
        core.clear(tile, whole);
        for (int64_t split = tile.begin_split; split < tile.end_split; split++) {
          core.split(tile, split, part);
          core.fold(tile, split, whole, part);
        }
        core.store(tile, whole);
      }
    });
    return {};
  }

  float* states = context.scratch->take_array<float>(static_cast<size_t>(parts));
  int64_t* job_tile = context.scratch->take_array<int64_t>(static_cast<size_t>(2 * jobs));
  if (states == nullptr || job_tile == nullptr) return refused();
  int64_t* job_split = job_tile + jobs;
  int64_t job = 0;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t split = tiles[i].begin_split; split < tiles[i].end_split; split++, job++) {
      job_tile[job] = i;
      job_split[job] = split;
    }
  }
  const auto part_of_split = [&](const AttentionTile& tile, int64_t split) {
    return states + tile.part + (split - tile.begin_split) * Core::state_floats(plan, tile.rows());
  };
  context.pool->parallel_for(jobs, 1, [&](int64_t begin, int64_t end, int thread) {
    Core core = core_of(thread);
    for (int64_t j = begin; j < end; j++) {
      const AttentionTile& tile = tiles[job_tile[j]];
      core.load(tile);
      core.split(tile, job_split[j], part_of_split(tile, job_split[j]));
    }
  });
  context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
    Core core = core_of(thread);
    float* whole = states_of(thread);
    for (int64_t i = begin; i < end; i++) {
      const AttentionTile& tile = tiles[i];
      core.clear(tile, whole);
      for (int64_t split = tile.begin_split; split < tile.end_split; split++) core.fold(tile, split, whole, part_of_split(tile, split));
      core.store(tile, whole);
    }
  });
  return {};
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
