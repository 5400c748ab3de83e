// A paged cache for tests, and one attended row in f64 with its bound.
#pragma once

#include "quant/half.h"
#include "test/cuda_kernels_support.h"

namespace tandem::test {

struct TestSequence {
  int64_t first_position, rows;
  bool dead = false;
};

// Sequences of one pass, their pages in random places.
class PagedContext {
 public:
  PagedContext(std::vector<TestSequence> sequences, int64_t page_tokens, Random& random) : page_tokens_(page_tokens), sequences_(std::move(sequences)) {
    for (const TestSequence& s : sequences_) longest_ = std::max(longest_, s.first_position + s.rows);
    stride_ = (longest_ + page_tokens - 1) / page_tokens;
    for (size_t s = 0; s < sequences_.size(); s++) {
      dead_.push_back(sequences_[s].dead);
      for (int64_t r = 0; r < sequences_[s].rows; r++) {
        positions_.push_back(static_cast<int32_t>(sequences_[s].first_position + r));
        owners_.push_back(static_cast<int32_t>(s));
      }
      for (int64_t p = 0; p < stride_; p++) tables_.push_back(static_cast<int32_t>(tables_.size()));
    }
    for (size_t i = tables_.size() - 1; i > 0; i--) std::swap(tables_[i], tables_[static_cast<size_t>(random.below(static_cast<int64_t>(i) + 1))]);
  }
  int64_t rows() const { return static_cast<int64_t>(positions_.size()); }
  int64_t longest() const { return longest_; }
  int64_t position(int64_t row) const { return positions_[static_cast<size_t>(row)]; }
  int64_t owner(int64_t row) const { return owners_[static_cast<size_t>(row)]; }
  bool dead(int64_t sequence) const { return dead_[static_cast<size_t>(sequence)] != 0; }
  int64_t pages() const { return static_cast<int64_t>(tables_.size()); }
  int64_t page_tokens() const { return page_tokens_; }
  const std::vector<TestSequence>& sequences() const { return sequences_; }
  int64_t page(int64_t sequence, int64_t position) const { return tables_[static_cast<size_t>(sequence * stride_ + position / page_tokens_)]; }
  cuda::CacheView view(uint8_t* base, int64_t page_elements, int64_t offset, int64_t width, const int32_t* rows) const {
    return {base, page_elements, page_tokens_, offset, width, tables_.data(), stride_, positions_.data(), owners_.data(), dead_.data(), rows};
  }

 private:
  int64_t page_tokens_, stride_ = 0, longest_ = 0;
  std::vector<TestSequence> sequences_;
  std::vector<int32_t> tables_, positions_, owners_;
  std::vector<uint8_t> dead_;
};

// Nearest e4m3 by its definition: all codes are looked at, of two at the same distance the even one.
inline uint8_t nearest_e4m3(float value) {
  if (std::isnan(value)) return static_cast<uint8_t>(0x7f | (std::signbit(value) ? 0x80 : 0));
  const double size = std::abs(static_cast<double>(value));
  int best = 0;
  for (int code = 1; code < 0x7f; code++) {
    const double distance = std::abs(quant::e4m3_to_f32(static_cast<uint8_t>(code)) - size), least = std::abs(quant::e4m3_to_f32(static_cast<uint8_t>(best)) - size);
    if (distance < least || (distance == least && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

// Types of a cache: bytes of an element, and what kernels call it.
struct CacheType {
  int bytes;
  const char* name;
};
inline constexpr CacheType kF32 = {4, "f32"}, kBf16 = {2, "bf16"}, kE4m3 = {1, "e4m3"};

struct TestStream {
  int64_t heads, width;
};

// What no sequence has written is nan.
class Cache {
 public:
  Cache(const PagedContext& context, std::vector<TestStream> streams, const CacheType& type, Random& random) : context_(context), streams_(std::move(streams)), bytes_(type.bytes) {
    for (const TestStream& s : streams_) {
      offsets_.push_back(page_elements_);
      page_elements_ += s.heads * s.width * context.page_tokens();
    }
    memory_.assign(static_cast<size_t>(context.pages() * page_elements_ * bytes_ / 4 + 1), 0xffffffffu);
    for (size_t s = 0; s < streams_.size(); s++) {
      for (int64_t q = 0; q < static_cast<int64_t>(context.sequences().size()); q++) {
        const TestSequence& sequence = context.sequences()[static_cast<size_t>(q)];
        for (int64_t t = 0; t < sequence.first_position + sequence.rows; t++) {
          for (int64_t h = 0; h < streams_[s].heads; h++) {
            for (int64_t i = 0; i < streams_[s].width; i++) set(s, q, t, h, i, random.uniform());
          }
        }
      }
    }
  }
  cuda::CacheView view(size_t stream, const int32_t* rows) { return context_.view(bytes(), page_elements_, offsets_[stream], streams_[stream].width, rows); }
  void set(size_t stream, int64_t sequence, int64_t position, int64_t head, int64_t i, float value) {
    uint8_t* at = bytes() + bytes_ * element(stream, sequence, position, head, i);
    const uint16_t half = quant::f32_to_bf16(value);
    if (bytes_ == 1) *at = nearest_e4m3(value);
    else std::memcpy(at, bytes_ == 2 ? static_cast<const void*>(&half) : &value, static_cast<size_t>(bytes_));
  }
  float at(size_t stream, int64_t sequence, int64_t position, int64_t head, int64_t i) const {
    const uint8_t* at = reinterpret_cast<const uint8_t*>(memory_.data()) + bytes_ * element(stream, sequence, position, head, i);
    return bytes_ == 1 ? quant::e4m3_to_f32(*at) : bytes_ == 2 ? quant::bf16_to_f32(quant::load_u16(at)) : quant::bits_float(quant::load_u32(at));
  }

 private:
  uint8_t* bytes() { return reinterpret_cast<uint8_t*>(memory_.data()); }
  int64_t element(size_t stream, int64_t sequence, int64_t position, int64_t head, int64_t i) const {
    const int64_t place = head * context_.page_tokens() + position % context_.page_tokens();
    return context_.page(sequence, position) * page_elements_ + offsets_[stream] + place * streams_[stream].width + i;
  }
  const PagedContext& context_;
  std::vector<TestStream> streams_;
  int64_t bytes_;
  int64_t page_elements_ = 0;
  std::vector<int64_t> offsets_;
  std::vector<uint32_t> memory_;
};

// One row of one head: the sum of magnitudes as in src/ops/attend-row.ts.
struct Attended {
  explicit Attended(int64_t width) : width(width) {}
  int64_t width;
  double sink = -INFINITY;
  std::vector<double> scores, sizes;
  std::vector<std::vector<double>> values, value_sizes;

  void add(double score, double size, const std::vector<double>& value, const std::vector<double>& value_size) {
    scores.push_back(score);
    sizes.push_back(size);
    values.push_back(value);
    value_sizes.push_back(value_size);
  }

  // `steps`: of bf16 that operands may be off by.
  void check(const float* y, const std::string& what, int steps = 0) const {
    double maximum = sink, total = 0, mean = 0;
    for (double score : scores) maximum = std::max(maximum, score);
    if (sink != -INFINITY) total = std::exp(sink - maximum);
    std::vector<double> p;
    for (double score : scores) p.push_back(std::exp(score - maximum)), total += p.back();
    for (size_t t = 0; t < p.size(); t++) p[t] /= total, mean += p[t] * sizes[t];
    const double room = 1 + steps * 0x1p-8 / (16 * 0x1p-23);
    for (int64_t i = 0; i < width; i++) {
      double sum = 0, magnitude = 0;
      for (size_t t = 0; t < p.size(); t++) {
        sum += p[t] * values[t][static_cast<size_t>(i)];
        magnitude += room * p[t] * (1 + sizes[t] + mean) * std::abs(value_sizes[t][static_cast<size_t>(i)]);
      }
      EXPECT_THAT(within(y[i], sum, magnitude), what + " column " + std::to_string(i) + ": " + std::to_string(y[i]) + " for " + std::to_string(sum));
    }
  }
};

}  // namespace tandem::test
