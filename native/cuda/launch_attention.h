// Attention over pages: what attention and mla launch alike.
#pragma once

#include "cuda/launch.h"

namespace tandem::cuda {

// Positions of a part of the context: the same in every pass, so that a row's sums do not depend on its neighbours.
int64_t attention_part_size(const GpuPart& part);

// f32, bf16 or e4m3, as names of kernels have it.
const char* cache_name(const GpuPart& part);

// The page view of one stream of a cache's layer.
CacheView cache_view(const GpuPart& part, const KvCache::Stream& stream);

// Whether kernels on tensor cores take a stream: numbers that fit into bf16, rows in whole runs of 16 bytes.
bool fits_tensor_cores(const GpuPart& part, const KvCache::Stream& stream);

// Parts that rows of a pass are cut into, and how many rows are taken at once with so many: a chunking each of 1, 2, 4 … parts.
struct PartedRows {
  int64_t part = 0;
  std::vector<RowChunks> chunks;

  // `row_bytes`: beside the partial results; `partial_bytes`: of one part.
  static PartedRows of(GpuPart& gpu, int64_t row_bytes, int64_t partial_bytes);
  int64_t parts(PassRows rows) const { return (rows.context + part - 1) / part; }
  const RowChunks& chunking(PassRows rows) const;
};

struct AttendKernels {
  FunctionHandle *part = nullptr, *merge = nullptr;
  Status find(const Binding& binding);
};

}  // namespace tandem::cuda
