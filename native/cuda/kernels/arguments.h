// What every kernel is given: one struct a kernel, by value. Plain pointers to device memory and 64-bit numbers; strides in
// elements unless they say bytes. Nothing here is CUDA: the device side that fills them in includes this file too.
//
// What changes from pass to pass (row counts, positions, pages, ids) is read from device memory, so that a captured graph
// never changes; grids are made for the largest pass and blocks beyond its rows return at once.
#pragma once

#include <cstdint>

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
  int64_t weight_batch;    // rows from one matrix to the next
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

// One query row a time over its context, split into parts of `part` positions. partial: [T, heads, parts, value + 2] f32.
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
