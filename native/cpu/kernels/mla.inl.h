// mla: multi-head latent attention. In its absorbed form, except where fast mode allows to expand (mla_expanded.inl.h):
//
//     q~ = q_nope · W_UK ‖ q_rope     [T, heads, latent + rope]   absorb
//     a  = attend the shared latent   [T, heads, latent]          attention_core, in place of q~
//     y  = a · W_UV                   [T, heads, value]           expand
//
// A weight row is decoded to f32 once per pass (per kRowChunk rows of long passes). Heads go in chunks whose q~ fits kQueryBytes.
#pragma once

#include "cpu/kernels/attention_exact.inl.h"
#include "cpu/kernels/attention_tiles.inl.h"
#include "cpu/kernels/mla_expanded.inl.h"
#include "cpu/kernels/mla_weights.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kPanelRows = 32;    // decoded weight rows at a time: 64 KB for a latent of 512
constexpr int64_t kFewPanelRows = 8;  // the same for passes of up to kFewRows rows
constexpr int64_t kFewRows = 8;
constexpr int64_t kRowChunk = 256;    // rows of the pass that share a decoded panel
constexpr int64_t kLatentPart = 256;  // columns of the latent, whole blocks of every format
constexpr int64_t kValuePart = 32;
constexpr int64_t kQueryBytes = int64_t{64} << 20;

// Memory of one thread: a panel of weights, and rows of activations padded for it.
struct MlaScratch {
  float *panel, *rows, *results;
};

// Columns `part` of q~ of rows [begin, end) for one head; `queries` points at the head's q~ of row 0.
static void absorb(const MatrixView& q, int64_t begin, int64_t end, int64_t head, const BoundWeight* kv_b, const BoundWeight* k_b,
                   const MlaShape& shape, Span part, const MlaScratch& scratch, float* queries, int64_t query_stride) {
  const int64_t count = end - begin, width = shape.nope + shape.rope, columns = pad_columns(part.size());
  const int64_t panel_rows = count <= kFewRows ? kFewPanelRows : kPanelRows;
  const float* from = q.row(begin) + head * width;
  float* to = queries + begin * query_stride;
  if (kv_b != nullptr && is_fused(*kv_b, count)) {
    fused_weighted_rows(*kv_b, head * (shape.nope + shape.value), shape.nope, part, from, scratch.results);
  } else if (kv_b != nullptr) {
    // Σ_d q[d] · row d, added up in the order of d; sums start in scratch, where padding does no harm.
    std::memset(scratch.results, 0, static_cast<size_t>(count * columns) * sizeof(float));
    const int64_t first = head * (shape.nope + shape.value);
    for (int64_t d = 0; d < shape.nope; d += panel_rows) {
      const int64_t rows = shape.nope - d < panel_rows ? shape.nope - d : panel_rows;
      decode_panel(*kv_b, 0, first + d, rows, first + shape.nope, part, scratch.panel);
      add_weighted_rows(scratch.results, columns, count, columns, from + d, q.stride, scratch.panel, columns, rows);
    }
  } else {
    const int64_t padded = pad_columns(shape.nope);
    for (int64_t t = 0; t < count; t++) {
      float* row = scratch.rows + t * padded;
      std::memcpy(row, from + t * q.stride, static_cast<size_t>(shape.nope) * sizeof(float));
      for (int64_t c = shape.nope; c < padded; c++) row[c] = 0.0f;
    }
    for (int64_t l = part.begin; l < part.end; l += panel_rows) {
      const int64_t rows = part.end - l < panel_rows ? part.end - l : panel_rows;
      decode_panel(*k_b, head, l, rows, part.end, {0, shape.nope}, scratch.panel);
      dot_products(scratch.rows, padded, count, scratch.panel, padded, rows, padded, scratch.results + l - part.begin, columns);
    }
  }
  for (int64_t t = 0; t < count; t++) {
    float* row = to + t * query_stride;
    std::memcpy(row + part.begin, scratch.results + t * columns, static_cast<size_t>(part.size()) * sizeof(float));
    if (part.begin > 0) continue;
    std::memcpy(row + shape.latent, from + t * q.stride + shape.nope, static_cast<size_t>(shape.rope) * sizeof(float));
  }
}

// Columns `part` of the results of rows [begin, end) for one head; `attended` points at the head's latent of row 0.
static void expand(const float* attended, int64_t stride, int64_t begin, int64_t end, int64_t head, const BoundWeight* kv_b,
                   const BoundWeight* v_b, const MlaShape& shape, Span part, const MlaScratch& scratch, const MatrixView& out) {
  const int64_t count = end - begin, latent = pad_columns(shape.latent);
  const BoundWeight& weight = kv_b != nullptr ? *kv_b : *v_b;
  const bool fused = is_fused(weight, count);
  const int64_t panel_rows = count <= kFewRows && !fused ? kFewPanelRows : kPanelRows;
  const int64_t matrix = kv_b != nullptr ? 0 : head, first = kv_b != nullptr ? head * (shape.nope + shape.value) + shape.nope : 0;
  for (int64_t t = 0; t < count; t++) {
    float* row = scratch.rows + t * latent;
    std::memcpy(row, attended + (begin + t) * stride, static_cast<size_t>(shape.latent) * sizeof(float));
    for (int64_t c = shape.latent; c < latent; c++) row[c] = 0.0f;
  }
  for (int64_t v = part.begin; v < part.end; v += panel_rows) {
    const int64_t rows = part.end - v < panel_rows ? part.end - v : panel_rows;
    if (fused) {
      fused_products(weight, matrix, first + v, rows, scratch.rows, scratch.results);
    } else {
      decode_panel(weight, matrix, first + v, rows, first + part.end, {0, shape.latent}, scratch.panel);
      dot_products(scratch.rows, latent, count, scratch.panel, latent, rows, latent, scratch.results, kPanelRows);
    }
    for (int64_t t = 0; t < count; t++) {
      std::memcpy(out.row(begin + t) + head * shape.value + v, scratch.results + t * kPanelRows, static_cast<size_t>(rows) * sizeof(float));
    }
  }
}

// The absorbed form for all sequences that are not expanded. `spans` are their rows, in pieces of up to kRowChunk.
template <typename Unit>
static Status attend_absorbed(StepContext& context, AttentionPlan plan, const MlaShape& shape, const MlaWeights& weights, const Span* spans,
                              int64_t span_count) {
  const MatrixView q = context.inputs[0], out = context.outputs[0];
  const auto [kv_b, k_b, v_b] = weights;
  const int64_t heads = plan.heads, threads = context.pool->threads(), rows = out.rows;
  const int64_t per_head = rows * shape.query_width * static_cast<int64_t>(sizeof(float));
  int64_t chunk = kQueryBytes / (per_head > 0 ? per_head : 1);
  chunk = chunk < 1 ? 1 : chunk < heads ? chunk : heads;
  const int64_t widest = pad_columns(shape.latent > shape.nope ? shape.latent : shape.nope);
  const int64_t row_chunk = rows < kRowChunk ? rows : kRowChunk;
  const int64_t floats = kPanelRows * widest + 2 * row_chunk * (widest > kPanelRows ? widest : kPanelRows);
  float* queries = context.scratch->take_array<float>(static_cast<size_t>(rows * chunk * shape.query_width));
  float* memory = context.scratch->take_array<float>(static_cast<size_t>(threads * floats));
  if (queries == nullptr || memory == nullptr)
    return Status(Code::out_of_memory, "[native] scratch memory for mla; the machine refused; use smaller batches");
  const auto scratch_of = [&](int thread) {
    float* base = memory + thread * floats;
    float* after = base + kPanelRows * widest;
    return MlaScratch{base, after, after + row_chunk * (widest > kPanelRows ? widest : kPanelRows)};
  };
  const int64_t stride = chunk * shape.query_width;
  plan.query_stride = plan.out_stride = stride;
  plan.query_head_stride = plan.out_head_stride = shape.query_width;
  plan.queries = plan.out = queries;
  plan.key_width = shape.latent + shape.rope;
  plan.value_width = shape.latent;

  for (int64_t first = 0; first < heads; first += chunk) {
    plan.heads = heads - first < chunk ? heads - first : chunk;
    // body(head, rows, part of `length`, thread) over all of them; heads are cut into parts where they are few.
    const auto for_parts = [&](int64_t length, int64_t part, auto&& body) {
      if (plan.heads * span_count >= 4 * threads) part = length;
      const int64_t parts = (length + part - 1) / part;
      context.pool->parallel_for(plan.heads * span_count * parts, 1, [&](int64_t begin, int64_t end, int thread) {
        for (int64_t i = begin; i < end; i++) body(i / parts / span_count, spans[i / parts % span_count], part_of(length, part, i % parts), thread);
      });
    };
    for_parts(shape.latent, kLatentPart, [&](int64_t h, Span span, Span part, int thread) {
      absorb(q, span.begin, span.end, first + h, kv_b, k_b, shape, part, scratch_of(thread), queries + h * shape.query_width, stride);
    });
    plan.mode = AttentionMode::exact;
    TANDEM_TRY(attend<ExactCore>(context, plan));
    plan.mode = AttentionMode::panels;
    TANDEM_TRY(attend<TileCore<Unit>>(context, plan));
    for_parts(shape.value, kValuePart, [&](int64_t h, Span span, Span part, int thread) {
      expand(queries + h * shape.query_width, stride, span.begin, span.end, first + h, kv_b, v_b, shape, part, scratch_of(thread), out);
    });
  }
  return {};
}

static Status mla(StepContext& context) {
  const Step& step = *context.step;
  const MatrixView q = context.inputs[0], out = context.outputs[0];
  const std::vector<Sequence>& sequences = context.batch->sequences;
  const MlaWeights weights = {context.weights[1], context.weights[2], context.weights[3]};
  MlaShape shape = {step.integer("nope"), step.integer("rope"), step.integer("latent"), step.integer("value"), 0};
  shape.query_width = pad_columns(shape.latent + shape.rope);

  AttentionMode* modes = context.scratch->take_array<AttentionMode>(sequences.size());
  Span* spans = context.scratch->take_array<Span>(static_cast<size_t>(out.rows / kRowChunk) + sequences.size());
  if (modes == nullptr || spans == nullptr)
    return Status(Code::out_of_memory, "[native] scratch memory for mla; the machine refused; use smaller batches");
  AttentionPlan plan;
  plan.queries = q.data;
  plan.query_stride = q.stride;
  plan.query_head_stride = shape.nope + shape.rope;
  plan.out = out.data;
  plan.out_stride = out.stride;
  plan.out_head_stride = shape.value;
  plan.heads = step.integer("heads");
  plan.kv_heads = 1;
  plan.key_width = shape.nope + shape.rope;
  plan.value_width = shape.value;
  plan.keys = plan.values = context.kv->layers[step.integer("cache")][0];
  plan.values_in_keys = true;
  plan.scale = static_cast<float>(step.number("scale"));
  plan.modes = modes;

  return with_unit(context, [&](auto unit, const TileEngine* engine) -> Status {
    using Unit = decltype(unit);
    plan.engine = engine;
    // Absorbed rows that follow each other share decoded weights, whoever they belong to.
    int64_t span_count = 0;
    for (size_t s = 0; s < sequences.size(); s++) {
      const Sequence& sequence = sequences[s];
      modes[s] = step.tiles > 0 && sequence.rows >= step.tiles && expansion_pays(shape, sequence.rows, sequence.first_position)
                     ? AttentionMode::expanded
                 : panels_pay<Unit>(step.tiles, sequence.rows, plan.heads) ? AttentionMode::panels
                                                                           : AttentionMode::exact;
      if (modes[s] == AttentionMode::expanded) continue;
      for (int64_t begin = sequence.first_row, last = begin + sequence.rows; begin < last;) {
        const bool joins = span_count > 0 && spans[span_count - 1].end == begin && spans[span_count - 1].size() < kRowChunk;
        Span& span = spans[joins ? span_count - 1 : span_count++];
        if (!joins) span = {begin, begin};
        span.end = span.begin + kRowChunk < last ? span.begin + kRowChunk : last;
        begin = span.end;
      }
    }
    if (span_count > 0) TANDEM_TRY(attend_absorbed<Unit>(context, plan, shape, weights, spans, span_count));
    plan.mode = AttentionMode::expanded;
    return attend_expanded<Unit>(context, plan, shape, weights);
  });
}

static void register_mla() { register_kernel({"mla", "", TANDEM_ISA}, mla); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
