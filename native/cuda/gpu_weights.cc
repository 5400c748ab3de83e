#include "cuda/gpu_weights.h"

#include <cstring>

namespace tandem::cuda {

namespace {

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Bytes of the machine to a GPU, through two pinned buffers with a stream each: one is filled while the other is on its way.
class Upload {
 public:
  static constexpr size_t kBytes = size_t{8} << 20;

  Status open(Device& device) {
    for (Half& half : halves_) {
      TANDEM_TRY(device.pin(kBytes, "the buffers of uploads", half.memory));
      TANDEM_TRY(device.stream(half.stream));
    }
    return {};
  }
  // Appends to what goes to `to` on; a gap sends what is there first.
  Status put(Address to, const uint8_t* from, size_t bytes) {
    while (bytes > 0) {
      if (used_ > 0 && (to != to_ + used_ || used_ == kBytes)) TANDEM_TRY(send());
      if (used_ == 0) {
        to_ = to;
        TANDEM_TRY(halves_[at_].stream.finish());
      }
      const size_t part = bytes < kBytes - used_ ? bytes : kBytes - used_;
      std::memcpy(halves_[at_].memory.data() + used_, from, part);
      used_ += part;
      to += part;
      from += part;
      bytes -= part;
    }
    return {};
  }
  Status finish() {
    TANDEM_TRY(send());
    for (Half& half : halves_) TANDEM_TRY(half.stream.finish());
    return {};
  }

 private:
  struct Half {
    Pinned memory;
    Stream stream;
  };
  Status send() {
    if (used_ == 0) return {};
    TANDEM_TRY(halves_[at_].stream.copy_in(to_, halves_[at_].memory.data(), used_));
    at_ ^= 1;
    used_ = 0;
    return {};
  }

  Half halves_[2];
  size_t at_ = 0, used_ = 0;
  Address to_ = 0;
};

}  // namespace

const GpuMatrix& GpuWeights::matrix(uint32_t id, bool tables) {
  GpuMatrix& m = matrices_[id];
  if (m.format == nullptr) {
    const Weight& weight = program_->weights[id];
    const size_t rank = weight.shape.size();
    m.weight = id;
    m.format = quant::find_format(weight.format);
    m.k = weight.shape.back();
    m.n = rank >= 2 ? weight.shape[rank - 2] : 1;
    m.experts = rank == 3 ? weight.shape[0] : 1;
    m.row_bytes = quant::row_bytes(*m.format, m.k);
    m.data = arena_.reserve(static_cast<size_t>(m.experts * m.n * m.row_bytes));
    if (m.format->scale_rows > 0) {
      m.scale_rows = ceil_divide(m.n, m.format->scale_rows);
      m.scale_stride = ceil_divide(m.k, m.format->scale_columns) * m.format->scale_bytes;
      m.scales = arena_.reserve(static_cast<size_t>(m.experts * m.scale_rows * m.scale_stride));
    }
  }
  if (tables && !m.tables) {
    m.tables = true;
    m.data_table = arena_.reserve(static_cast<size_t>(m.experts) * 8);
    if (m.scale_rows > 0) m.scale_table = arena_.reserve(static_cast<size_t>(m.experts) * 8);
  }
  return m;
}

const GpuFloats& GpuWeights::floats(uint32_t id) {
  const auto [entry, fresh] = floats_.try_emplace(id);
  if (fresh) {
    size_t count = 1;
    for (const int64_t length : program_->weights[id].shape) count *= static_cast<size_t>(length);
    entry->second = {arena_.reserve(count * 4), count, id};
  }
  return entry->second;
}

size_t GpuWeights::constants(const void* data, size_t bytes) {
  const uint8_t* from = static_cast<const uint8_t*>(data);
  const size_t place = arena_.reserve(bytes);
  constants_.emplace_back(place, std::vector<uint8_t>(from, from + bytes));
  return place;
}

uint64_t GpuWeights::bytes() const {
  uint64_t total = 0;
  for (const auto& [id, m] : matrices_) total += static_cast<uint64_t>(m.experts * (m.n * m.row_bytes + m.scale_rows * m.scale_stride));
  return total;
}

WeightMatrix GpuWeights::arguments(const GpuMatrix& m) const {
  return {at<uint8_t>(m.data), m.row_bytes, m.scale_rows == 0 ? nullptr : at<uint8_t>(m.scales), m.scale_stride, m.n, m.k};
}

Status GpuWeights::upload(Device& device, const WeightStore& store, LoadProgress& progress) {
  Upload upload;
  TANDEM_TRY(upload.open(device));
  const auto advance = [&](size_t bytes) -> Status {
    progress.loaded.fetch_add(bytes);
    if (progress.on_advance) progress.on_advance();
    return progress.cancel.load() ? Status(Code::aborted, "[native] loading stops when it is told to; it was told to") : Status();
  };
  for (const auto& [id, m] : matrices_) {
    const BoundWeight& from = store.weight(id);
    const bool whole = from.node_rows == nullptr && from.row_bytes == m.row_bytes;
    const int64_t run = whole ? m.n : 1;
    for (int64_t e = 0; e < m.experts; e++) {
      for (int64_t n = 0; n < m.n; n += run) {
        // In pieces, so that loading can be watched and stopped.
        const size_t bytes = static_cast<size_t>(run * m.row_bytes);
        const Address to = at(m.data) + static_cast<size_t>((e * m.n + n) * m.row_bytes);
        const uint8_t* const data = from.row(e, n);
        for (size_t done = 0; done < bytes; done += Upload::kBytes) {
          const size_t part = bytes - done < Upload::kBytes ? bytes - done : Upload::kBytes;
          TANDEM_TRY(upload.put(to + done, data + done, part));
          TANDEM_TRY(advance(part));
        }
      }
      const bool dense = from.scale_stride == m.scale_stride;
      for (int64_t r = 0; r < m.scale_rows; r += dense ? m.scale_rows : 1) {
        const size_t bytes = static_cast<size_t>((dense ? m.scale_rows : 1) * m.scale_stride);
        TANDEM_TRY(upload.put(at(m.scales) + static_cast<size_t>((e * m.scale_rows + r) * m.scale_stride), from.scales[e] + r * from.scale_stride, bytes));
        TANDEM_TRY(advance(bytes));
      }
    }
    if (!m.tables) continue;
    std::vector<uint64_t> data, scales;
    for (int64_t e = 0; e < m.experts; e++) {
      data.push_back(at(m.data) + static_cast<size_t>(e * m.n * m.row_bytes));
      if (m.scale_rows > 0) scales.push_back(at(m.scales) + static_cast<size_t>(e * m.scale_rows * m.scale_stride));
    }
    TANDEM_TRY(upload.put(at(m.data_table), reinterpret_cast<const uint8_t*>(data.data()), data.size() * 8));
    if (m.scale_rows > 0) TANDEM_TRY(upload.put(at(m.scale_table), reinterpret_cast<const uint8_t*>(scales.data()), scales.size() * 8));
  }
  for (const auto& [id, f] : floats_) {
    const BoundWeight& from = store.weight(id);
    std::vector<float> values(f.count);
    // [N] is one row; of [E, N, 1] each row is a number.
    for (int64_t e = 0; e < from.experts; e++)
      for (int64_t n = 0; n < from.rows; n++)
        from.format->decode_row(from.row(e, n), values.data() + (e * from.rows + n) * from.columns, from.columns, from.row_scales(e, n));
    TANDEM_TRY(upload.put(at(f.place), reinterpret_cast<const uint8_t*>(values.data()), f.count * 4));
  }
  for (const auto& [place, data] : constants_) TANDEM_TRY(upload.put(at(place), data.data(), data.size()));
  return upload.finish();
}

}  // namespace tandem::cuda
