// mla: few rows of a sequence in its absorbed form, many over tiles with expanded keys and values.
#pragma once

#include "cuda/launch_attention.h"
#include "cuda/launch_tiles.h"

namespace tandem::cuda {

// A step, and its weights.
struct MlaStep {
  int64_t heads = 0, nope = 0, rope = 0, latent = 0, value = 0;
  float scale = 0;
  bool together = false;  // kvB holds W_UK and W_UV by turns; else kB is W_UK transposed, and vB apart
  std::string up_format, down_format;
  const GpuMatrix *up = nullptr, *down = nullptr;
  const KvCache::Stream* cache = nullptr;

  Status read(const Binding& binding);
  int64_t width() const { return latent + rope; }
};

// Sequences of a pass that go over tiles: their context is expanded a chunk at a time (kernels/mla_tiles.cuh).
class ExpandedMla {
 public:
  // Whether tiles have room for such heads.
  static bool fits(const MlaStep& step);
  Status bind(const Binding& binding, const MlaStep& step);
  // q [T, heads · (nope + rope)] → y [T, heads · value]; rows of other sequences are left alone.
  Status launch(Stream& stream, const float* q, int64_t q_stride, float* y, int64_t y_stride) const;

 private:
  Status expand(Stream& stream, const MlaChunkArguments& chunk, int64_t positions) const;

  const GpuPart* part_ = nullptr;
  MlaStep step_;
  FunctionHandle *gather_ = nullptr, *tiles_ = nullptr, *transpose_ = nullptr;
  LinearTiles up_, down_;
  int64_t positions_ = 0;  // of a chunk at most
  size_t chunks_ = 0;      // in the header
  size_t turned_ = 0, latents_ = 0, ropes_ = 0, rounded_ = 0, keys_ = 0, values_ = 0, state_ = 0;  // places in the scratch memory
};

}  // namespace tandem::cuda
