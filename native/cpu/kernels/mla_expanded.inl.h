// mla in its expanded form, for long passes in fast mode. A head's weights are decoded into panels once and walk the context in
// blocks:
//
//     K | V [tokens, nope | value] = latent [tokens, latent] · W        one block, for all rows
//     sums, maxima, totals         ← the block (attention_tiles.inl.h)  per panel of rows
//
// Per context position a head costs latent · (nope + value) multiplications once, and nope + rope + value for every row that
// sees it, instead of 2 · latent + rope in the absorbed form. Memory does not grow with the context. A thread takes whole
// heads; where those would leave threads idle, all share the blocks and rows of some heads, and nothing is expanded twice.
#pragma once

#include "cpu/kernels/attention_tiles.inl.h"
#include "cpu/kernels/mla_weights.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kExpandedRows = 16;  // fewer leave most of a panel empty
constexpr int64_t kExpandedBytes = int64_t{64} << 20;  // of the heads that go together
constexpr int64_t kSegmentBlocks = 8;  // at least
constexpr int64_t kJobPanels = 4;      // at most: each block is read once for so many
constexpr int64_t kJobsPerThread = 4;  // at least, so that threads end together

// Whether expanding costs fewer multiplications than absorbing: the absorbed form multiplies every row with the weights, the
// expanded one every position of the context.
static bool expansion_pays(const MlaShape& shape, int64_t rows, int64_t first_position) {
  if (rows < kExpandedRows) return false;
  const double pairs = static_cast<double>(rows) * (static_cast<double>(first_position) + 0.5 * static_cast<double>(rows));
  const double saved = static_cast<double>(2 * shape.latent + shape.rope - (shape.nope + shape.rope + shape.value));
  return saved * pairs > static_cast<double>(first_position * shape.latent) * static_cast<double>(shape.nope + shape.value);
}

// One block of the context of a sequence.
struct ExpandedBlock {
  int64_t sequence, start, count;
};

// Query rows that one job attends: rows of the batch [first_row, first_row + rows); `panel`: the first of theirs among all.
struct ExpandedRows {
  int64_t sequence, first_row, rows, panel;
};

// Sizes in elements of what heads and threads hold.
template <typename Unit>
struct ExpandedSizes {
  static constexpr int64_t kColumns = Unit::kColumns;
  // Columns in whole panels.
  static int64_t whole(int64_t columns) { return (columns + kColumns - 1) / kColumns * kColumns; }

  explicit ExpandedSizes(const MlaShape& shape)
      : key_width(pad_depth(shape.nope + shape.rope)), value_rows(pad_columns(shape.value)), depth(pad_depth(shape.latent)),
        latent_stride(pad_depth(shape.latent + shape.rope)), nope_width(whole(shape.nope)), value_width(whole(shape.value)),
        up((nope_width + value_width) * depth), panel(key_width * kColumns), state(PanelState<Unit>::floats(value_rows)),
        keys(kBlockTokens * key_width), values(kBlockTokens * value_rows) {}

  int64_t key_width, value_rows, depth, latent_stride, nope_width, value_width;
  int64_t up;            // weights of a head as panels: nope, padded to whole panels, then value, likewise
  int64_t panel, state;  // queries and softmax of a panel of rows
  int64_t keys, values;  // of a block: [kBlockTokens, key_width] and [value_rows, kBlockTokens]
};

// What threads share: [head of the group][...].
template <typename Unit>
struct ExpandedMemory {
  using Element = typename Unit::Element;
  Element *up, *queries, *keys, *values;
  float* states;
  int64_t panels, blocks;  // of a head, in a segment

  ExpandedMemory(const ExpandedSizes<Unit>& sizes, int64_t heads, int64_t panels, int64_t blocks, Carve& carve) : panels(panels), blocks(blocks) {
    up = carve.take<Element>(heads * sizes.up);
    queries = carve.take<Element>(heads * panels * sizes.panel);
    keys = carve.take<Element>(heads * blocks * sizes.keys);
    values = carve.take<Element>(heads * blocks * sizes.values);
    states = carve.take<float>(heads * panels * sizes.state);
  }
};

// The work of one thread.
template <typename Unit>
class ExpandedMla {
  using Element = typename Unit::Element;
  static constexpr int64_t kColumns = Unit::kColumns;

 public:
  ExpandedMla(const StepContext& context, const AttentionPlan& plan, const MlaShape& shape, const MlaWeights& weights, const ExpandedMemory<Unit>& shared,
              Carve& carve)
      : unit_(plan.engine), context_(context), plan_(plan), shape_(shape), weights_(weights), sizes_(shape), shared_(shared) {
    const int64_t widest = sizes_.depth > sizes_.key_width ? sizes_.depth : sizes_.key_width;
    floats_ = carve.take<float>(kLanes * widest > 2 * sizes_.nope_width ? kLanes * widest : 2 * sizes_.nope_width);
    scores_ = carve.take<float>(kBlockTokens * kColumns);
    weights_of_block_ = carve.take<Element>(kBlockTokens * kColumns);
    latents_ = carve.take<Element>(kBlockTokens * sizes_.latent_stride);
    values_ = carve.take<Element>(kBlockTokens * sizes_.value_width);
    gathered_ = carve.take<ExpandedBlock>(1);
  }

  // The block whose latents the thread has at hand: none at first.
  void forget() { gathered_->sequence = -1; }

  // Weights of the keys, or of the values, of head `head`, the group's g-th.
  void load_weights(int64_t g, int64_t head, bool of_values) {
    const int64_t depth = sizes_.depth;
    Element* panels = shared_.up + g * sizes_.up + (of_values ? sizes_.nope_width * depth : 0);
    const auto pack = [&](const BoundWeight& weight, int64_t e, int64_t first, int64_t count) {
      for (int64_t i = 0; i < ExpandedSizes<Unit>::whole(count); i += kLanes) {
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
    if (weights_.kv_b != nullptr) {
      const int64_t first = head * (shape_.nope + shape_.value);
      if (of_values) pack(*weights_.kv_b, 0, first + shape_.nope, shape_.value);
      else pack(*weights_.kv_b, 0, first, shape_.nope);
      return;
    }
    if (of_values) return pack(*weights_.v_b, head, 0, shape_.value);
    // W_UK lies transposed: its rows are those of the panels.
    const int64_t padded = sizes_.nope_width;
    for (int64_t l = 0; l < depth; l += 2) {
      for (int64_t r = 0; r < 2; r++) {
        float* row = floats_ + r * padded;
        if (l + r < shape_.latent) decode_panel(*weights_.k_b, head, l + r, 1, shape_.latent, {0, shape_.nope}, row);
        const int64_t filled = l + r < shape_.latent ? shape_.nope : 0;
        std::memset(row + filled, 0, static_cast<size_t>(padded - filled) * sizeof(float));
      }
      for (int64_t c = 0; c < padded; c += kLanes) {
        Element* to = panels + c / kColumns * depth * kColumns + l * kColumns + c % kColumns * Unit::kPair;
        Unit::store_pair(to, vec_load(floats_ + c), vec_load(floats_ + padded + c));
      }
    }
  }

  // Keys and values of a block for the group's g-th head, as the b-th of the segment.
  void expand(int64_t g, const ExpandedBlock& block, int64_t b) {
    if (gathered_->sequence != block.sequence || gathered_->start != block.start) {
      const Sequence& sequence = context_.batch->sequences[block.sequence];
      gather_rows<Unit>(context_, sequence, plan_.keys, 0, block.start, block.count, latents_, sizes_.latent_stride);
      *gathered_ = block;
    }
    const int64_t key_width = sizes_.key_width, value_width = sizes_.value_width, tokens = pad_depth(block.count);
    Element *keys = keys_of(g, b), *up = shared_.up + g * sizes_.up;
    Ahead ahead;
    const auto multiply = [&](int64_t width, const Element* panels, Element* out, int64_t out_stride) {
      for (int64_t c = 0; c < width; c += kColumns) {
        const int64_t wanted = width - c < kColumns ? width - c : kColumns;
        unit_.multiply(latents_, sizes_.latent_stride, tokens, panels + c * sizes_.depth, sizes_.depth, wanted, scores_, false, ahead);
        for (int64_t t = 0; t < tokens; t++) Unit::store(out + t * out_stride + c, scores_ + t * kColumns, wanted);
      }
    };
    multiply(shape_.nope, up, keys, key_width);
    multiply(shape_.value, up + sizes_.nope_width * sizes_.depth, values_, value_width);
    for (int64_t t = 0; t < tokens; t++) {
      Element* row = keys + t * key_width;
      std::memcpy(row + shape_.nope, latents_ + t * sizes_.latent_stride + shape_.latent, static_cast<size_t>(shape_.rope) * sizeof(Element));
      for (int64_t c = shape_.nope + shape_.rope; c < key_width; c++) row[c] = 0;
      for (int64_t c = shape_.value; c < value_width; c++) values_[t * value_width + c] = 0;
    }
    Unit::transpose(values_, value_width, tokens, sizes_.value_rows, values_of(g, b), kBlockTokens);
  }

  // Rows of head `head` against those blocks of the segment that are their sequence's; loads their queries before the first block
  // of the context, stores their results after the last.
  void attend(int64_t g, int64_t head, const ExpandedRows& rows, const ExpandedBlock* blocks, int64_t count) {
    const Sequence& sequence = context_.batch->sequences[rows.sequence];
    const int64_t first = context_.batch->positions[rows.first_row], length = sequence.first_position + sequence.rows;
    const int64_t panels = sizes_.whole(rows.rows) / kColumns, panel = g * shared_.panels + rows.panel;
    int64_t begins[kColumns] = {}, ends[kColumns];
    for (int64_t b = 0; b < count; b++) {
      const ExpandedBlock& block = blocks[b];
      if (block.sequence != rows.sequence) continue;
      if (block.start == 0) {
        load_queries(rows, head, panel);
        for (int64_t p = 0; p < panels; p++) state(panel + p).clear();
      }
      const ContextBlock<Unit> expanded = {block.start, keys_of(g, b), sizes_.key_width, sizes_.key_width, values_of(g, b)};
      Ahead ahead;
      for (int64_t p = 0; p < panels; p++) {
        const int64_t columns = rows.rows - p * kColumns < kColumns ? rows.rows - p * kColumns : kColumns;
        for (int64_t i = 0; i < columns; i++) ends[i] = first + p * kColumns + i + 1;
        attend_block<Unit>(unit_, expanded, shared_.queries + (panel + p) * sizes_.panel, columns, begins, ends, plan_.scale, scores_, weights_of_block_,
                           state(panel + p), ahead);
      }
      if (block.start + block.count == length) store(rows, head, panel);
    }
  }

 private:
  Element* keys_of(int64_t g, int64_t b) const { return shared_.keys + (g * shared_.blocks + b) * sizes_.keys; }
  Element* values_of(int64_t g, int64_t b) const { return shared_.values + (g * shared_.blocks + b) * sizes_.values; }
  PanelState<Unit> state(int64_t panel) const { return PanelState<Unit>::at(shared_.states + panel * sizes_.state, sizes_.value_rows); }

  void load_queries(const ExpandedRows& rows, int64_t head, int64_t panel) {
    const int64_t width = shape_.nope + shape_.rope, padded = sizes_.key_width;
    Element* to = shared_.queries + panel * sizes_.panel;
    for (int64_t i = 0; i < sizes_.whole(rows.rows); i += kLanes) {
      for (int64_t r = i; r < i + kLanes; r++) {
        float* row = floats_ + (r - i) * padded;
        const int64_t filled = r < rows.rows ? width : 0;
        std::memcpy(row, plan_.queries + (rows.first_row + r) * plan_.query_stride + head * plan_.query_head_stride,
                    static_cast<size_t>(filled) * sizeof(float));
        std::memset(row + filled, 0, static_cast<size_t>(padded - filled) * sizeof(float));
      }
      Unit::pack_columns(floats_, padded, padded, to + i / kColumns * sizes_.panel + i % kColumns * Unit::kPair);
    }
  }

  void store(const ExpandedRows& rows, int64_t head, int64_t panel) const {
    for (int64_t r = 0; r < rows.rows; r++) {
      const PanelState<Unit> from = state(panel + r / kColumns);
      const int64_t column = r % kColumns;
      float* out = plan_.out + (rows.first_row + r) * plan_.out_stride + head * plan_.out_head_stride;
      for (int64_t c = 0; c < shape_.value; c++) out[c] = from.sums[c * kColumns + column] / from.totals[column];
    }
  }

  Unit unit_;
  const StepContext& context_;
  const AttentionPlan& plan_;
  const MlaShape& shape_;
  const MlaWeights& weights_;
  const ExpandedSizes<Unit> sizes_;
  const ExpandedMemory<Unit> shared_;
  float *floats_, *scores_;
  Element *weights_of_block_, *latents_, *values_;
  ExpandedBlock* gathered_;
};

// Attends the plan's sequences.
template <typename Unit>
static Status attend_expanded(StepContext& context, const AttentionPlan& plan, const MlaShape& shape, const MlaWeights& weights) {
  constexpr int64_t kColumns = Unit::kColumns;
  const std::vector<Sequence>& sequences = context.batch->sequences;
  const int64_t threads = context.pool->threads(), wanted_jobs = kJobsPerThread * threads;
  const ExpandedSizes<Unit> sizes(shape);
  const auto attended = [&](size_t s) { return plan.modes[s] == plan.mode && !(context.dead != nullptr && context.dead[s]); };
  int64_t panels = 0, block_count = 0;
  for (size_t s = 0; s < sequences.size(); s++) {
    if (!attended(s)) continue;
    panels += sizes.whole(sequences[s].rows) / kColumns;
    block_count += (sequences[s].first_position + sequences[s].rows + kBlockTokens - 1) / kBlockTokens;
  }
  if (panels == 0) return {};

  // Where heads fill the threads, each thread takes whole heads, block by block, and what it needs stays in its cache. Else all
  // share some heads at a time, about as many each time, and segments of several blocks, more where heads are few.
  const int64_t rounds = (plan.heads + threads - 1) / threads;
  const bool apart = 10 * plan.heads >= 9 * rounds * threads;
  const auto bytes_of = [&](int64_t heads, int64_t blocks) {
    Carve carve;
    ExpandedMemory<Unit>(sizes, heads, panels, blocks, carve);
    return carve.floats * static_cast<int64_t>(sizeof(float));
  };
  int64_t group = apart ? 1 : kExpandedBytes / bytes_of(1, kSegmentBlocks);
  group = group < 1 ? 1 : group < plan.heads ? group : plan.heads;
  const int64_t groups = (plan.heads + group - 1) / group;
  group = (plan.heads + groups - 1) / groups;
  int64_t segment = (wanted_jobs + group - 1) / group;
  segment = segment < kSegmentBlocks ? kSegmentBlocks : segment;
  segment = apart ? 1 : segment < block_count ? segment : block_count;
  int64_t job_panels = panels * group / wanted_jobs;
  job_panels = job_panels < 1 ? 1 : job_panels < kJobPanels ? job_panels : kJobPanels;

  ExpandedBlock* blocks = context.scratch->take_array<ExpandedBlock>(static_cast<size_t>(block_count));
  ExpandedRows* rows = context.scratch->take_array<ExpandedRows>(static_cast<size_t>(panels));
  // What is shared lies once, or once for each thread.
  const int64_t shared_floats = bytes_of(group, segment) / static_cast<int64_t>(sizeof(float));
  float* shared_memory = context.scratch->take_array<float>(static_cast<size_t>((apart ? threads : 1) * shared_floats));
  const auto shared_of = [&](int64_t thread) {
    Carve carve = {shared_memory + (apart ? thread : 0) * shared_floats, 0};
    return ExpandedMemory<Unit>(sizes, group, panels, segment, carve);
  };
  Carve counted;
  ExpandedMla<Unit>(context, plan, shape, weights, shared_of(0), counted);
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * counted.floats));
  if (blocks == nullptr || rows == nullptr || shared_memory == nullptr || memory == nullptr)
    return Status(Code::out_of_memory, "[native] scratch memory for mla; the machine refused; use smaller batches");
  int64_t block = 0, row_jobs = 0, panel = 0;
  for (size_t s = 0; s < sequences.size(); s++) {
    if (!attended(s)) continue;
    const Sequence& sequence = sequences[s];
    const int64_t length = sequence.first_position + sequence.rows, index = static_cast<int64_t>(s);
    for (int64_t start = 0; start < length; start += kBlockTokens)
      blocks[block++] = {index, start, length - start < kBlockTokens ? length - start : kBlockTokens};
    for (int64_t first = 0; first < sequence.rows; first += job_panels * kColumns) {
      const int64_t left = sequence.rows - first, size = left < job_panels * kColumns ? left : job_panels * kColumns;
      rows[row_jobs++] = {index, sequence.first_row + first, size, panel};
      panel += sizes.whole(size) / kColumns;
    }
  }

  // body(mine, i) for i in [0, count), `mine` of the thread that does it.
  const auto for_jobs = [&](int64_t count, auto&& body) {
    context.pool->parallel_for(count, 1, [&](int64_t begin, int64_t end, int thread) {
      Carve carve = {memory + thread * counted.floats, 0};
      ExpandedMla<Unit> mine(context, plan, shape, weights, shared_of(thread), carve);
      for (int64_t i = begin; i < end; i++) body(mine, i);
    });
  };
  for (int64_t t = 0; t < threads; t++) {
    Carve carve = {memory + t * counted.floats, 0};
    ExpandedMla<Unit>(context, plan, shape, weights, shared_of(t), carve).forget();
  }
  if (apart) {
    for_jobs(plan.heads, [&](ExpandedMla<Unit>& mine, int64_t head) {
      for (const bool of_values : {false, true}) mine.load_weights(0, head, of_values);
      for (int64_t b = 0; b < block_count; b++) {
        mine.expand(0, blocks[b], 0);
        for (int64_t r = 0; r < row_jobs; r++) mine.attend(0, head, rows[r], blocks + b, 1);
      }
    });
    return {};
  }
  for (int64_t head = 0; head < plan.heads; head += group) {
    const int64_t heads = plan.heads - head < group ? plan.heads - head : group;
    for_jobs(2 * heads, [&](ExpandedMla<Unit>& mine, int64_t i) { mine.load_weights(i / 2, head + i / 2, i % 2 == 1); });
    for (int64_t first = 0; first < block_count; first += segment) {
      const int64_t count = block_count - first < segment ? block_count - first : segment;
      for_jobs(count * heads, [&](ExpandedMla<Unit>& mine, int64_t i) { mine.expand(i % heads, blocks[first + i / heads], i / heads); });
      for_jobs(heads * row_jobs, [&](ExpandedMla<Unit>& mine, int64_t i) {
        mine.attend(i / row_jobs, head + i / row_jobs, rows[i % row_jobs], blocks + first, count);
      });
    }
  }
  return {};
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
