// One expert of an `experts` step as GPUs get it from the machine's memory: the rows of gate, up and down as they are stored, the
// scales of formats that keep them apart behind each, in one piece.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/program.h"
#include "core/weights.h"
#include "quant/formats.h"

namespace tandem::cuda {

class ExpertPack {
 public:
  enum Matrix { gate = 0, up = 1, down = 2 };
  struct Part {
    uint32_t weight = 0;
    const quant::FormatInfo* format = nullptr;
    int64_t n = 0, k = 0, row_bytes = 0;
    int64_t scale_rows = 0, scale_stride = 0;  // scale_rows 0: none
    size_t data = 0, scales = 0;               // places in the piece, multiples of 256
  };

  ExpertPack(const Program& program, const Step& step);
  const Part& part(int matrix) const { return parts_[matrix]; }
  int64_t experts() const { return experts_; }
  size_t bytes() const { return bytes_; }
  // Layers that are alike: their kernels and sizes are the same.
  bool like(const ExpertPack& other) const;
  bool same_weights(const ExpertPack& other) const;
  // Bytes [offset, offset + bytes) of an expert.
  void read(const WeightStore& store, int64_t expert, size_t offset, size_t bytes, uint8_t* to) const;

 private:
  Part parts_[3];
  int64_t experts_ = 0;
  size_t bytes_ = 0;
};

}  // namespace tandem::cuda
