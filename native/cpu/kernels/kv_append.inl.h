// kv-append and mla-append: store this pass's keys and values in the pages of their sequences, rounded to the cache's type.
#pragma once

#include <cstring>

#include "core/batch.h"
#include "core/kernel.h"
#include "cpu/kernels/vec.inl.h"
#include "cpu/pool.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// `count` floats to elements [at, at + count) of a block.
static void store_cache(const KvCache& kv, uint8_t* block, int64_t at, const float* values, int64_t count) {
  if (kv.type == KvCache::Type::f32) {
    std::memcpy(block + at * 4, values, static_cast<size_t>(count) * 4);
    return;
  }
  uint16_t* to = reinterpret_cast<uint16_t*>(block) + at;
  for (int64_t i = 0; i < count; i++) to[i] = f32_to_bf16(values[i]);
}

// Calls body(row, page, place in the page) for the rows of sequences that are alive.
template <typename Body>
static void for_cache_rows(StepContext& context, Body&& body) {
  const Batch& batch = *context.batch;
  const int64_t page_tokens = context.kv->page_tokens;
  context.pool->parallel_for(static_cast<int64_t>(batch.tokens.size()), 8, [&](int64_t begin, int64_t end, int) {
    for (int64_t r = begin; r < end; r++) {
      const int32_t s = batch.sequence_of_row[r];
      if (context.dead != nullptr && context.dead[s]) continue;
      const int64_t position = batch.positions[r];
      body(r, batch.sequences[s].pages[position / page_tokens], position % page_tokens);
    }
  });
}

static Status kv_append(StepContext& context) {
  const KvCache& kv = *context.kv;
  const std::vector<KvCache::Stream>& streams = kv.layers[context.step->integer("cache")];
  for_cache_rows(context, [&](int64_t r, int32_t page, int64_t place) {
    for (int i = 0; i < 2; i++) {
      const KvCache::Stream& stream = streams[i];
      for (int64_t h = 0; h < stream.heads; h++) {
        store_cache(kv, kv.block(page, stream, h), place * stream.width, context.inputs[i].row(r) + h * stream.width, stream.width);
      }
    }
  });
  return {};
}

static Status mla_append(StepContext& context) {
  const KvCache& kv = *context.kv;
  const KvCache::Stream& stream = kv.layers[context.step->integer("cache")][0];
  const MatrixView latent = context.inputs[0], key = context.inputs[1];
  for_cache_rows(context, [&](int64_t r, int32_t page, int64_t place) {
    uint8_t* block = kv.block(page, stream, 0);
    store_cache(kv, block, place * stream.width, latent.row(r), latent.columns);
    store_cache(kv, block, place * stream.width + latent.columns, key.row(r), key.columns);
  });
  return {};
}

static void register_kv_append() {
  register_kernel({"kv-append", "", TANDEM_ISA}, kv_append);
  register_kernel({"mla-append", "", TANDEM_ISA}, mla_append);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
