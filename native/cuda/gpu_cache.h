// The KV cache of the layers whose attention is on one GPU: pages as core/kernel.h has them, of those layers alone.
#pragma once

#include <map>
#include <vector>

#include "core/kernel.h"
#include "core/program.h"
#include "cuda/arena.h"

namespace tandem::cuda {

struct GpuCache {
  std::map<int64_t, std::vector<KvCache::Stream>> layers;  // by layer of the cache
  int64_t page_elements = 0;
  int64_t element_bytes = 2;
  Memory memory;

  void add(const Program& program, int64_t layer) {
    if (layers.count(layer) != 0) return;
    std::vector<KvCache::Stream>& streams = layers[layer];
    for (const KvStreamShape& stream : program.kv_layers[static_cast<size_t>(layer)]) {
      streams.push_back({stream.heads, stream.width, page_elements});
      page_elements += stream.heads * stream.width * program.page_tokens;
    }
    element_bytes = kv_bytes(program.kv_type);
  }
  size_t bytes(int64_t pages) const { return static_cast<size_t>(pages * page_elements * element_bytes); }
};

}  // namespace tandem::cuda
