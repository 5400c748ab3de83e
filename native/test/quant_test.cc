// Decodes rows of a vector file and compares the f32 bits with the expected ones; also the conversions of half.h by
// their own laws.
//
//   quant_test                                        half.h alone
//   quant_test FORMAT COLUMNS BLOCKS EXPECTED [SCALES]  one file of raw rows against one file of f32, NaN equal to NaN
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "../quant/formats.h"

using namespace tandem::quant;

static int failures = 0;

static void expect(bool condition, const char* what, long at) {
  if (condition) return;
  if (failures++ < 10) std::printf("failed: %s at %ld\n", what, at);
}

static std::vector<char> read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::printf("cannot open %s\n", path);
    std::exit(2);
  }
  return {std::istreambuf_iterator<char>(file), {}};
}

static void test_halves() {
  for (long h = 0; h < 65536; h++) {
    const auto half = static_cast<uint16_t>(h);
    const float wide = f16_to_f32(half);
    const bool nan = (half & 0x7fff) > 0x7c00;
    expect(std::isnan(wide) == nan, "f16 nan", h);
    expect(f32_to_f16(wide) == (nan ? half | 0x200 : half), "f16 round trip", h);
    const int exponent = half >> 10 & 31;
    if (exponent < 31) {
      const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(half & 0x3ff), -24)
                                            : std::ldexp(static_cast<float>((half & 0x3ff) | 0x400), exponent - 25);
      expect(wide == (half & 0x8000 ? -magnitude : magnitude), "f16 value", h);
    }
    const float brain = bf16_to_f32(half);
    expect(float_bits(brain) == static_cast<uint32_t>(half) << 16, "bf16 value", h);
    expect(f32_to_bf16(brain) == (std::isnan(brain) ? half | 0x40 : half), "bf16 round trip", h);
    // Halfway between this half and the next: to the even one; a hair to either side: to the nearer.
    if (exponent < 31 && half < 0x7bff) {
      const float middle = (wide + f16_to_f32(static_cast<uint16_t>(half + 1))) / 2;
      expect(f32_to_f16(middle) == half + (half & 1), "f16 tie", h);
      expect(f32_to_f16(std::nextafterf(middle, 0.0f)) == half, "f16 below tie", h);
      expect(f32_to_f16(std::nextafterf(middle, 1e9f)) == half + 1, "f16 above tie", h);
    }
  }
  expect(f32_to_f16(65519.996f) == 0x7bff && f32_to_f16(65520.0f) == 0x7c00, "f16 overflow", 0);
  for (long c = 0; c < 256; c++) {
    const int exponent = c >> 3 & 15;
    const int mantissa = c & 7;
    const float value = e4m3_to_f32(static_cast<uint8_t>(c));
    if ((c & 0x7f) == 0x7f) {
      expect(std::isnan(value), "e4m3 nan", c);
      continue;
    }
    const float magnitude = exponent == 0 ? std::ldexp(static_cast<float>(mantissa), -9)
                                          : std::ldexp(static_cast<float>(8 + mantissa), exponent - 10);
    expect(value == (c & 0x80 ? -magnitude : magnitude), "e4m3 value", c);
    expect(std::signbit(value) == ((c & 0x80) != 0), "e4m3 sign", c);
  }
}

static void test_vectors(const char* name, long columns, const char* blocks_path, const char* expected_path,
                         const char* scales_path) {
  const FormatInfo* format = find_format(name);
  if (format == nullptr || columns <= 0 || columns % format->block_size != 0) {
    std::printf("no format %s for rows of %ld\n", name, columns);
    std::exit(2);
  }
  const std::vector<char> blocks = read_file(blocks_path);
  const std::vector<char> expected = read_file(expected_path);
  const std::vector<char> scales = scales_path == nullptr ? std::vector<char>() : read_file(scales_path);
  const int64_t size = row_bytes(*format, columns);
  const int64_t rows = static_cast<int64_t>(blocks.size()) / size;
  const int64_t scale_count = format->scale_columns == 0 ? 0 : (columns + format->scale_columns - 1) / format->scale_columns;
  if (rows == 0 || static_cast<int64_t>(blocks.size()) != rows * size ||
      static_cast<int64_t>(expected.size()) != rows * columns * 4 ||
      static_cast<int64_t>(scales.size()) != rows * scale_count * format->scale_bytes) {
    std::printf("%s: file sizes do not fit\n", name);
    std::exit(2);
  }
  std::vector<float> out(static_cast<size_t>(columns));
  for (int64_t r = 0; r < rows; r++) {
    const auto* row_scales = reinterpret_cast<const uint8_t*>(scales.data()) + r * scale_count * format->scale_bytes;
    format->decode_row(blocks.data() + r * size, out.data(), columns, row_scales);
    for (int64_t i = 0; i < columns; i++) {
      float want;
      memcpy(&want, expected.data() + (r * columns + i) * 4, 4);
      const bool same = float_bits(out[i]) == float_bits(want) || (std::isnan(out[i]) && std::isnan(want));
      expect(same, name, r * columns + i);
    }
  }
}

int main(int argc, char** argv) {
  if (argc == 1) {
    test_halves();
  } else if (argc == 5 || argc == 6) {
    test_vectors(argv[1], std::atol(argv[2]), argv[3], argv[4], argc == 6 ? argv[5] : nullptr);
  } else {
    std::printf("usage: quant_test [FORMAT COLUMNS BLOCKS EXPECTED [SCALES]]\n");
    return 2;
  }
  if (failures > 0) std::printf("%d failures\n", failures);
  return failures == 0 ? 0 : 1;
}
