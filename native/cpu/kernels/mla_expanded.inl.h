// mla in its expanded form, for long passes in fast mode: a thread takes one head of one sequence, decodes the head's weights
// into panels once, and walks the context in blocks:
//
//     K | V [tokens, nope | value] = latent [tokens, latent] · W        one block, for all rows of the sequence
//     sums, maxima, totals         ← the block (attention_tiles.inl.h)  per panel of rows
//
// Per context position a head costs latent · (nope + value) multiplications once, and nope + rope + value for every row that
// sees it, instead of 2 · latent + rope in the absorbed form. Memory does not grow with the context.
#pragma once

#include "cpu/kernels/attention_tiles.inl.h"
#include "cpu/kernels/mla_weights.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kExpandedRows = 16;  // fewer leave most of a panel empty

// Whether expanding costs fewer multiplications than absorbing: the absorbed form multiplies every row with the weights, the
// expanded one every position of the context.
static bool expansion_pays(const MlaShape& shape, int64_t rows, int64_t first_position) {
  if (rows < kExpandedRows) return false;
  const double pairs = static_cast<double>(rows) * (static_cast<double>(first_position) + 0.5 * static_cast<double>(rows));
  const double saved = static_cast<double>(2 * shape.latent + shape.rope - (shape.nope + shape.rope + shape.value));
  return saved * pairs > static_cast<double>(first_position * shape.latent) * static_cast<double>(shape.nope + shape.value);
}

struct ExpandedJob {
  int64_t sequence, first_row, rows, head;  // rows of the batch [first_row, first_row + rows)
};

template <typename Unit>
class ExpandedMla {
  using Element = typename Unit::Element;
  static constexpr int64_t kColumns = Unit::kColumns;

 public:
  // most_rows: of one job.
  ExpandedMla(const StepContext& context, const AttentionPlan& plan, const MlaShape& shape, const MlaWeights& weights, int64_t most_rows,
              Carve& carve)
      : unit_(plan.engine), context_(context), plan_(plan), shape_(shape), weights_(weights) {
    const int64_t key_width = pad_depth(shape.nope + shape.rope), depth = pad_depth(shape.latent);
    const int64_t nope_width = whole(shape.nope), value_width = whole(shape.value), panels = whole(most_rows) / kColumns;
    const int64_t widest = depth > key_width ? depth : key_width;
    floats_ = carve.take<float>(kLanes * widest > 2 * nope_width ? kLanes * widest : 2 * nope_width);
    scores_ = carve.take<float>(kBlockTokens * kColumns);
    weights_of_block_ = carve.take<Element>(kBlockTokens * kColumns);
    latents_ = carve.take<Element>(kBlockTokens * pad_depth(shape.latent + shape.rope));
    keys_ = carve.take<Element>(kBlockTokens * key_width);
    values_ = carve.take<Element>(kBlockTokens * value_width);
    turned_ = carve.take<Element>(kBlockTokens * pad_columns(shape.value));
    up_ = carve.take<Element>((nope_width + value_width) * depth);
    queries_ = carve.take<Element>(panels * kColumns * key_width);
    states_ = carve.take<float>(panels * PanelState<Unit>::floats(pad_columns(shape.value)));
  }

  void run(const ExpandedJob& job) {
    const Sequence& sequence = context_.batch->sequences[job.sequence];
    const int64_t first = context_.batch->positions[job.first_row], length = first + job.rows;
    const int64_t key_width = pad_depth(shape_.nope + shape_.rope);
    const int64_t panels = (job.rows + kColumns - 1) / kColumns;
    load_queries(job, panels);
    load_weights(job.head);
    for (int64_t p = 0; p < panels; p++) state(p).clear();
    int64_t begins[kColumns], ends[kColumns];
    for (int64_t i = 0; i < kColumns; i++) begins[i] = 0;
    for (int64_t start = 0; start < length; start += kBlockTokens) {
      const int64_t count = length - start < kBlockTokens ? length - start : kBlockTokens;
      expand_block(sequence, start, count);
      Ahead ahead;
      const ContextBlock<Unit> block = {start, keys_, key_width, key_width, turned_};
      for (int64_t p = 0; p < panels; p++) {
        const int64_t columns = job.rows - p * kColumns < kColumns ? job.rows - p * kColumns : kColumns;
        for (int64_t i = 0; i < columns; i++) ends[i] = first + p * kColumns + i + 1;
        attend_block<Unit>(unit_, block, queries_ + p * key_width * kColumns, columns, begins, ends, plan_.scale, scores_, weights_of_block_, state(p), ahead);
      }
    }
    for (int64_t r = 0; r < job.rows; r++) {
      const PanelState<Unit> from = state(r / kColumns);
      const int64_t column = r % kColumns;
      float* out = plan_.out + (job.first_row + r) * plan_.out_stride + job.head * plan_.out_head_stride;
      for (int64_t c = 0; c < shape_.value; c++) out[c] = from.sums[c * kColumns + column] / from.totals[column];
    }
  }

 private:
  PanelState<Unit> state(int64_t panel) const {
    const int64_t rows = pad_columns(shape_.value);
    return PanelState<Unit>::at(states_ + panel * PanelState<Unit>::floats(rows), rows);
  }

  void load_queries(const ExpandedJob& job, int64_t panels) {
    const int64_t width = shape_.nope + shape_.rope, padded = pad_depth(width);
    for (int64_t i = 0; i < panels * kColumns; i += kLanes) {
      for (int64_t r = i; r < i + kLanes; r++) {
        float* row = floats_ + (r - i) * padded;
        const int64_t filled = r < job.rows ? width : 0;
        std::memcpy(row, plan_.queries + (job.first_row + r) * plan_.query_stride + job.head * plan_.query_head_stride,
                    static_cast<size_t>(filled) * sizeof(float));
        std::memset(row + filled, 0, static_cast<size_t>(padded - filled) * sizeof(float));
      }
      Unit::pack_columns(floats_, padded, padded, queries_ + i / kColumns * padded * kColumns + i % kColumns * Unit::kPair);
    }
  }

  // Columns of the panels: nope, padded to whole panels, then value, likewise.
  void load_weights(int64_t head) {
    const int64_t depth = pad_depth(shape_.latent);
    const auto pack = [&](const BoundWeight& weight, int64_t e, int64_t first, int64_t count, Element* panels) {
      for (int64_t i = 0; i < whole(count); i += kLanes) {
        const int64_t rows = count - i < 0 ? 0 : count - i < kLanes ? count - i : kLanes;
        for (int64_t r = 0; r < kLanes; r++) {
          float* row = floats_ + r * depth;
          if (r < rows) decode_panel(weight, e, first + i + r, 1, first + count, {0, shape_.latent}, row);
          const int64_t filled = r < rows ? shape_.latent : 0;
          std::memset(row + filled, 0, static_cast<size_t>(depth - filled) * sizeof(float));
        }
        Unit::pack_columns(floats_, depth, depth, panels + i / kColumns * depth * kColumns + i % kColumns * Unit::kPair);
      }
    };
    Element* value_panels = up_ + whole(shape_.nope) * depth;
    if (weights_.kv_b != nullptr) {
      const int64_t first = head * (shape_.nope + shape_.value);
      pack(*weights_.kv_b, 0, first, shape_.nope, up_);
      pack(*weights_.kv_b, 0, first + shape_.nope, shape_.value, value_panels);
      return;
    }
    pack(*weights_.v_b, head, 0, shape_.value, value_panels);
    // W_UK lies transposed: its rows are those of the panels.
    const int64_t padded = whole(shape_.nope);
    for (int64_t l = 0; l < depth; l += 2) {
      for (int64_t r = 0; r < 2; r++) {
        float* row = floats_ + r * padded;
        if (l + r < shape_.latent) decode_panel(*weights_.k_b, head, l + r, 1, shape_.latent, {0, shape_.nope}, row);
        const int64_t filled = l + r < shape_.latent ? shape_.nope : 0;
        std::memset(row + filled, 0, static_cast<size_t>(padded - filled) * sizeof(float));
      }
      for (int64_t c = 0; c < padded; c += kLanes) {
        Element* to = up_ + c / kColumns * depth * kColumns + l * kColumns + c % kColumns * Unit::kPair;
        Unit::store_pair(to, vec_load(floats_ + c), vec_load(floats_ + padded + c));
      }
    }
  }

  // keys_ and turned_ of positions [start, start + count).
  void expand_block(const Sequence& sequence, int64_t start, int64_t count) {
    const int64_t key_width = pad_depth(shape_.nope + shape_.rope), value_width = whole(shape_.value);
    const int64_t depth = pad_depth(shape_.latent), stride = pad_depth(shape_.latent + shape_.rope), tokens = pad_depth(count);
    gather_rows<Unit>(context_, sequence, plan_.keys, 0, start, count, latents_, stride);
    Ahead ahead;
    const auto multiply = [&](int64_t width, const Element* panels, Element* out, int64_t out_stride) {
      for (int64_t c = 0; c < width; c += kColumns) {
        const int64_t wanted = width - c < kColumns ? width - c : kColumns;
        unit_.multiply(latents_, stride, tokens, panels + c * depth, depth, wanted, scores_, false, ahead);
        for (int64_t t = 0; t < tokens; t++) Unit::store(out + t * out_stride + c, scores_ + t * kColumns, wanted);
      }
    };
    multiply(shape_.nope, up_, keys_, key_width);
    multiply(shape_.value, up_ + whole(shape_.nope) * depth, values_, value_width);
    for (int64_t t = 0; t < tokens; t++) {
      Element* row = keys_ + t * key_width;
      std::memcpy(row + shape_.nope, latents_ + t * stride + shape_.latent, static_cast<size_t>(shape_.rope) * sizeof(Element));
      for (int64_t c = shape_.nope + shape_.rope; c < key_width; c++) row[c] = 0;
      for (int64_t c = shape_.value; c < value_width; c++) values_[t * value_width + c] = 0;
    }
    Unit::transpose(values_, value_width, tokens, pad_columns(shape_.value), turned_, kBlockTokens);
  }

  // Columns in whole panels.
  static int64_t whole(int64_t columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

  Unit unit_;
  const StepContext& context_;
  const AttentionPlan& plan_;
  const MlaShape& shape_;
  const MlaWeights& weights_;
  float *floats_, *scores_, *states_;
  Element *weights_of_block_, *latents_, *keys_, *values_, *turned_, *up_, *queries_;
};

// Attends the plan's sequences.
template <typename Unit>
static Status attend_expanded(StepContext& context, const AttentionPlan& plan, const MlaShape& shape, const MlaWeights& weights) {
  const std::vector<Sequence>& sequences = context.batch->sequences;
  const int64_t threads = context.pool->threads();
  // Rows are cut where heads alone would leave threads idle; every piece expands the context anew.
  int64_t chosen = 0, most_rows = 0;
  const auto attended = [&](size_t s) { return plan.modes[s] == plan.mode && !(context.dead != nullptr && context.dead[s]); };
  for (size_t s = 0; s < sequences.size(); s++) chosen += attended(s);
  if (chosen == 0) return {};
  const int64_t pieces = (threads + chosen * plan.heads - 1) / (chosen * plan.heads);
  const auto piece_rows = [&](const Sequence& sequence) {
    const int64_t rows = (sequence.rows + pieces - 1) / pieces;
    return (rows + Unit::kColumns - 1) / Unit::kColumns * Unit::kColumns;
  };
  int64_t count = 0;
  for (size_t s = 0; s < sequences.size(); s++) {
    if (!attended(s)) continue;
    const int64_t rows = piece_rows(sequences[s]);
    count += (sequences[s].rows + rows - 1) / rows * plan.heads;
    most_rows = rows > most_rows ? rows : most_rows;
  }
  Carve counted;
  ExpandedMla<Unit>(context, plan, shape, weights, most_rows, counted);
  ExpandedJob* jobs = context.scratch->take_array<ExpandedJob>(static_cast<size_t>(count));
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * counted.floats));
  if (jobs == nullptr || memory == nullptr)
    return Status(Code::out_of_memory, "[native] scratch memory for mla; the machine refused; use smaller batches");
  int64_t job = 0;
  for (size_t s = 0; s < sequences.size(); s++) {
    if (!attended(s)) continue;
    const int64_t rows = piece_rows(sequences[s]);
    for (int64_t first = 0; first < sequences[s].rows; first += rows) {
      const int64_t size = sequences[s].rows - first < rows ? sequences[s].rows - first : rows;
      for (int64_t h = 0; h < plan.heads; h++) jobs[job++] = {static_cast<int64_t>(s), sequences[s].first_row + first, size, h};
    }
  }
  context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
    Carve carve = {memory + thread * counted.floats, 0};
    ExpandedMla<Unit> mine(context, plan, shape, weights, most_rows, carve);
    for (int64_t i = begin; i < end; i++) mine.run(jobs[i]);
  });
  return {};
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
