// Attention on panels: the core of fast mode (placement.tiles), a blocked softmax in the style of arXiv 2205.14135.
//
// Query rows (a token and a head each) are the columns of panels of Unit::kColumns, so that a block of the context is
//
//     scores  [tokens, columns] = keys [tokens, key width] · queries        both operands in the unit's element
//     weights [tokens, columns] = 2^(scores · scale · log2 e − maximum)     rounded to the unit's element, as a panel
//     sums    [values, columns] = factor · sums + valuesᵀ · weights
//
// and the softmax runs down the lanes. Maxima are kept in powers of two. Blocks begin at multiples of kBlockTokens of the
// context and columns do not meet: the bits of a row depend neither on its neighbours nor on the number of threads.
#pragma once

#include "cpu/kernels/attention_core.inl.h"
#include "cpu/kernels/attention_units.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kBlockTokens = 128;
constexpr float kLog2E = 1.44269504088896341f;

// 2^x for x ≤ 0 within 2^-18, far below the step of a bf16 weight: x = n + r, 2^r by its Taylor polynomial of degree 5.
// 0 below 2^-149; nan stays.
static inline Vec vec_exp2_weight(Vec x) {
  x = vec_max(vec_set(-150.0f), x);  // the second operand is returned where one is nan
  const Vec n = vec_round(x), r = vec_sub(x, n);
  Vec p = vec_set(1.3333558146e-3f);
  p = vec_fma(p, r, vec_set(9.6181291076e-3f));
  p = vec_fma(p, r, vec_set(5.5504108665e-2f));
  p = vec_fma(p, r, vec_set(2.4022650696e-1f));
  p = vec_fma(p, r, vec_set(6.9314718056e-1f));
  return vec_scale2(vec_fma(p, r, vec_set(1.0f)), n);
}

// The softmax of one panel so far: sums [value rows, kColumns], then per column the maximum and the total.
template <typename Unit>
struct PanelState {
  static constexpr int64_t kColumns = Unit::kColumns;
  float *sums, *maxima, *totals;
  int64_t value_rows;

  static int64_t floats(int64_t value_rows) { return (value_rows + 2) * kColumns; }
  static PanelState at(float* memory, int64_t value_rows) {
    float* maxima = memory + value_rows * kColumns;
    return {memory, maxima, maxima + kColumns, value_rows};
  }
  void clear() const {
    std::memset(sums, 0, static_cast<size_t>(value_rows * kColumns) * sizeof(float));
    for (int64_t i = 0; i < kColumns; i++) {
      maxima[i] = -INFINITY;
      totals[i] = 0.0f;
    }
  }
  // Multiplies the sums of columns [v, v + kLanes) by their factors.
  void scale(int64_t v, Vec factor) const {
    float* at = sums + v;
    for (int64_t c = 0; c < value_rows; c++, at += kColumns) vec_store(at, vec_mul(vec_load(at), factor));
  }
  void fold(const PanelState& part) const {
    for (int64_t v = 0; v < kColumns; v += kLanes) {
      const Vec old_maximum = vec_load(maxima + v), new_maximum = vec_load(part.maxima + v);
      float larger[kLanes], base[kLanes];
      vec_store(larger, vec_max(old_maximum, new_maximum));
      for (int i = 0; i < kLanes; i++) base[i] = finite_base(larger[i]);
      const Vec old_factor = vec_exp2_weight(vec_sub(old_maximum, vec_load(base)));
      const Vec new_factor = vec_exp2_weight(vec_sub(new_maximum, vec_load(base)));
      for (int64_t c = 0; c < value_rows; c++) {
        float* at = sums + c * kColumns + v;
        vec_store(at, vec_fma(vec_load(part.sums + c * kColumns + v), new_factor, vec_mul(vec_load(at), old_factor)));
      }
      vec_store(totals + v, vec_fma(vec_load(part.totals + v), new_factor, vec_mul(vec_load(totals + v), old_factor)));
      vec_store(maxima + v, vec_load(larger));
    }
  }
};

// Keys and values of one block of the context, as the left sides of the two products; rows from the context's end to the
// next multiple of kDepthStep are zero.
template <typename Unit>
struct ContextBlock {
  int64_t start;                        // position of its first token
  const typename Unit::Element* keys;   // [kBlockTokens, key_stride]
  int64_t key_stride, key_depth;        // depth: a multiple of kDepthStep
  const typename Unit::Element* values; // [value rows, kBlockTokens]
};

// One panel of queries against the block. Column i sees positions [begins[i], ends[i]); columns [0, columns) are in use.
//   scores, weights: [kBlockTokens, kColumns] each
template <typename Unit>
static void attend_block(const Unit& unit, const ContextBlock<Unit>& block, const typename Unit::Element* queries, int64_t columns, const int64_t* begins,
                         const int64_t* ends, float scale, float* scores, typename Unit::Element* weights, const PanelState<Unit>& state,
                         Ahead& ahead) {
  constexpr int64_t kColumns = Unit::kColumns;
  const int64_t longest = ends[columns - 1] - block.start, shortest = ends[0] - block.start;
  if (longest <= 0 || begins[0] - block.start >= kBlockTokens) return;
  const int64_t seen = longest < kBlockTokens ? longest : kBlockTokens, depth = pad_depth(seen);
  const int64_t count = (seen + kRowStep - 1) / kRowStep * kRowStep;
  // Keys take about half of the time: as many steps, each of a share of the bytes.
  ahead.spread(2 * count / Unit::kRows);
  unit.multiply(block.keys, block.key_stride, count, queries, block.key_depth, columns, scores, false, ahead);
  if (shortest < count || begins[columns - 1] > block.start) {
    for (int64_t i = 0; i < columns; i++) {
      for (int64_t t = 0; t < begins[i] - block.start && t < count; t++) scores[t * kColumns + i] = -INFINITY;
      for (int64_t t = ends[i] > block.start ? ends[i] - block.start : 0; t < count; t++) scores[t * kColumns + i] = -INFINITY;
    }
  }
  const Vec factor = vec_set(scale * kLog2E);
  for (int64_t v = 0; v < columns; v += kLanes) {
    Vec top = vec_load(state.maxima + v);
    const Vec old_maximum = top;
    for (int64_t t = 0; t < count; t++) top = vec_max(vec_mul(vec_load(scores + t * kColumns + v), factor), top);  // passes nan over
    float before[kLanes], base[kLanes];
    vec_store(state.maxima + v, top);
    vec_store(before, old_maximum);
    vec_store(base, top);
    bool moved = false;
    for (int i = 0; i < kLanes; i++) {
      moved = moved || base[i] != before[i];
      base[i] = finite_base(base[i]);
    }
    const Vec lowered = vec_load(base);
    Vec total = vec_load(state.totals + v);
    if (moved) {
      const Vec shrink = vec_exp2_weight(vec_sub(old_maximum, lowered));
      total = vec_mul(total, shrink);
      state.scale(v, shrink);
    }
    for (int64_t t = 0; t < count; t++) {
      float* score = scores + t * kColumns + v;
      const Vec weight = vec_exp2_weight(vec_sub(vec_mul(vec_load(score), factor), lowered));
      total = vec_add(total, weight);
      vec_store(score, weight);
    }
    for (int64_t t = count; t < depth; t++) vec_store(scores + t * kColumns + v, vec_set(0.0f));
    Unit::store_rows(weights + v * Unit::kPair, scores + v, depth);
    vec_store(state.totals + v, total);
  }
  ahead.spread(state.value_rows / Unit::kRows);
  unit.multiply(block.values, kBlockTokens, state.value_rows, weights, depth, columns, state.sums, true, ahead);
}

// Rows [begin, begin + count) of a stream of a sequence, elements of the unit, [count, stride]; columns from `width` on are zero,
// and so are rows up to the next multiple of kDepthStep.
template <typename Unit>
static void gather_rows(const StepContext& context, const Sequence& sequence, const KvCache::Stream& stream, int64_t head, int64_t begin,
                        int64_t count, typename Unit::Element* out, int64_t stride) {
  using Element = typename Unit::Element;
  const KvCache& kv = *context.kv;
  const int64_t width = stream.width;
  for (int64_t t = 0; t < count; t++, out += stride) {
    const uint8_t* block = kv.block(sequence.pages[(begin + t) / kv.page_tokens], stream, head);
    const int64_t at = (begin + t) % kv.page_tokens * width;
    if (kv.type == KvCache::Type::f32) Unit::store(out, reinterpret_cast<const float*>(block) + at, width);
    else Unit::store(out, reinterpret_cast<const uint16_t*>(block) + at, width);
    std::memset(out + width, 0, static_cast<size_t>(stride - width) * sizeof(Element));
  }
  std::memset(out, 0, static_cast<size_t>((pad_depth(count) - count) * stride) * sizeof(Element));
}

template <typename Unit>
class TileCore {
  using Element = typename Unit::Element;
  static constexpr int64_t kColumns = Unit::kColumns;

 public:
  static constexpr int64_t kTileRows = 128;
  static constexpr int64_t kLeastHeads = kColumns;

  static int64_t state_floats(const AttentionPlan& plan, int64_t rows) {
    return panels_of(rows) * PanelState<Unit>::floats(pad_columns(plan.value_width));
  }
  TileCore(const StepContext& context, const AttentionPlan& plan, Carve& carve)
      : unit_(plan.engine), context_(context), plan_(plan), key_width_(pad_depth(plan.key_width)), value_rows_(pad_columns(plan.value_width)) {
    const int64_t value_width = pad_depth(plan.value_width);
    rows_ = carve.take<float>(kLanes * key_width_);
    scores_ = carve.take<float>(kBlockTokens * kColumns);
    weights_ = carve.take<Element>(kBlockTokens * kColumns);
    queries_ = carve.take<Element>(kTileRows * key_width_);
    keys_ = carve.take<Element>(kBlockTokens * key_width_);
    values_ = plan.values_in_keys ? nullptr : carve.take<Element>(kBlockTokens * value_width);
    turned_ = carve.take<Element>(kBlockTokens * value_rows_);
  }

  void load(const AttentionTile& tile) {
    const int64_t rows = tile.rows();
    for (int64_t i = 0; i < panels_of(rows) * kColumns; i += kLanes) {
      for (int64_t r = i; r < i + kLanes; r++) {
        float* row = rows_ + (r - i) * key_width_;
        int64_t width = 0;
        if (r < rows) {
          const float* from = plan_.queries + (tile.first_row + r / tile.heads) * plan_.query_stride +
                              (tile.first_head + r % tile.heads) * plan_.query_head_stride;
          std::memcpy(row, from, static_cast<size_t>(plan_.key_width) * sizeof(float));
          width = plan_.key_width;
        }
        std::memset(row + width, 0, static_cast<size_t>(key_width_ - width) * sizeof(float));
        const int64_t position = context_.batch->positions[tile.first_row + (r < rows ? r : rows - 1) / tile.heads];
        begins_[r] = first_seen(plan_, position);
        ends_[r] = position + 1;
      }
      Unit::pack_columns(rows_, key_width_, key_width_, queries_ + i / kColumns * key_width_ * kColumns + i % kColumns * Unit::kPair);
    }
  }

  void clear(const AttentionTile& tile, float* state) const {
    for (int64_t panel = 0; panel < panels_of(tile.rows()); panel++) {
      const PanelState<Unit> view = panel_of(state, panel);
      view.clear();
      if (plan_.sinks == nullptr) continue;
      for (int64_t i = 0; i < kColumns; i++) {
        view.maxima[i] = plan_.sinks[tile.first_head + (panel * kColumns + i) % tile.heads] * kLog2E;
        view.totals[i] = 1.0f;
      }
    }
  }

  void split(const AttentionTile& tile, int64_t index, float* state) {
    const Sequence& sequence = context_.batch->sequences[tile.sequence];
    const int64_t rows = tile.rows(), size = split_tokens(context_);
    const int64_t limit = ends_[rows - 1], end = (index + 1) * size < limit ? (index + 1) * size : limit;
    for (int64_t panel = 0; panel < panels_of(rows); panel++) panel_of(state, panel).clear();
    for (int64_t start = index * size; start < end; start += kBlockTokens) {
      if (start + kBlockTokens <= begins_[0]) continue;
      const int64_t count = end - start < kBlockTokens ? end - start : kBlockTokens;
      gather_rows<Unit>(context_, sequence, plan_.keys, tile.kv_head, start, count, keys_, key_width_);
      const Element* values = keys_;
      int64_t stride = key_width_;
      if (!plan_.values_in_keys) {
        stride = pad_depth(plan_.value_width);
        gather_rows<Unit>(context_, sequence, plan_.values, tile.kv_head, start, count, values_, stride);
        values = values_;
      }
      Unit::transpose(values, stride, pad_depth(count), value_rows_, turned_, kBlockTokens);
      const ContextBlock<Unit> block = {start, keys_, key_width_, key_width_, turned_};
      Ahead ahead;
      if (const int64_t next = start + kBlockTokens; next < limit) {
        const int64_t more = limit - next < kBlockTokens ? limit - next : kBlockTokens;
        fetch_rows(context_, sequence, plan_.keys, tile.kv_head, next, more, ahead);
        if (!plan_.values_in_keys) fetch_rows(context_, sequence, plan_.values, tile.kv_head, next, more, ahead);
      }
      for (int64_t panel = 0; panel < panels_of(rows); panel++) {
        const int64_t first = panel * kColumns, columns = rows - first < kColumns ? rows - first : kColumns;
        attend_block<Unit>(unit_, block, queries_ + panel * key_width_ * kColumns, columns, begins_ + first, ends_ + first, plan_.scale, scores_,
                           weights_, panel_of(state, panel), ahead);
      }
    }
  }

  void fold(const AttentionTile& tile, int64_t, float* into, const float* part) const {
    for (int64_t panel = 0; panel < panels_of(tile.rows()); panel++) panel_of(into, panel).fold(panel_of(const_cast<float*>(part), panel));
  }

  void store(const AttentionTile& tile, const float* state) const {
    for (int64_t i = 0; i < tile.rows(); i++) {
      const PanelState<Unit> view = panel_of(const_cast<float*>(state), i / kColumns);
      const int64_t column = i % kColumns;
      float* out = plan_.out + (tile.first_row + i / tile.heads) * plan_.out_stride + (tile.first_head + i % tile.heads) * plan_.out_head_stride;
      for (int64_t c = 0; c < plan_.value_width; c++) out[c] = view.sums[c * kColumns + column] / view.totals[column];
    }
  }

 private:
  static int64_t panels_of(int64_t rows) { return (rows + kColumns - 1) / kColumns; }
  PanelState<Unit> panel_of(float* state, int64_t panel) const {
    return PanelState<Unit>::at(state + panel * PanelState<Unit>::floats(value_rows_), value_rows_);
  }

  Unit unit_;
  const StepContext& context_;
  const AttentionPlan& plan_;
  int64_t key_width_, value_rows_;
  float *rows_, *scores_;
  Element *weights_, *queries_, *keys_, *values_, *turned_;
  int64_t begins_[kTileRows], ends_[kTileRows];
};

// Whether `rows` rows of a sequence are attended on panels: fast mode allows it from `tiles` rows on (0: never), and it pays
// where they fill the lanes, `heads` columns each.
template <typename Unit>
static bool panels_pay(int64_t tiles, int64_t rows, int64_t heads) {
  return tiles > 0 && rows >= tiles && rows * heads >= kLanes;
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
