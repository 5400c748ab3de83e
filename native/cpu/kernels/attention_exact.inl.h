// Attention in f32: the core of exact mode. Its bits are the op's definition on an instruction set.
//
// Pages run through an online softmax in order. A page of keys and values is converted to f32 once per tile.
#pragma once

#include "cpu/kernels/attention_core.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

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
                         int64_t depth, float* out, int64_t out_stride, Ahead* ahead = nullptr) {
  for (int64_t i = 0; i < rows;) {
    const bool block = rows - i >= kDotRows;
    for (int64_t j = 0; j < columns; j += 4) {
      float* to = out + i * out_stride + j;
      if (ahead) ahead->step();
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
                              int64_t weight_stride, const float* rows, int64_t row_stride, int64_t count, Ahead* ahead = nullptr) {
  for (int64_t c = 0; c < width;) {
    const bool wide = width - c >= kAddVectors * kLanes;
    for (int64_t i = 0; i < n;) {
      const bool block = n - i >= kAddRows;
      float* to = out + i * out_stride + c;
      if (ahead) ahead->step();
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

// ---- one page --------------------------------------------------------------------------------------------------------------

// Sums of softmax-weighted values, relative to the largest score so far.
struct SoftmaxState {
  float* sums;   // [rows, width]
  float* maxima; // [rows]
  float* totals; // [rows]
};

static void scale_row(float* row, int64_t width, float factor) {
  for (int64_t c = 0; c < width; c += kLanes) vec_store(row + c, vec_mul(vec_load(row + c), vec_set(factor)));
}

// Tokens [begin, end) of a page that a row sees; its window may end before the page and its limit before it begins.
struct SeenTokens {
  int64_t begin, end;
};

// One page against query rows that see some of it. scores: [rows, score_width], the page's tokens and padding.
//   keys [64, key_width], values rows of value_stride; seen[i]: begins and ends ascend.
static void attend_page(const SoftmaxState& state, int64_t first_row, int64_t rows, const float* queries, int64_t key_width,
                        const float* keys, const float* values, int64_t value_width, int64_t value_stride,
                        const SeenTokens* seen, int64_t score_width, float scale, float* scores, Ahead& ahead) {
  // Scores take about half of the time: as many steps of `ahead`, each of a share of the bytes.
  ahead.spread(2 * ((rows + kDotRows - 1) / kDotRows) * ((seen[rows - 1].end + 3) / 4));
  dot_products(queries + first_row * key_width, key_width, rows, keys, key_width, seen[rows - 1].end, key_width, scores, score_width, &ahead);
  for (int64_t i = 0; i < rows; i++) {
    float* row = scores + i * score_width;
    for (int64_t t = 0; t < seen[i].begin; t++) row[t] = -INFINITY;
    for (int64_t t = seen[i].end; t < score_width; t++) row[t] = -INFINITY;
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
  ahead.spread((rows + kAddRows - 1) / kAddRows * (value_width / (kAddVectors * kLanes)));
  // Rows that see the same tokens go together; a row never touches values that it does not see.
  for (int64_t i = 0; i < rows;) {
    int64_t end = i + 1;
    while (end < rows && seen[end].end == seen[i].end && seen[end].begin == seen[i].begin) end++;
    const int64_t skipped = seen[i].begin;
    add_weighted_rows(state.sums + (first_row + i) * value_width, value_width, end - i, value_width, scores + i * score_width + skipped,
                      score_width, values + skipped * value_stride, value_stride, seen[i].end - skipped, &ahead);
    i = end;
  }
}

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

// ---- the core --------------------------------------------------------------------------------------------------------------

class ExactCore {
 public:
  static constexpr int64_t kTileRows = 32;
  static constexpr int64_t kLeastHeads = kDotRows;

  static int64_t state_floats(const AttentionPlan& plan, int64_t rows) { return rows * (pad_columns(plan.value_width) + 2); }
  ExactCore(const StepContext& context, const AttentionPlan& plan, Carve& carve)
      : context_(context), plan_(plan), key_width_(pad_columns(plan.key_width)), value_width_(pad_columns(plan.value_width)) {
    const int64_t page_tokens = pad_columns(context.kv->page_tokens);
    queries_ = carve.take<float>(kTileRows * key_width_);
    scores_ = carve.take<float>(kTileRows * page_tokens);
    keys_ = carve.take<float>(page_tokens * key_width_);
    values_ = carve.take<float>(page_tokens * value_width_);
  }

  void load(const AttentionTile& tile) {
    float* to = queries_;
    for (int64_t t = tile.first_row; t < tile.first_row + tile.tokens; t++) {
      for (int64_t h = tile.first_head; h < tile.first_head + tile.heads; h++, to += key_width_) {
        const float* from = plan_.queries + t * plan_.query_stride + h * plan_.query_head_stride;
        std::memcpy(to, from, static_cast<size_t>(plan_.key_width) * sizeof(float));
        for (int64_t c = plan_.key_width; c < key_width_; c++) to[c] = 0.0f;
      }
    }
  }

  void clear(const AttentionTile& tile, float* state) const {
    const SoftmaxState view = view_of(tile, state);
    std::memset(view.sums, 0, static_cast<size_t>(tile.rows() * value_width_) * sizeof(float));
    for (int64_t i = 0; i < tile.rows(); i++) {
      view.maxima[i] = plan_.sinks ? plan_.sinks[tile.first_head + i % tile.heads] : -INFINITY;
      view.totals[i] = plan_.sinks ? 1.0f : 0.0f;
    }
  }

  // Rows that see nothing of the split keep an empty state.
  void split(const AttentionTile& tile, int64_t index, float* state) {
    const KvCache& kv = *context_.kv;
    const int64_t page_tokens = kv.page_tokens, rows = tile.rows();
    const Sequence& sequence = context_.batch->sequences[tile.sequence];
    const SoftmaxState view = view_of(tile, state);
    std::memset(view.sums, 0, static_cast<size_t>(rows * value_width_) * sizeof(float));
    for (int64_t i = 0; i < rows; i++) {
      view.maxima[i] = -INFINITY;
      view.totals[i] = 0.0f;
    }
    for (int64_t p = index * kSplitPages; p < (index + 1) * kSplitPages && p * page_tokens <= position(tile, rows - 1); p++) {
      // Limits and windows ascend: rows that see some of the page are neighbours.
      const int64_t start = p * page_tokens;
      int64_t first = 0, last = rows;
      while (position(tile, first) < start) first++;
      while (last > first && first_seen(plan_, position(tile, last - 1)) >= start + page_tokens) last--;
      if (first == last) continue;
      SeenTokens seen[kTileRows];
      for (int64_t i = first; i < last; i++) {
        const int64_t from = first_seen(plan_, position(tile, i)) - start, limit = position(tile, i) + 1 - start;
        seen[i - first] = {from > 0 ? from : 0, limit < page_tokens ? limit : page_tokens};
      }
      const int64_t count = seen[last - 1 - first].end;
      convert_page(kv, kv.block(sequence.pages[p], plan_.keys, tile.kv_head), plan_.key_width, count, keys_);
      const float* values = keys_;
      int64_t value_stride = key_width_;
      if (!plan_.values_in_keys) {
        convert_page(kv, kv.block(sequence.pages[p], plan_.values, tile.kv_head), plan_.value_width, count, values_);
        values = values_;
        value_stride = value_width_;
      }
      Ahead ahead;
      if (const int64_t next = start + page_tokens; next <= position(tile, rows - 1)) {
        const int64_t more = position(tile, rows - 1) + 1 - next, fetched = more < page_tokens ? more : page_tokens;
        fetch_rows(context_, sequence, plan_.keys, tile.kv_head, next, fetched, ahead);
        if (!plan_.values_in_keys) fetch_rows(context_, sequence, plan_.values, tile.kv_head, next, fetched, ahead);
      }
      attend_page(view, first, last - first, queries_, key_width_, keys_, values, value_width_, value_stride, seen,
                  pad_columns(page_tokens), plan_.scale, scores_, ahead);
    }
  }

  // Rows that see nothing of the split stay as they are: whether they meet it at all depends on who shares their tile.
  void fold(const AttentionTile& tile, int64_t index, float* into, const float* part) const {
    const SoftmaxState whole = view_of(tile, into), more = view_of(tile, const_cast<float*>(part));
    const int64_t size = split_tokens(context_);
    for (int64_t i = 0; i < tile.rows(); i++) {
      if (position(tile, i) < index * size || first_seen(plan_, position(tile, i)) >= (index + 1) * size) continue;
      const float larger = whole.maxima[i] > more.maxima[i] ? whole.maxima[i] : more.maxima[i];
      const float base = finite_base(larger);
      const float old_factor = exp_f32(whole.maxima[i] - base), new_factor = exp_f32(more.maxima[i] - base);
      float* row = whole.sums + i * value_width_;
      const float* sums = more.sums + i * value_width_;
      for (int64_t c = 0; c < value_width_; c += kLanes) {
        const Vec kept = vec_mul(vec_load(row + c), vec_set(old_factor));
        vec_store(row + c, vec_fma(vec_load(sums + c), vec_set(new_factor), kept));
      }
      whole.totals[i] = whole.totals[i] * old_factor + more.totals[i] * new_factor;
      whole.maxima[i] = larger;
    }
  }

  void store(const AttentionTile& tile, const float* state) const {
    const SoftmaxState view = view_of(tile, const_cast<float*>(state));
    for (int64_t i = 0; i < tile.rows(); i++) {
      const float* sums = view.sums + i * value_width_;
      float* out = plan_.out + (tile.first_row + i / tile.heads) * plan_.out_stride + (tile.first_head + i % tile.heads) * plan_.out_head_stride;
      for (int64_t c = 0; c < plan_.value_width; c++) out[c] = sums[c] / view.totals[i];
    }
  }

 private:
  int64_t position(const AttentionTile& tile, int64_t row) const { return context_.batch->positions[tile.first_row + row / tile.heads]; }
  SoftmaxState view_of(const AttentionTile& tile, float* state) const {
    float* maxima = state + tile.rows() * value_width_;
    return {state, maxima, maxima + tile.rows()};
  }

  const StepContext& context_;
  const AttentionPlan& plan_;
  int64_t key_width_, value_width_;
  float *queries_, *scores_, *keys_, *values_;
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
