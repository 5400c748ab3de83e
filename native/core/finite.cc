#include "core/finite.h"

#include <cstring>
#include <string_view>

namespace tandem {

namespace {

// Where a block keeps its f16 scales; -1 = it has only one.
struct Scales {
  std::string_view format;
  int first;
  int second;
};
constexpr Scales kScales[] = {
    {"q8_0", 0, -1},  {"q4_0", 0, -1}, {"q4_1", 0, 2}, {"q5_0", 0, -1},  {"q5_1", 0, 2},     {"iq4_nl", 0, -1},
    {"q2_k", 80, 82}, {"q3_k", 108, -1}, {"q4_k", 0, 2}, {"q5_k", 0, 2}, {"q6_k", 208, -1}, {"iq4_xs", 0, -1},
};

template <typename Word> Word load(const uint8_t* at) {
  Word word;
  std::memcpy(&word, at, sizeof word);
  return word;
}

// A float is NaN or infinite when its exponent bits are all set. No early exit: the loop stays a vector loop.
template <typename Word> bool any_exponent_full(const uint8_t* data, int64_t count, Word exponent) {
  Word bad = 0;
  for (int64_t i = 0; i < count; i++) bad |= static_cast<Word>((load<Word>(data + i * static_cast<int64_t>(sizeof(Word))) & exponent) == exponent);
  return bad != 0;
}

bool half_is_bad(const uint8_t* at) { return (load<uint16_t>(at) & 0x7c00) == 0x7c00; }

bool row_is_bad(const quant::FormatInfo& format, const Scales* scales, const uint8_t* row, int64_t bytes) {
  const std::string_view name = format.name;
  if (scales != nullptr) {
    bool bad = false;
    for (int64_t at = 0; at + format.block_bytes <= bytes; at += format.block_bytes) {
      bad |= half_is_bad(row + at + scales->first);
      if (scales->second >= 0) bad |= half_is_bad(row + at + scales->second);
    }
    return bad;
  }
  if (name == "f32") return any_exponent_full<uint32_t>(row, bytes / 4, 0x7f800000u);
  if (name == "bf16") return any_exponent_full<uint16_t>(row, bytes / 2, 0x7f80);
  if (name == "f16") return any_exponent_full<uint16_t>(row, bytes / 2, 0x7c00);
  if (name == "f8_e4m3") return any_exponent_full<uint8_t>(row, bytes, 0x7f);
  return false;
}

}  // namespace

int64_t first_non_finite_row(const quant::FormatInfo& format, const uint8_t* rows, int64_t count, int64_t row_bytes) {
  const Scales* scales = nullptr;
  for (const Scales& entry : kScales)
    if (entry.format == format.name) scales = &entry;
  for (int64_t r = 0; r < count; r++)
    if (row_is_bad(format, scales, rows + r * row_bytes, row_bytes)) return r;
  return -1;
}

}  // namespace tandem
