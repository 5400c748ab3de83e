// Causal attention over the paged cache; the heart of `attention` and `mla`.
//
// The context of a row is cut into splits of kSplitPages pages, whatever else is in the batch:
//
//     [0, 512)  [512, 1024)  …  [.., limit)        limit = position + 1
//
// With a window w a row sees the last w of these positions; pages before them are left out.
//
// Inside a split, pages run through an online softmax in order; splits are folded from left to right. So a row's bits
// depend on its own tokens only, and splits may be computed by different threads.
//
// A *tile* is what one thread computes at a time: up to kTileRows query rows (tokens × heads that share one kv head),
// token-major so that limits ascend. A page of keys and values is converted to f32 once per tile.
#pragma once

#include <cstring>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kSplitPages = 8;
constexpr int64_t kTileRows = 32;
// Query rows and vectors of a value row that are multiplied at once; accumulators fill the register file.
#if TANDEM_ISA_LEVEL >= 2
constexpr int kDotRows = 4, kAddRows = 4, kAddVectors = 4;
#else
constexpr int kDotRows = 2, kAddRows = 2, kAddVectors = 4;
#endif

// ---- out[i][j] = dot(a_i, b_j) ---------------------------------------------------------------------------------------

template <int R>
static void dot_block(const float* a, int64_t a_stride, const float* b, int64_t b_stride, int64_t depth, float* out, int64_t out_stride) {
  Vec sum[R][4];
  for (int i = 0; i < R; i++) {
    for (int j = 0; j < 4; j++) sum[i][j] = vec_set(0.0f);
  }
  for (int64_t k = 0; k < depth; k += kLanes) {
    Vec right[4];
    for (int j = 0; j < 4; j++) right[j] = vec_load(b + j * b_stride + k);
    for (int i = 0; i < R; i++) {
      const Vec left = vec_load(a + i * a_stride + k);
      for (int j = 0; j < 4; j++) sum[i][j] = vec_fma(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < R; i++) vec_store_sum4(out + i * out_stride, sum[i][0], sum[i][1], sum[i][2], sum[i][3]);
}

// a: [rows, depth], b: [columns, depth], depth padded. Columns are computed four at a time: b and out reach to the next
// multiple of four. A number does not depend on how many rows it is computed with.
static void dot_products(const float* a, int64_t a_stride, int64_t rows, const float* b, int64_t b_stride, int64_t columns,
                         int64_t depth, float* out, int64_t out_stride) {
  for (int64_t i = 0; i < rows;) {
    const bool block = rows - i >= kDotRows;
    for (int64_t j = 0; j < columns; j += 4) {
      float* to = out + i * out_stride + j;
      if (block) dot_block<kDotRows>(a + i * a_stride, a_stride, b + j * b_stride, b_stride, depth, to, out_stride);
      else dot_block<1>(a + i * a_stride, a_stride, b + j * b_stride, b_stride, depth, to, out_stride);
    }
    i += block ? kDotRows : 1;
  }
}

// ---- out[i][:] += Σ_t weight[i][t] · row_t[:] --------------------------------------------------------------------------

template <int R, int C>
static void add_block(float* out, int64_t out_stride, const float* weight, int64_t weight_stride, const float* rows,
                      int64_t row_stride, int64_t count) {
  Vec sum[R][C];
  for (int i = 0; i < R; i++) {
    for (int c = 0; c < C; c++) sum[i][c] = vec_load(out + i * out_stride + c * kLanes);
  }
  for (int64_t t = 0; t < count; t++) {
    Vec row[C];
    for (int c = 0; c < C; c++) row[c] = vec_load(rows + t * row_stride + c * kLanes);
    for (int i = 0; i < R; i++) {
      const Vec w = vec_set(weight[i * weight_stride + t]);
      for (int c = 0; c < C; c++) sum[i][c] = vec_fma(w, row[c], sum[i][c]);
    }
  }
  for (int i = 0; i < R; i++) {
    for (int c = 0; c < C; c++) vec_store(out + i * out_stride + c * kLanes, sum[i][c]);
  }
}

// width: padded. Terms are added in the order of t for every element, however it is blocked.
static void add_weighted_rows(float* out, int64_t out_stride, int64_t n, int64_t width, const float* weight,
                              int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count) {
  for (int64_t c = 0; c < width;) {
    const bool wide = width - c >= kAddVectors * kLanes;
    for (int64_t i = 0; i < n;) {
      const bool block = n - i >= kAddRows;
      float* to = out + i * out_stride + c;
      const float* w = weight + i * weight_stride;
      if (wide && block) add_block<kAddRows, kAddVectors>(to, out_stride, w, weight_stride, rows + c, row_stride, count);
      else if (wide) add_block<1, kAddVectors>(to, out_stride, w, weight_stride, rows + c, row_stride, count);
      else if (block) add_block<kAddRows, 1>(to, out_stride, w, weight_stride, rows + c, row_stride, count);
      else add_block<1, 1>(to, out_stride, w, weight_stride, rows + c, row_stride, count);
      i += block ? kAddRows : 1;
    }
    c += wide ? kAddVectors * kLanes : kLanes;
  }
}

// ---- one split of a tile -----------------------------------------------------------------------------------------------

// Sums of softmax-weighted values, relative to the largest score so far. Of one query row: sum[0 … width) and two numbers.
struct SoftmaxState {
  float* sums;   // [rows, width]
  float* maxima; // [rows]
  float* totals; // [rows]
};

static void clear_state(const SoftmaxState& state, int64_t rows, int64_t width) {
  std::memset(state.sums, 0, static_cast<size_t>(rows * width) * sizeof(float));
  for (int64_t i = 0; i < rows; i++) {
    state.maxima[i] = -INFINITY;
    state.totals[i] = 0.0f;
  }
}

// What is subtracted from scores: their maximum, or 0 where all are -inf (so that e^(-inf) = 0 and not nan).
static inline float finite_base(float maximum) { return maximum == -INFINITY ? 0.0f : maximum; }

static void scale_row(float* row, int64_t width, float factor) {
  for (int64_t c = 0; c < width; c += kLanes) vec_store(row + c, vec_mul(vec_load(row + c), vec_set(factor)));
}

// into ← into ⊕ part, in this order.
static void fold_row(const SoftmaxState& into, int64_t i, const float* sums, float maximum, float total, int64_t width) {
  const float larger = into.maxima[i] > maximum ? into.maxima[i] : maximum;
  const float base = finite_base(larger);
  const float old_factor = exp_f32(into.maxima[i] - base), new_factor = exp_f32(maximum - base);
  float* row = into.sums + i * width;
  for (int64_t c = 0; c < width; c += kLanes) {
    const Vec kept = vec_mul(vec_load(row + c), vec_set(old_factor));
    vec_store(row + c, vec_fma(vec_load(sums + c), vec_set(new_factor), kept));
  }
  into.totals[i] = into.totals[i] * old_factor + total * new_factor;
  into.maxima[i] = larger;
}

// One page against query rows whose context reaches into it. scores: [rows, score_width], the page's tokens and padding.
//   keys [64, key_width], values rows of value_stride; row i may see tokens [hidden[i], valid[i]) of this page, both
//   ascending, valid > 0. A row whose window begins after the page keeps its state.
static void attend_page(const SoftmaxState& state, int64_t first_row, int64_t rows, const float* queries, int64_t key_width,
                        const float* keys, const float* values, int64_t value_width, int64_t value_stride,
                        const int64_t* hidden, const int64_t* valid, int64_t score_width, float scale, float* scores) {
  dot_products(queries + first_row * key_width, key_width, rows, keys, key_width, valid[rows - 1], key_width, scores, score_width);
  for (int64_t i = 0; i < rows; i++) {
    float* row = scores + i * score_width;
    if (hidden[i] >= valid[i]) continue;
    for (int64_t t = 0; t < hidden[i]; t++) row[t] = -INFINITY;
    for (int64_t t = valid[i]; t < score_width; t++) row[t] = -INFINITY;
    Vec top = vec_set(-INFINITY);
    for (int64_t t = 0; t < score_width; t += kLanes) {
      const Vec scaled = vec_mul(vec_load(row + t), vec_set(scale));
      vec_store(row + t, scaled);
      top = vec_max(scaled, top);  // a nan score is passed over here and speaks through its weight
    }
    const int64_t r = first_row + i;
    float maximum = vec_hmax(top);
    if (!(maximum > state.maxima[r])) maximum = state.maxima[r];
    const float base = finite_base(maximum);
    const float factor = exp_f32(state.maxima[r] - base);
    Vec total = vec_set(0.0f);
    for (int64_t t = 0; t < score_width; t += kLanes) {
      const Vec weight = vec_exp(vec_sub(vec_load(row + t), vec_set(base)));
      vec_store(row + t, weight);
      total = vec_add(total, weight);
    }
    state.totals[r] = state.totals[r] * factor + vec_hsum(total);
    state.maxima[r] = maximum;
    if (factor != 1.0f) scale_row(state.sums + r * value_width, value_width, factor);
  }
  // Rows that see the same tokens go together; a row never touches values that it does not see.
  for (int64_t i = 0; i < rows;) {
    int64_t end = i + 1;
    while (end < rows && valid[end] == valid[i] && hidden[end] == hidden[i]) end++;
    if (hidden[i] < valid[i]) {
      add_weighted_rows(state.sums + (first_row + i) * value_width, value_width, end - i, value_width,
                        scores + i * score_width + hidden[i], score_width, values + hidden[i] * value_stride, value_stride,
                        valid[i] - hidden[i]);
    }
    i = end;
  }
}

// ---- all of it -----------------------------------------------------------------------------------------------------------

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
  int64_t window = 0;            // how many positions a row sees, its own the last; 0: all
  const float* sinks = nullptr;  // [heads]: a score of each head that has no value; null: none
};

struct AttentionTile {
  int64_t sequence, first_row, tokens;  // rows of the batch [first_row, first_row + tokens)
  int64_t first_head, heads;
  int64_t kv_head;
  int64_t splits;
  int64_t part;  // first of its [splits × query rows] partial states, when splits run apart
};

// Memory of one thread.
struct AttentionScratch {
  float *queries, *keys, *values, *scores;
  SoftmaxState split, whole;
  int64_t limits[kTileRows];
};

// Rows [0, count) of a page block as f32 [count, padded width].
static void convert_page(const KvCache& kv, const uint8_t* block, int64_t width, int64_t count, float* out) {
  const int64_t padded = pad_columns(width);
  for (int64_t t = 0; t < count; t++, out += padded) {
    int64_t c = 0;
    if (kv.type == KvCache::Type::f32) {
      std::memcpy(out, block + t * width * 4, static_cast<size_t>(width) * 4);
      c = width;
    } else {
      const uint16_t* row = reinterpret_cast<const uint16_t*>(block) + t * width;
      for (; c + kLanes <= width; c += kLanes) vec_store(out + c, vec_load_bf16(row + c));
      for (; c < width; c++) out[c] = bf16_to_f32(row[c]);
    }
    for (; c < padded; c++) out[c] = 0.0f;
  }
}

// The first position that a row with this limit sees.
static inline int64_t first_seen(const AttentionPlan& plan, int64_t limit) {
  return plan.window > 0 && limit > plan.window ? limit - plan.window : 0;
}

// Split `split` of a tile into scratch.split. Rows whose context ends before the split keep an empty state.
static void attend_split(const StepContext& context, const AttentionPlan& plan, const AttentionTile& tile, int64_t split,
                         AttentionScratch& scratch) {
  const KvCache& kv = *context.kv;
  const int64_t page_tokens = kv.page_tokens, rows = tile.tokens * tile.heads;
  const int64_t key_width = pad_columns(plan.key_width), value_width = pad_columns(plan.value_width);
  const int64_t longest = scratch.limits[rows - 1];
  const Sequence& sequence = context.batch->sequences[tile.sequence];
  clear_state(scratch.split, rows, value_width);
  int64_t first = 0;
  const int64_t seen_from = first_seen(plan, scratch.limits[0]) / page_tokens;  // page of the first position any row sees
  const int64_t begin = split * kSplitPages > seen_from ? split * kSplitPages : seen_from;
  for (int64_t p = begin; p < (split + 1) * kSplitPages && p * page_tokens < longest; p++) {
    const int64_t start = p * page_tokens;
    while (scratch.limits[first] <= start) first++;
    int64_t hidden[kTileRows], valid[kTileRows];
    for (int64_t i = first; i < rows; i++) {
      const int64_t seen = scratch.limits[i] - start, before = first_seen(plan, scratch.limits[i]) - start;
      valid[i - first] = seen < page_tokens ? seen : page_tokens;
      hidden[i - first] = before > 0 ? before : 0;
    }
    const int64_t count = valid[rows - 1 - first];
    convert_page(kv, kv.block(sequence.pages[p], plan.keys, tile.kv_head), plan.key_width, count, scratch.keys);
    const float* values = scratch.keys;
    int64_t value_stride = key_width;
    if (!plan.values_in_keys) {
      convert_page(kv, kv.block(sequence.pages[p], plan.values, tile.kv_head), plan.value_width, count, scratch.values);
      values = scratch.values;
      value_stride = value_width;
    }
    attend_page(scratch.split, first, rows - first, scratch.queries, key_width, scratch.keys, values, value_width,
                value_stride, hidden, valid, pad_columns(page_tokens), plan.scale, scratch.scores);
  }
}

static void load_queries(const StepContext& context, const AttentionPlan& plan, const AttentionTile& tile, AttentionScratch& scratch) {
  const int64_t key_width = pad_columns(plan.key_width);
  float* to = scratch.queries;
  int64_t* limit = scratch.limits;
  for (int64_t t = tile.first_row; t < tile.first_row + tile.tokens; t++) {
    for (int64_t h = tile.first_head; h < tile.first_head + tile.heads; h++, to += key_width) {
      const float* from = plan.queries + t * plan.query_stride + h * plan.query_head_stride;
      std::memcpy(to, from, static_cast<size_t>(plan.key_width) * sizeof(float));
      for (int64_t c = plan.key_width; c < key_width; c++) to[c] = 0.0f;
      *limit++ = context.batch->positions[t] + 1;
    }
  }
}

static void store_result(const AttentionPlan& plan, const AttentionTile& tile, int64_t i, const SoftmaxState& whole, int64_t at) {
  const float* sums = whole.sums + at * pad_columns(plan.value_width);
  float* out = plan.out + (tile.first_row + i / tile.heads) * plan.out_stride + (tile.first_head + i % tile.heads) * plan.out_head_stride;
  float total = whole.totals[at], factor = 1.0f;
  if (plan.sinks != nullptr) {
    const float sink = plan.sinks[tile.first_head + i % tile.heads];
    const float larger = sink > whole.maxima[at] ? sink : whole.maxima[at];
    factor = exp_f32(whole.maxima[at] - larger);
    total = total * factor + exp_f32(sink - larger);
  }
  for (int64_t c = 0; c < plan.value_width; c++) out[c] = sums[c] * factor / total;
}

// Splits of the context that row i of a tile reaches into.
static int64_t splits_of(int64_t limit, int64_t page_tokens) { return (limit + kSplitPages * page_tokens - 1) / (kSplitPages * page_tokens); }

static AttentionScratch take_scratch(float* memory, int64_t key_width, int64_t value_width, int64_t page_tokens) {
  AttentionScratch scratch;
  const auto take = [&](int64_t count) {
    float* at = memory;
    memory += count;
    return at;
  };
  scratch.queries = take(kTileRows * key_width);
  page_tokens = pad_columns(page_tokens);
  scratch.keys = take(page_tokens * key_width);
  scratch.values = take(page_tokens * value_width);
  scratch.scores = take(kTileRows * page_tokens);
  for (SoftmaxState* state : {&scratch.split, &scratch.whole}) {
    state->sums = take(kTileRows * value_width);
    state->maxima = take(kTileRows);
    state->totals = take(kTileRows);
  }
  return scratch;
}

// Heads of a tile: all that share a kv head, as far as they fit; fewer where a short pass would leave threads without a tile.
static int64_t choose_tile_heads(const StepContext& context, const AttentionPlan& plan) {
  const int64_t group = plan.heads / plan.kv_heads, threads = context.pool->threads();
  const int64_t rows = static_cast<int64_t>(context.batch->tokens.size());
  int64_t heads = group < kTileRows ? group : kTileRows;
  while (heads > kDotRows && rows * plan.kv_heads * ((group + heads - 1) / heads) < threads) heads = (heads + 1) / 2;
  return heads;
}

// Tiles of all live sequences, [tokens × heads] each; returns their number. With `tiles` null only counts.
static int64_t plan_tiles(const StepContext& context, const AttentionPlan& plan, AttentionTile* tiles) {
  const Batch& batch = *context.batch;
  const int64_t group = plan.heads / plan.kv_heads;
  const int64_t tile_heads = choose_tile_heads(context, plan), tile_tokens = kTileRows / tile_heads;
  int64_t count = 0;
  for (int64_t s = 0; s < static_cast<int64_t>(batch.sequences.size()); s++) {
    const Sequence& sequence = batch.sequences[s];
    if (context.dead != nullptr && context.dead[s]) continue;
    // Late rows see the longest context: they go first, so that threads end together.
    for (int64_t end = sequence.rows; end > 0; end -= tile_tokens) {
      const int64_t begin = end > tile_tokens ? end - tile_tokens : 0;
      for (int64_t kv_head = 0; kv_head < plan.kv_heads; kv_head++) {
        for (int64_t h = 0; h < group; h += tile_heads) {
          if (tiles != nullptr) {
            AttentionTile& tile = tiles[count];
            tile = {s, sequence.first_row + begin, end - begin, kv_head * group + h, group - h < tile_heads ? group - h : tile_heads, kv_head, 0, 0};
            tile.splits = splits_of(sequence.first_position + end, context.kv->page_tokens);
          }
          count++;
        }
      }
    }
  }
  return count;
}

static Status attend(StepContext& context, const AttentionPlan& plan) {
  const auto refused = [] { return Status(Code::out_of_memory, "[native] scratch memory for attention; the machine refused; use smaller batches"); };
  const int64_t threads = context.pool->threads(), page_tokens = context.kv->page_tokens;
  const int64_t key_width = pad_columns(plan.key_width), value_width = pad_columns(plan.value_width);
  const int64_t count = plan_tiles(context, plan, nullptr);
  if (count == 0) return {};
  AttentionTile* tiles = context.scratch->take_array<AttentionTile>(static_cast<size_t>(count));
  AttentionScratch* scratch = context.scratch->take_array<AttentionScratch>(static_cast<size_t>(threads));
  const int64_t floats = kTileRows * (key_width + pad_columns(page_tokens) + 2 * value_width + 4) + pad_columns(page_tokens) * (key_width + value_width);
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * pad_columns(floats)));
  if (tiles == nullptr || scratch == nullptr || memory == nullptr) return refused();
  plan_tiles(context, plan, tiles);
  for (int64_t t = 0; t < threads; t++) scratch[t] = take_scratch(memory + t * pad_columns(floats), key_width, value_width, page_tokens);

  // Few tiles with long contexts are taken apart, as far as 256 MB of partial states allow; many run whole.
  int64_t parts = 0, jobs = 0, longest = 0;
  for (int64_t i = 0; i < count; i++) {
    tiles[i].part = parts;
    parts += tiles[i].splits * tiles[i].tokens * tiles[i].heads;
    jobs += tiles[i].splits;
    longest = tiles[i].splits > longest ? tiles[i].splits : longest;
  }
  const bool apart = threads > 1 && longest > 1 && count < 4 * threads && parts * (value_width + 2) <= (int64_t{64} << 20);
  if (!apart) {
    context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
      AttentionScratch& mine = scratch[thread];
      for (int64_t i = begin; i < end; i++) {
        const AttentionTile& tile = tiles[i];
        const int64_t rows = tile.tokens * tile.heads;
        load_queries(context, plan, tile, mine);
        clear_state(mine.whole, rows, value_width);
        for (int64_t split = 0; split < tile.splits; split++) {
          attend_split(context, plan, tile, split, mine);
          for (int64_t r = 0; r < rows; r++) {
            if (split >= splits_of(mine.limits[r], page_tokens)) continue;
            fold_row(mine.whole, r, mine.split.sums + r * value_width, mine.split.maxima[r], mine.split.totals[r], value_width);
          }
        }
        for (int64_t r = 0; r < rows; r++) store_result(plan, tile, r, mine.whole, r);
      }
    });
    return {};
  }

  // part(split, row) of a tile: [split][row]; the sums, then the maxima, then the totals.
  float* sums = context.scratch->take_array<float>(static_cast<size_t>(parts * (value_width + 2)));
  int64_t* job_tile = context.scratch->take_array<int64_t>(static_cast<size_t>(jobs));
  if (sums == nullptr || job_tile == nullptr) return refused();
  float *maxima = sums + parts * value_width, *totals = maxima + parts;
  int64_t job = 0;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t split = 0; split < tiles[i].splits; split++) job_tile[job++] = i;
  }
  context.pool->parallel_for(jobs, 1, [&](int64_t begin, int64_t end, int thread) {
    AttentionScratch& mine = scratch[thread];
    for (int64_t j = begin; j < end; j++) {
      int64_t split = 0;
      while (j - split > 0 && job_tile[j - split - 1] == job_tile[j]) split++;
      const AttentionTile& tile = tiles[job_tile[j]];
      const int64_t rows = tile.tokens * tile.heads, at = tile.part + split * rows;
      load_queries(context, plan, tile, mine);
      attend_split(context, plan, tile, split, mine);
      std::memcpy(sums + at * value_width, mine.split.sums, static_cast<size_t>(rows * value_width) * sizeof(float));
      std::memcpy(maxima + at, mine.split.maxima, static_cast<size_t>(rows) * sizeof(float));
      std::memcpy(totals + at, mine.split.totals, static_cast<size_t>(rows) * sizeof(float));
    }
  });
  context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
    const SoftmaxState& whole = scratch[thread].whole;
    for (int64_t i = begin; i < end; i++) {
      const AttentionTile& tile = tiles[i];
      const int64_t rows = tile.tokens * tile.heads;
      clear_state(whole, rows, value_width);
      for (int64_t r = 0; r < rows; r++) {
        const int64_t splits = splits_of(context.batch->positions[tile.first_row + r / tile.heads] + 1, page_tokens);
        for (int64_t split = 0; split < splits; split++) {
          const int64_t at = tile.part + split * rows + r;
          fold_row(whole, r, sums + at * value_width, maxima[at], totals[at], value_width);
        }
        store_result(plan, tile, r, whole, r);
      }
    }
  });
  return {};
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
