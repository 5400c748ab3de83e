// The weights that the steps of one GPU read. Matrices lie there as the checkpoint has them, row after row, the scales of formats
// that keep them apart beside them; what kernels want as plain floats (norms, biases, sinks) is decoded on the way.
#pragma once

#include <deque>
#include <map>
#include <vector>

#include "core/loading.h"
#include "core/program.h"
#include "core/weights.h"
#include "cuda/arena.h"
#include "cuda/kernels/arguments.h"
#include "quant/formats.h"

namespace tandem::cuda {

// A matrix, or those of all experts one after the other.
struct GpuMatrix {
  uint32_t weight = 0;
  const quant::FormatInfo* format = nullptr;
  int64_t experts = 1, n = 0, k = 0;
  int64_t row_bytes = 0, scale_stride = 0, scale_rows = 0;  // scale_rows: of one matrix, 0 where there are none
  size_t data = 0, scales = 0;                              // places
  bool tables = false;
  size_t data_table = 0, scale_table = 0;                   // [experts] addresses, where `tables`
};

// Floats, or other constants, on a GPU.
struct GpuFloats {
  size_t place = 0, count = 0;
  uint32_t weight = 0;
};

class GpuWeights {
 public:
  explicit GpuWeights(const Program& program) : program_(&program) {}

  // What a step needs; before `allocate`. `tables`: also addresses of the matrices, one each.
  const GpuMatrix& matrix(uint32_t weight, bool tables);
  const GpuFloats& floats(uint32_t weight);
  size_t constants(const void* data, size_t bytes);

  Status allocate(Device& device) { return arena_.allocate(device, "the weights"); }
  // Bytes of weights that `upload` counts.
  uint64_t bytes() const;
  Status upload(Device& device, const WeightStore& store, LoadProgress& progress);

  size_t size() const { return arena_.size(); }
  Address at(size_t place) const { return arena_.at(place); }
  template <typename T> const T* at(size_t place) const { return reinterpret_cast<const T*>(arena_.at(place)); }
  WeightMatrix arguments(const GpuMatrix& matrix) const;

 private:
  const Program* program_;
  Arena arena_;
  std::map<uint32_t, GpuMatrix> matrices_;
  std::map<uint32_t, GpuFloats> floats_;
  std::vector<std::pair<size_t, std::vector<uint8_t>>> constants_;
};

}  // namespace tandem::cuda
