#include "cuda/expert_pack.h"

#include <algorithm>
#include <cstring>

namespace tandem::cuda {

namespace {

size_t padded(int64_t bytes) { return (static_cast<size_t>(bytes) + 255) & ~size_t{255}; }
int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// A part of what is asked for, [offset, offset + bytes), to where it belongs there; nothing where they do not meet.
struct Window {
  size_t offset, bytes;
  uint8_t* to;

  void take(size_t at, const uint8_t* from, size_t size) const {
    const size_t begin = std::max(at, offset), end = std::min(at + size, offset + bytes);
    if (begin < end) std::memcpy(to + (begin - offset), from + (begin - at), end - begin);
  }
  bool meets(size_t at, size_t size) const { return at < offset + bytes && offset < at + size; }
};

}  // namespace

ExpertPack::ExpertPack(const Program& program, const Step& step) {
  for (int i = 0; i < 3; i++) {
    Part& p = parts_[i];
    p.weight = step.inputs[static_cast<size_t>(3 + i)].index;
    const Weight& weight = program.weights[p.weight];
    p.format = quant::find_format(weight.format);
    experts_ = weight.shape[0];
    p.n = weight.shape[1];
    p.k = weight.shape[2];
    p.row_bytes = quant::row_bytes(*p.format, p.k);
    p.data = bytes_;
    bytes_ += padded(p.n * p.row_bytes);
    if (p.format->scale_rows == 0) continue;
    p.scale_rows = ceil_divide(p.n, p.format->scale_rows);
    p.scale_stride = ceil_divide(p.k, p.format->scale_columns) * p.format->scale_bytes;
    p.scales = bytes_;
    bytes_ += padded(p.scale_rows * p.scale_stride);
  }
}

bool ExpertPack::like(const ExpertPack& other) const {
  for (int i = 0; i < 3; i++) {
    const Part &a = parts_[i], &b = other.parts_[i];
    if (a.format != b.format || a.n != b.n || a.k != b.k) return false;
  }
  return experts_ == other.experts_;
}

bool ExpertPack::same_weights(const ExpertPack& other) const {
  return std::equal(std::begin(parts_), std::end(parts_), std::begin(other.parts_), [](const Part& a, const Part& b) { return a.weight == b.weight; });
}

void ExpertPack::read(const WeightStore& store, int64_t expert, size_t offset, size_t bytes, uint8_t* to) const {
  const Window window{offset, bytes, to};
  for (const Part& p : parts_) {
    const BoundWeight& from = store.weight(p.weight);
    const size_t row = static_cast<size_t>(p.row_bytes);
    if (window.meets(p.data, static_cast<size_t>(p.n) * row)) {
      // Rows that follow each other go together.
      const bool dense = from.row_bytes == p.row_bytes;
      const int64_t first = static_cast<int64_t>((std::max(offset, p.data) - p.data) / row);
      const int64_t end = std::min(p.n, static_cast<int64_t>((offset + bytes - p.data + row - 1) / row));
      for (int64_t n = first, next; n < end; n = next) {
        next = dense ? end : n + 1;
        if (dense && from.node_rows != nullptr) next = std::min(end, *std::upper_bound(from.node_rows, from.node_rows + from.nodes + 1, n));
        window.take(p.data + static_cast<size_t>(n) * row, from.row(expert, n), static_cast<size_t>(next - n) * row);
      }
    }
    const size_t stride = static_cast<size_t>(p.scale_stride);
    for (int64_t r = 0; r < p.scale_rows; r++)
      if (window.meets(p.scales + static_cast<size_t>(r) * stride, stride)) window.take(p.scales + static_cast<size_t>(r) * stride, from.scales[expert] + r * from.scale_stride, stride);
  }
}

}  // namespace tandem::cuda
