// mla: multi-head latent attention in its absorbed form, for all passes.
//
//     q~ = q_nope · W_UK ‖ q_rope     [T, heads, latent + rope]   absorb
//     a  = attend the shared latent   [T, heads, latent]          attention_core, in place of q~
//     y  = a · W_UV                   [T, heads, value]           expand
//
// A weight row is decoded to f32 once per pass (per kRowChunk rows of long passes). Heads go in chunks whose q~ fits kQueryBytes.
#pragma once

#include "cpu/kernels/attention_core.inl.h"
#include "cpu/kernels/decode.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kPanelRows = 32;    // decoded weight rows at a time: 64 KB for a latent of 512
constexpr int64_t kRowChunk = 256;    // rows of the pass that share a decoded panel
constexpr int64_t kQueryBytes = int64_t{64} << 20;

struct MlaShape {
  int64_t nope, rope, latent, value;
  int64_t query_width;  // of a q~ row: latent + rope, padded
};

// Weight rows [first, first + count) of matrix e as f32 [count, padded columns].
static void decode_panel(const BoundWeight& weight, int64_t e, int64_t first, int64_t count, float* panel) {
  const int64_t padded = pad_columns(weight.columns);
  const uint8_t* matrix = weight.matrix(e);
  const WeightFormat format = weight_format(*weight.format);
  for (int64_t n = first; n < first + count; n++, panel += padded) {
    decode_row(format, matrix + n * weight.row_bytes, panel, weight.columns, weight.row_scales(e, n));
    for (int64_t c = weight.columns; c < padded; c++) panel[c] = 0.0f;
  }
}

// Memory of one thread: a panel of weights, and rows of activations padded for it.
struct MlaScratch {
  float *panel, *rows, *results;
};

// q~ of rows [begin, end) for one head; `queries` points at the head's q~ of row 0.
static void absorb(const MatrixView& q, int64_t begin, int64_t end, int64_t head, const BoundWeight* kv_b, const BoundWeight* k_b,
                   const MlaShape& shape, const MlaScratch& scratch, float* queries, int64_t query_stride) {
  const int64_t count = end - begin, width = shape.nope + shape.rope, latent = pad_columns(shape.latent);
  const float* from = q.row(begin) + head * width;
  float* to = queries + begin * query_stride;
  if (kv_b != nullptr) {
    // Σ_d q[d] · row d, added up in the order of d; sums start in scratch, where padding does no harm.
    std::memset(scratch.results, 0, static_cast<size_t>(count * latent) * sizeof(float));
    for (int64_t d = 0; d < shape.nope; d += kPanelRows) {
      const int64_t rows = shape.nope - d < kPanelRows ? shape.nope - d : kPanelRows;
      decode_panel(*kv_b, 0, head * (shape.nope + shape.value) + d, rows, scratch.panel);
      add_weighted_rows(scratch.results, latent, count, latent, from + d, q.stride, scratch.panel, latent, rows);
    }
  } else {
    const int64_t padded = pad_columns(shape.nope);
    for (int64_t t = 0; t < count; t++) {
      float* row = scratch.rows + t * padded;
      std::memcpy(row, from + t * q.stride, static_cast<size_t>(shape.nope) * sizeof(float));
      for (int64_t c = shape.nope; c < padded; c++) row[c] = 0.0f;
    }
    for (int64_t l = 0; l < shape.latent; l += kPanelRows) {
      const int64_t rows = shape.latent - l < kPanelRows ? shape.latent - l : kPanelRows;
      decode_panel(*k_b, head, l, rows, scratch.panel);
      dot_products(scratch.rows, padded, count, scratch.panel, padded, rows, padded, scratch.results + l, latent);
    }
  }
  for (int64_t t = 0; t < count; t++) {
    float* row = to + t * query_stride;
    std::memcpy(row, scratch.results + t * latent, static_cast<size_t>(shape.latent) * sizeof(float));
    std::memcpy(row + shape.latent, from + t * q.stride + shape.nope, static_cast<size_t>(shape.rope) * sizeof(float));
  }
}

// Results of rows [begin, end) for one head; `attended` points at the head's latent of row 0.
static void expand(const float* attended, int64_t stride, int64_t begin, int64_t end, int64_t head, const BoundWeight* kv_b,
                   const BoundWeight* v_b, const MlaShape& shape, const MlaScratch& scratch, const MatrixView& out) {
  const int64_t count = end - begin, latent = pad_columns(shape.latent);
  for (int64_t t = 0; t < count; t++) {
    float* row = scratch.rows + t * latent;
    std::memcpy(row, attended + (begin + t) * stride, static_cast<size_t>(shape.latent) * sizeof(float));
    for (int64_t c = shape.latent; c < latent; c++) row[c] = 0.0f;
  }
  for (int64_t v = 0; v < shape.value; v += kPanelRows) {
    const int64_t rows = shape.value - v < kPanelRows ? shape.value - v : kPanelRows;
    if (kv_b != nullptr) decode_panel(*kv_b, 0, head * (shape.nope + shape.value) + shape.nope + v, rows, scratch.panel);
    else decode_panel(*v_b, head, v, rows, scratch.panel);
    dot_products(scratch.rows, latent, count, scratch.panel, latent, rows, latent, scratch.results, kPanelRows);
    for (int64_t t = 0; t < count; t++) {
      std::memcpy(out.row(begin + t) + head * shape.value + v, scratch.results + t * kPanelRows, static_cast<size_t>(rows) * sizeof(float));
    }
  }
}

static Status mla(StepContext& context) {
  const Step& step = *context.step;
  const MatrixView q = context.inputs[0], out = context.outputs[0];
  const BoundWeight *kv_b = context.weights[1], *k_b = context.weights[2], *v_b = context.weights[3];
  const int64_t heads = step.integer("heads");
  MlaShape shape = {step.integer("nope"), step.integer("rope"), step.integer("latent"), step.integer("value"), 0};
  shape.query_width = pad_columns(shape.latent + shape.rope);

  const int64_t threads = context.pool->threads(), rows = out.rows;
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
  const int64_t stride = chunk * shape.query_width, row_chunks = (rows + row_chunk - 1) / row_chunk;

  AttentionPlan plan;
  plan.query_stride = plan.out_stride = stride;
  plan.query_head_stride = plan.out_head_stride = shape.query_width;
  plan.queries = plan.out = queries;
  plan.kv_heads = 1;
  plan.key_width = shape.latent + shape.rope;
  plan.value_width = shape.latent;
  plan.keys = plan.values = context.kv->layers[step.integer("cache")][0];
  plan.values_in_keys = true;
  plan.scale = static_cast<float>(step.number("scale"));

  for (int64_t first = 0; first < heads; first += chunk) {
    plan.heads = heads - first < chunk ? heads - first : chunk;
    context.pool->parallel_for(plan.heads * row_chunks, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t h = i / row_chunks, row = i % row_chunks * row_chunk;
        absorb(q, row, row + row_chunk < rows ? row + row_chunk : rows, first + h, kv_b, k_b, shape, scratch_of(thread),
               queries + h * shape.query_width, stride);
      }
    });
    TANDEM_TRY(attend(context, plan));
    context.pool->parallel_for(plan.heads * row_chunks, 1, [&](int64_t begin, int64_t end, int thread) {
      for (int64_t i = begin; i < end; i++) {
        const int64_t h = i / row_chunks, row = i % row_chunks * row_chunk;
        expand(queries + h * shape.query_width, stride, row, row + row_chunk < rows ? row + row_chunk : rows, first + h, kv_b, v_b,
               shape, scratch_of(thread), out);
      }
    });
  }
  return {};
}

static void register_mla() { register_kernel({"mla", "", TANDEM_ISA}, mla); }

}  // namespace tandem::TANDEM_ISA_NAMESPACE
