// A bounds-checked cursor over little-endian words, for the blobs that TypeScript sends. After the first read past the end
// every further read gives zeros and `failed()` stays true, so decoders check at loops and at the end, not at every read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

namespace tandem {

class Reader {
 public:
  Reader(const uint8_t* data, size_t size) : at_(data), end_(data + size) {}

  uint32_t u32() { return plain<uint32_t>(); }
  int32_t i32() { return plain<int32_t>(); }
  uint64_t u64() { return plain<uint64_t>(); }
  double f64() { return plain<double>(); }
  float f32() { return plain<float>(); }

  std::string string() {
    const size_t length = u32();
    const size_t padded = (length + 3) & ~size_t{3};
    if (failed_ || padded > left()) {
      failed_ = true;
      return {};
    }
    std::string text(reinterpret_cast<const char*>(at_), length);
    at_ += padded;
    return text;
  }

  // The count before a list whose items take at least `least` bytes each: a count that cannot fit is a failure, so that no
  // absurd number is ever reserved.
  uint32_t count(size_t least) {
    const uint32_t items = u32();
    if (failed_ || items > left() / least) {
      failed_ = true;
      return 0;
    }
    return items;
  }

  void skip(size_t bytes) {
    if (bytes > left()) failed_ = true;
    else at_ += bytes;
  }

  const uint8_t* position() const { return at_; }
  size_t left() const { return static_cast<size_t>(end_ - at_); }
  bool failed() const { return failed_; }

 private:
  template <typename T> T plain() {
    T value{};
    if (sizeof(T) > left()) {
      failed_ = true;
      at_ = end_;
      return value;
    }
    std::memcpy(&value, at_, sizeof(T));
    at_ += sizeof(T);
    return value;
  }

  const uint8_t* at_;
  const uint8_t* end_;
  bool failed_ = false;
};

}  // namespace tandem
