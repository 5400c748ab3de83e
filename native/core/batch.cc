#include "core/batch.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>

#include "core/reader.h"

namespace tandem {

namespace {

constexpr uint32_t kMagic = 0x54414254;  // 'TBAT'
constexpr uint32_t kVersion = 1;

Status invalid(const std::string& rule, const std::string& given) {
  return Status(Code::request_invalid, "[native] " + rule + "; " + given + "; correct the batch");
}

class Decoder {
 public:
  Decoder(const BatchLimits& limits, Batch& batch)
      : r_(reinterpret_cast<const uint8_t*>(batch.words.data()), batch.words.size() * 4), limits_(limits), b_(batch) {}

  Status decode() {
    if (r_.u32() != kMagic || r_.u32() != kVersion) return invalid("a batch blob starts with TBAT and version 1", "it does not");
    const int64_t tokens = r_.u32(), sequences = r_.u32(), outputs = r_.u32();
    b_.want_logits = (r_.u32() & 1) != 0;
    if (r_.failed()) return truncated();
    if (tokens < 1 || tokens > limits_.max_rows) return invalid("a batch has 1 to maxRows rows", range(tokens, limits_.max_rows));
    if (outputs > limits_.max_outputs) return invalid("a batch has at most maxOutputs outputs", range(outputs, limits_.max_outputs));
    if (sequences < 1 || sequences > tokens) return invalid("a batch has 1 to T sequences", range(sequences, tokens));
    TANDEM_TRY(span(tokens, b_.tokens));
    TANDEM_TRY(ids(b_.tokens, limits_.vocab_size, "a token is below the vocabulary size"));
    b_.positions.resize(static_cast<size_t>(tokens));
    b_.sequence_of_row.resize(static_cast<size_t>(tokens));
    int64_t row = 0;
    for (int64_t s = 0; s < sequences; s++) TANDEM_TRY(decode_sequence(s, tokens, row));
    if (row != tokens) return invalid("the sequences cover all rows", range(row, tokens));
    TANDEM_TRY(check_slots());
    int64_t last = -1;
    for (int64_t o = 0; o < outputs; o++) TANDEM_TRY(decode_output(tokens, last));
    if (r_.failed()) return truncated();
    if (r_.left() != 0) return invalid("a batch blob ends after its outputs", std::to_string(r_.left()) + " bytes follow");
    return {};
  }

 private:
  static std::string range(int64_t given, int64_t limit) { return "given " + std::to_string(given) + ", limit " + std::to_string(limit); }
  Status truncated() const { return invalid("a batch blob is complete", "it ends early"); }

  template <typename T> Status span(int64_t count, std::span<const T>& out) {
    static_assert(sizeof(T) == 4);
    if (r_.failed() || static_cast<uint64_t>(count) > r_.left() / 4) return truncated();
    out = std::span<const T>(reinterpret_cast<const T*>(r_.position()), static_cast<size_t>(count));
    r_.skip(static_cast<size_t>(count) * 4);
    return {};
  }

  Status ids(std::span<const int32_t> values, int64_t limit, const char* rule) const {
    for (int32_t id : values)
      if (id < 0 || id >= limit) return invalid(rule, range(id, limit));
    return {};
  }

  // Rows of the sequences are adjacent and ascend: [0, rows0) [rows0, rows0 + rows1) …
  Status decode_sequence(int64_t index, int64_t tokens, int64_t& row) {
    Sequence s{};
    const uint32_t slot = r_.u32();
    s.first_row = r_.u32();
    s.rows = r_.u32();
    s.first_position = r_.u32();
    const int64_t pages = r_.u32();
    if (r_.failed()) return truncated();
    if (slot >= static_cast<uint32_t>(kCancelSlots)) return invalid("a cancel slot is below 4096", range(slot, kCancelSlots));
    s.slot = static_cast<int32_t>(slot);
    if (s.first_row != row || s.rows < 1 || s.rows > tokens - row)
      return invalid("rows of sequences are adjacent, ascending and within the batch",
                     "sequence " + std::to_string(index) + " has rows [" + std::to_string(s.first_row) + ", " + std::to_string(s.first_row + s.rows) + ")");
    const int64_t context = s.first_position + s.rows;
    if (context > INT32_MAX) return invalid("positions are below 2^31", range(context, INT32_MAX));
    if (pages < (context + limits_.page_tokens - 1) / limits_.page_tokens)
      return invalid("a sequence has pages for its whole context", std::to_string(pages) + " pages for " + std::to_string(context) + " tokens");
    TANDEM_TRY(span(pages, s.pages));
    TANDEM_TRY(ids(s.pages, limits_.pages, "a page id is below the number of pages"));
    for (int64_t i = 0; i < s.rows; i++) {
      b_.positions[static_cast<size_t>(row + i)] = static_cast<int32_t>(s.first_position + i);
      b_.sequence_of_row[static_cast<size_t>(row + i)] = static_cast<int32_t>(index);
    }
    row += s.rows;
    b_.sequences.push_back(s);
    return {};
  }

  Status check_slots() const {
    std::vector<int32_t> slots;
    for (const Sequence& s : b_.sequences) slots.push_back(s.slot);
    std::sort(slots.begin(), slots.end());
    const auto twin = std::adjacent_find(slots.begin(), slots.end());
    if (twin == slots.end()) return {};
    return invalid("two sequences of a batch have different cancel slots", "slot " + std::to_string(*twin) + " is used twice");
  }

  Status decode_output(int64_t tokens, int64_t& last) {
    OutputRow out{};
    out.row = r_.u32();
    const uint32_t sampled = r_.u32();
    if (r_.failed()) return truncated();
    if (out.row <= last || out.row >= tokens) return invalid("output rows ascend and lie within the batch", range(out.row, tokens));
    if (sampled > 1) return invalid("hasSampling is 0 or 1", std::to_string(sampled));
    last = out.row;
    out.sequence = b_.sequence_of_row[static_cast<size_t>(out.row)];
    out.sampled = sampled == 1;
    if (out.sampled) TANDEM_TRY(decode_sampling(out.sampling));
    b_.outputs.push_back(out);
    return {};
  }

  Status decode_sampling(SamplingRecord& s) {
    s.temperature = r_.f32();
    s.top_k = r_.u32();
    s.top_p = r_.f32();
    s.min_p = r_.f32();
    s.repetition_penalty = r_.f32();
    s.presence_penalty = r_.f32();
    s.frequency_penalty = r_.f32();
    s.seed_low = r_.u32();
    s.seed_high = r_.u32();
    s.position = r_.u32();
    s.top_logprobs = r_.u32();
    const int64_t penalties = r_.u32(), biases = r_.u32(), mask = r_.u32();
    if (r_.failed()) return truncated();
    for (float x : {s.temperature, s.top_p, s.min_p, s.repetition_penalty, s.presence_penalty, s.frequency_penalty})
      if (!std::isfinite(x)) return invalid("sampling parameters are finite", "one is not");
    if (s.temperature < 0) return invalid("temperature is at least 0", std::to_string(s.temperature));
    if (s.repetition_penalty <= 0) return invalid("repetitionPenalty is above 0", std::to_string(s.repetition_penalty));
    if (s.top_logprobs > kMaxTopLogprobs) return invalid("topLogprobs is at most 20", std::to_string(s.top_logprobs));
    if (s.top_logprobs > limits_.vocab_size) return invalid("topLogprobs is at most the vocabulary size", std::to_string(s.top_logprobs));
    const int64_t words = (limits_.vocab_size + 31) / 32;
    if (mask != 0 && mask < words) return invalid("a mask has a bit for every token", range(mask, words));
    TANDEM_TRY(span(penalties, s.penalty_tokens));
    TANDEM_TRY(span(penalties, s.penalty_counts));
    TANDEM_TRY(span(biases, s.bias_tokens));
    TANDEM_TRY(span(biases, s.bias_values));
    TANDEM_TRY(span(mask, s.mask));
    TANDEM_TRY(ids(s.penalty_tokens, limits_.vocab_size, "a penalized token is below the vocabulary size"));
    return ids(s.bias_tokens, limits_.vocab_size, "a biased token is below the vocabulary size");
  }

  Reader r_;
  const BatchLimits& limits_;
  Batch& b_;
};

}  // namespace

Status decode_batch(const uint8_t* data, size_t size, const BatchLimits& limits, Batch& out) {
  out = Batch();
  if (size % 4 != 0) return invalid("a batch blob is made of 32-bit words", std::to_string(size) + " bytes");
  out.words.resize(size / 4);
  if (size > 0) std::memcpy(out.words.data(), data, size);
  return Decoder(limits, out).decode();
}

}  // namespace tandem
