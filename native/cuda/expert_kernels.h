// The kernels of an `experts` step over any of its experts: those whose matrices a table names, wherever they lie on the GPU.
#pragma once

#include "cuda/launch_tiles.h"

namespace tandem::cuda {

// Addresses of a matrix of every expert on the GPU; null: it is elsewhere.
struct ExpertTable {
  const uint8_t* const* data = nullptr;
  const uint8_t* const* scales = nullptr;  // null: its format has none
};

struct ExpertCall {
  ExpertTable gate, up, down;
  const float* x = nullptr;
  int64_t x_stride = 0;
  // [rows, topk], a row right behind the one before.
  const int32_t* ids = nullptr;
  const float* weights = nullptr;
  float* y = nullptr;
  int64_t y_stride = 0;
  int64_t rows = 0;
  bool tiled = false;       // on tensor cores, bf16
  bool accumulates = false; // adds to y
};

class ExpertKernels {
 public:
  // Takes scratch memory and places of the header for passes of up to `most` rows. FORMAT_UNSUPPORTED naming the step.
  Status bind(const Binding& binding, int64_t most, bool accumulates);
  // Of rows that the header tells.
  Status launch(Stream& stream, const ExpertCall& call) const;
  // Bytes of scratch memory that it uses, from the beginning.
  size_t scratch() const { return scratch_; }
  int64_t topk() const { return topk_; }
  int64_t hidden() const { return hidden_; }

 private:
  struct Product {
    const quant::FormatInfo* info = nullptr;
    FunctionHandle *rows = nullptr, *tiles = nullptr;
    RowRounder rounder;
    int64_t n = 0, k = 0, row_bytes = 0, scale_stride = 0;
    const GpuFloats* bias = nullptr;
  };
  Status bind(const Binding& binding, size_t operand, Product& out);

  const GpuPart* part_ = nullptr;
  Product gate_, up_, down_;
  FunctionHandle *groups_ = nullptr, *gated_ = nullptr, *combine_ = nullptr, *add_ = nullptr;
  GatedArguments activation_ = {};
  int64_t topk_ = 0, experts_ = 0, inner_ = 0, hidden_ = 0;
  RowChunks chunks_;
  size_t up_at_ = 0, down_at_ = 0, order_at_ = 0, offsets_at_ = 0, tiles_at_ = 0, count_at_ = 0, rounded_at_ = 0, sum_at_ = 0, scratch_ = 0;
};

}  // namespace tandem::cuda
