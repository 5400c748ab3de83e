// Every format: rows whose blocks hold random codes and good scales pass, and whatever decodes to a NaN or an infinity is found.
#include <cmath>
#include <random>
#include <vector>

#include "core/finite.h"
#include "test/harness.h"

namespace tandem {

TEST(finite_agrees_with_the_decoder) {
  std::mt19937 random(4);
  for (const quant::FormatInfo& format : quant::kFormats) {
    const int64_t columns = 256, bytes = quant::row_bytes(format, columns);
    int bad = 0;
    for (int round = 0; round < 4000; round++) {
      std::vector<uint8_t> row(static_cast<size_t>(bytes));
      for (uint8_t& byte : row) byte = static_cast<uint8_t>(random() >> 8);
      if (round % 2 == 0)  // half of the rows: large exponents everywhere
        for (uint8_t& byte : row) byte |= random() % 4 ? 0x7c : 0;
      std::vector<float> values(static_cast<size_t>(columns));
      const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};  // scales enough for any format, were they of two bytes or one
      format.decode_row(row.data(), values.data(), columns, reinterpret_cast<const uint8_t*>(ones));
      bool finite = true;
      for (float value : values) finite = finite && std::isfinite(value);
      const bool passed = first_non_finite_row(format, row.data(), 1, bytes) < 0;
      bad += finite ? 0 : 1;
      if (passed && !finite) test::failed(__FILE__, __LINE__, std::string("a bad row passed: ") + format.name);
      // An infinite scale times a zero code or against a zero minimum may decode to finite numbers; it is refused all the same.
      if (format.block_size == 1) EXPECT(passed == finite);
    }
    const bool apart = format.scale_rows > 0 && format.block_size > 1;  // codes alone are always finite, their scales are a tensor of their own
    if (bad == 0 && !apart) test::failed(__FILE__, __LINE__, std::string("no bad row was drawn for ") + format.name);
  }
}

TEST(finite_names_the_first_bad_row) {
  const quant::FormatInfo& f32 = *quant::find_format("f32");
  std::vector<float> rows(5 * 7, 1.0f);
  const uint8_t* data = reinterpret_cast<const uint8_t*>(rows.data());
  EXPECT(first_non_finite_row(f32, data, 5, 28) == -1);
  rows[3 * 7 + 6] = -INFINITY;
  EXPECT(first_non_finite_row(f32, data, 5, 28) == 3);
  rows[1 * 7] = NAN;
  EXPECT(first_non_finite_row(f32, data, 5, 28) == 1);
}

}  // namespace tandem
