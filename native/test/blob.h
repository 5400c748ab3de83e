// Blobs as src/program/encode.ts writes them, and a small Program to test with.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace tandem::test {

class Blob {
 public:
  Blob& u32(uint32_t value) { return raw(&value, 4); }
  Blob& u64(uint64_t value) { return raw(&value, 8); }
  Blob& f32(float value) { return raw(&value, 4); }
  Blob& f64(double value) { return raw(&value, 8); }
  Blob& string(const std::string& text) {
    u32(static_cast<uint32_t>(text.size()));
    raw(text.data(), text.size());
    while (bytes.size() % 4 != 0) bytes.push_back(0);
    return *this;
  }
  std::vector<uint8_t> bytes;

 private:
  Blob& raw(const void* data, size_t size) {
    const uint8_t* from = static_cast<const uint8_t*>(data);
    bytes.insert(bytes.end(), from, from + size);
    return *this;
  }
};

// embed f32 -> rms-norm -> kv-append (k = v = x) -> attention -> add -> gather-rows -> linear -> sample.
// V = 8 tokens, H = 64 columns, 2 heads of 32, pages of 16 tokens. One file: table[8, 64], norm[`norm_format`, 64], head[8, 64].
struct TinyProgram {
  static constexpr int kVocab = 8, kHidden = 64;
  std::string norm_format = "f32";
  uint64_t norm_bytes = kHidden * 4;
  bool kv_f32 = true;
  bool decodes = false;  // steps say how they compute where every sequence has one row: f32 again, tiles from 3 rows
  bool head_by_columns = false;  // head[64, 8]: the same numbers, column by column
  // The order of values: x, normed, mixed, sum, last, logits, token.
  static constexpr int kSum = 3, kLogits = 5;
  static constexpr int kSteps = 8;

  std::vector<uint8_t> encode() const;
  std::vector<uint8_t> file() const;
};

struct SequenceSpec {
  uint32_t slot, rows, position;
  std::vector<int32_t> pages;
};
// Every sequence's last row is sampled greedily.
std::vector<uint8_t> encode_batch(const std::vector<int32_t>& tokens, const std::vector<SequenceSpec>& sequences, bool logits);

}  // namespace tandem::test
