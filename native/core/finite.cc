#include "core/finite.h"

#include <cstddef>
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
#define FIRST(block) static_cast<int>(offsetof(quant::block, d))
#define SECOND(block, field) static_cast<int>(offsetof(quant::block, field))
constexpr Scales kScales[] = {
    {"q8_0", FIRST(BlockQ8_0), -1},
    {"q4_0", FIRST(BlockQ4_0), -1},
    {"q4_1", FIRST(BlockQ4_1), SECOND(BlockQ4_1, m)},
    {"q5_0", FIRST(BlockQ5_0), -1},
    {"q5_1", FIRST(BlockQ5_1), SECOND(BlockQ5_1, m)},
    {"iq4_nl", FIRST(BlockIq4Nl), -1},
    {"q2_k", FIRST(BlockQ2K), SECOND(BlockQ2K, dmin)},
    {"q3_k", FIRST(BlockQ3K), -1},
    {"q4_k", FIRST(BlockQ4K), SECOND(BlockQ4K, dmin)},
    {"q5_k", FIRST(BlockQ5K), SECOND(BlockQ5K, dmin)},
    {"q6_k", FIRST(BlockQ6K), -1},
    {"iq4_xs", FIRST(BlockIq4Xs), -1},
    {"iq2_xxs", FIRST(BlockIq2Xxs), -1},
    {"iq2_xs", FIRST(BlockIq2Xs), -1},
    {"iq2_s", FIRST(BlockIq2S), -1},
    {"iq3_xxs", FIRST(BlockIq3Xxs), -1},
    {"iq3_s", FIRST(BlockIq3S), -1},
    {"iq1_s", FIRST(BlockIq1S), -1},
};
#undef FIRST
#undef SECOND

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
  // Scales that are no plain f16: the exponent byte of mxfp4 (255 is NaN, from 253 on the largest level
  // overflows), in iq1_m the nibbles of an f16 in four words.
  if (name == "mxfp4") {
    bool bad = false;
    for (int64_t at = 0; at < bytes; at += format.block_bytes) bad |= row[at + static_cast<int64_t>(offsetof(quant::BlockMxfp4, exponent))] >= 253;
    return bad;
  }
  if (name == "e8m0") {
    uint8_t largest = 0;
    for (int64_t i = 0; i < bytes; i++) largest = row[i] > largest ? row[i] : largest;
    return largest >= 253;
  }
  if (name == "iq1_m") {
    // The high nibble of the last word holds sign and the top three exponent bits, that of the third the other two.
    bool bad = false;
    for (int64_t at = 0; at < bytes; at += format.block_bytes) {
      const uint8_t* words = row + at + offsetof(quant::BlockIq1M, scales);
      bad |= (words[7] >> 4 & 7) == 7 && (words[5] >> 4 & 12) == 12;
    }
    return bad;
  }
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
