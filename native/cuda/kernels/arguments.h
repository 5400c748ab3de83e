// What every kernel is given: one struct a kernel, by value. Plain pointers to device memory and 64-bit numbers; strides in
// elements unless they say bytes. Nothing here is CUDA: the device side that fills them in includes this file too.
//
// What changes from pass to pass (row counts, positions, pages, ids) is read from device memory, so that a captured graph
// never changes; grids are made for the largest pass and blocks beyond its rows return at once.
#pragma once

#include <cstdint>

#include "cuda/kernels/column_order.h"

namespace tandem::cuda {

// A matrix [N, K] as the checkpoint has it. Rows start at multiples of the block's own alignment (quant/*.h; f32, f16, bf16 any).
struct WeightMatrix {
  const uint8_t* data;
  int64_t row_bytes;
  const uint8_t* scales;   // of formats with scales apart, else null
  int64_t scale_stride;    // bytes from one row of scales to the next
  int64_t n, k;
};

// y = x·Wᵀ + bias; with `batches` > 1 the same for several pairs of x and W (heads).
struct LinearArguments {
  WeightMatrix weight;
  const float* x;
  int64_t x_stride, x_batch;
  float* y;
  int64_t y_stride, y_batch;
  const float* bias;       // [N] or null
  const int32_t* rows;     // on the device: how many rows x has
  int64_t weight_first, weight_batch;  // row of the tensor at which the first matrix begins; rows from one to the next
};

// Rows of x [R, K] to bf16 in the order in which tiles take columns (rounded_rows.cuh). y: a multiple of 16 bytes, rows likewise.
struct RoundRowsArguments {
  const float* x;
  int64_t x_stride;
  uint16_t* y;             // [R, ⌈K / 128⌉ · 128]
  int64_t y_stride;
  int64_t k;
  const int32_t* rows;     // on the device: those of the pass. x has `times` rows for each but the first `skip` of them
  int64_t times, skip;
  ColumnOrder order;       // of the format that x meets
};

// linear on tiles, of rows that `round_rows` left; all matrices share them.
struct LinearTilesArguments {
  WeightMatrix weight;
  const uint16_t* x;
  int64_t x_stride;
  float* y;
  int64_t y_stride, y_batch;
  const float* bias;       // [N] or null
  const int32_t* rows;     // on the device: those of the pass; x has all but the first `skip` of them
  int64_t skip;
  int64_t batches, weight_first, weight_batch;  // matrices, and where they lie in rows, as in linear
  uint16_t* y_bf16;        // takes what is summed in place of y, rounded; or null
};

// Columns [0, columns) of heads that are x_head apart to heads that are y_head apart.
struct CopyHeadsArguments {
  const float* x;
  int64_t x_stride, x_head;
  float* y;
  int64_t y_stride, y_head;
  int64_t heads, columns;
  const int32_t* rows;
};

// x [R, C] (+ second operand) → y [R, C]: add, glu.
struct ElementwiseArguments {
  const float* a;
  int64_t a_stride;
  const float* b;
  int64_t b_stride;
  float* y;
  int64_t y_stride;
  int64_t columns;
  const int32_t* rows;
};

struct RmsNormArguments {
  const float* x;
  int64_t x_stride;
  const float* weight;     // [group]
  float* y;
  int64_t y_stride;
  int64_t columns, group;
  float epsilon;
  const int32_t* rows;
};

struct RopeArguments {
  const float* x;
  int64_t x_stride;
  float* y;
  int64_t y_stride;
  int64_t columns, head_size, offset, width;
  const double* frequencies;  // [width / 2]
  double magnitude;
  int32_t paired;             // style: 1 pairs, 0 halves
  const int32_t* positions;   // [T]
  const int32_t* rows;
};

struct RouterArguments {
  const float* logits;
  int64_t logits_stride;
  const float* bias;          // [E] or null
  int32_t* ids;
  int64_t ids_stride;
  float* weights;
  int64_t weights_stride;
  int32_t experts, topk, groups, group_topk;
  int32_t sigmoid, top2, normalize;
  double scale;
  const int32_t* rows;
};

// What a router chose, the heaviest first: rank-experts.
struct RankExpertsArguments {
  const int32_t* ids;
  int64_t ids_stride;
  const float* weights;
  int64_t weights_stride;
  int32_t* ranked;
  int64_t ranked_stride;
  float* shares;
  int64_t shares_stride;
  int32_t topk;
  const int32_t* rows;
};

// Rows of a table by id: embed (table in a weight format).
struct EmbedArguments {
  WeightMatrix table;
  const int32_t* ids;         // [T]
  float* y;
  int64_t y_stride;
  const int32_t* rows;
};

// Rows of x by index: gather-rows.
struct GatherArguments {
  const float* x;
  int64_t x_stride;
  const int32_t* index;       // [O]
  float* y;
  int64_t y_stride;
  int64_t columns;
  const int32_t* rows;
};

// Where the cache of one stream lies (core/kernel.h, KvCache). Row r of a pass belongs to sequence sequence_of_row[r]; its
// context [0, positions[r]] lies in pages tables[sequence · table_stride + ⌊position / page_tokens⌋].
struct CacheView {
  uint8_t* base;
  int64_t page_elements, page_tokens;
  int64_t offset, width;      // of the stream: first element in a page, elements of one position and head
  const int32_t* tables;
  int64_t table_stride;
  const int32_t* positions;        // [T]
  const int32_t* sequence_of_row;  // [T]
  const uint8_t* dead;             // [B] 1: its rows are skipped; or null
  const int32_t* rows;             // T
};

// Columns [0, heads · columns) of x to columns [first, first + columns) of every head of the stream.
struct CacheAppendArguments {
  CacheView cache;
  const float* x;
  int64_t x_stride;
  int64_t heads, columns, first;
};

// Query rows over their contexts, split into parts of `part` positions. partial: [T, heads, parts, value_size + 2] f32. heads is
// a multiple of kv_heads, head_size of 8 and at most 576, value_size even and at most 512.
struct AttentionArguments {
  CacheView keys, values;     // of MLA the same stream, and values.width is how much of it is value
  const float* q;
  int64_t q_stride;
  float* y;
  int64_t y_stride;
  float* partial;
  int64_t heads, kv_heads, head_size, value_size;
  int64_t values_stride;      // elements from one position's values to the next: the width of their stream
  int64_t window;             // 0: none
  int64_t parts, part;
  float scale;
  const float* sinks;         // [heads] or null
  const int32_t* tiles;       // attention_tiles_*: [tiles][2] first row and rows (up to 64) of one sequence each
  const int32_t* tile_count;
};

// One chunk of a sequence's context, for mla on tiles (mla_tiles.cuh). Chunks of a sequence follow each other from position 0 on.
struct MlaChunkArguments {
  CacheView cache;            // stream latent ‖ rope key
  const int32_t* chunk;       // [4] on the device: sequence, first position, positions, 1 where it is the last of its sequence
  float* latents;             // mla_gather writes [positions, latent]
  uint16_t* ropes;            // and [positions, rope] in bf16
  const uint16_t* keys;       // [positions, heads · nope]: latents by W_UK, in bf16
  const uint16_t* values;     // [positions, heads · value]: latents by W_UV, in bf16
  const float* q;             // [T, heads · (nope + rope)]
  int64_t q_stride;
  float* y;                   // [T, heads · value]
  int64_t y_stride;
  float* state;               // [T, heads, 2]
  int64_t heads, nope, rope, latent, value;  // nope + rope up to 192, value up to 128, all even
  float scale;
  const int32_t* tiles;       // [tiles][2] as those of attention, of this sequence alone
  const int32_t* tile_count;
};

// Matrices [N, K] of a weight to bf16 matrices [K, N], y_batch elements apart.
struct TransposeArguments {
  WeightMatrix weight;
  uint16_t* y;
  int64_t y_stride, y_batch;
  int64_t weight_first, weight_batch;  // rows, as in linear
};

static constexpr int kExpertTile = 128;  // visits a tile

// One matrix product of the routed experts. Visits [T · topk]; a row of x is one of the pass (visits_a_row = topk: gate, up) or
// one of the visits (1: down).
struct ExpertsArguments {
  const uint8_t* const* matrices;   // [E] on the device: rows of the expert's matrix, or null
  const uint8_t* const* scales;     // [E], or null
  int64_t row_bytes, scale_stride;  // bytes
  int64_t n, k;
  const float* x;
  int64_t x_stride;
  const uint16_t* rounded;          // experts_tiles: the rows of x as `round_rows` left them
  int64_t rounded_stride;
  float* y;                         // [T · topk, n]
  int64_t y_stride;
  const float* bias;                // [E, n] or null
  const int32_t* ids;               // [T · topk]
  int64_t topk, visits_a_row;
  const int32_t* rows;              // T
  const int32_t* order;             // and what expert_groups wrote
  const int32_t* offsets;
  const int32_t* tiles;
  const int32_t* tile_count;
};

struct ExpertGroupsArguments {
  const int32_t* ids;  // [T · topk]
  int64_t topk, experts;
  const int32_t* rows;
  int32_t* order;      // [T · topk] visits by expert
  int32_t* offsets;    // [E + 1] where each expert's begin
  int32_t* tiles;      // [⌈T · topk / 128⌉ + E][2] expert, place of the first visit in order
  int32_t* tile_count;
};

struct GatedArguments {
  const float* gate;
  const float* up;
  float* y;
  int64_t stride, columns;  // of all three
  int64_t topk;
  int32_t clamped;          // swiglu-clamped, else silu
  float alpha, limit;
  const int32_t* rows;
};

struct CombineArguments {
  const float* down;        // [T · topk, columns]
  int64_t down_stride;
  const int32_t* ids;
  const float* weights;     // [T · topk]
  const uint8_t* const* matrices;
  float* y;
  int64_t y_stride, columns, topk;
  const int32_t* rows;
};

// How one output row is sampled: SamplingRecord of src/program/batch.ts. Lists lie one after the other in the arrays of
// SampleLists; `first` is where the row's begins. A list names no token twice.
struct SampleRow {
  float temperature, top_p, min_p;
  float repetition_penalty, presence_penalty, frequency_penalty;
  uint32_t top_k;
  uint32_t seed_low, seed_high, position;
  int32_t top_logprobs;                    // up to max_top
  int32_t sampled;                         // 0: the token is −1
  int32_t sequence;                        // index into dead
  int32_t penalty_first, penalty_count;
  int32_t bias_first, bias_count;
  int32_t mask_first;                      // in words of `masks`; −1: none
};

// Where the lists of a pass lie.
struct SampleLists {
  const int32_t* penalty_tokens;
  const int32_t* penalty_counts;
  const int32_t* bias_tokens;
  const float* bias_values;
  const uint32_t* masks;      // ⌈V / 32⌉ words each
};

// sample, and logprobs after it. Everything but logits is of the pass, on the device.
struct SampleArguments {
  const float* logits;        // [O, V]
  int64_t logits_stride;
  int64_t vocabulary;
  float* adjusted;            // [O, V] scratch
  int64_t adjusted_stride;
  const SampleRow* records;   // [O]
  const SampleLists* lists;   // read from the device: lists grow, and graphs stay
  const uint8_t* dead;        // [B] or null
  int32_t* token;             // [O]; −1 where nothing is to be drawn, or nothing can be
  float* logprob;             // [O]; rows without a token are left alone, here and below
  int32_t* top_tokens;        // [O, max_top]; −1 after the last that there is
  float* top_logprobs;        // [O, max_top]
  int64_t max_top;
  const int32_t* rows;        // O
};

// The best token of every row of logits, the lowest of equals; −1 where there is none.
struct GreedyArguments {
  const float* logits;
  int64_t logits_stride;
  int64_t vocabulary;
  int32_t* token;
  const int32_t* rows;
};

}  // namespace tandem::cuda
