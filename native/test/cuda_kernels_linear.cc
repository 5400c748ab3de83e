// linear and embed of every weight format, over the emulation: bits of the decoders, products within the bound of the op.
#include "test/cuda_kernels_weights.h"

namespace tandem::test {

using namespace tandem::cuda;

static bool same(float a, float b) { return quant::float_bits(a) == quant::float_bits(b) || (std::isnan(a) && std::isnan(b)); }

TEST(cuda_embed_gives_the_bits_of_the_decoders) {
  for (const char* name : kNames) {
    Random random(1);
    const int64_t k = std::strcmp(name, "f16") == 0 || std::strcmp(name, "bf16") == 0 ? 71 : 512, vocabulary = 12, stride = k + 3;
    const Weights table(name, vocabulary, k, random, true);
    const std::vector<int32_t> ids = {11, 0, 5, 5, 7};
    const int32_t rows = 4;
    std::vector<float> y(static_cast<size_t>(5 * stride), kUntouched);
    const EmbedArguments arguments = {table.matrix(), ids.data(), y.data(), stride, &rows};
    if (!launch((std::string("embed_") + name).c_str(), embed_shape(k, 5), arguments, y)) continue;
    for (int64_t r = 0; r < 5; r++) {
      for (int64_t c = 0; c < stride; c++) {
        const float want = r < rows && c < k ? table.values[static_cast<size_t>(ids[static_cast<size_t>(r)] * k + c)] : kUntouched;
        EXPECT_THAT(same(y[static_cast<size_t>(r * stride + c)], want), std::string("embed_") + name + " row " + std::to_string(r) + " column " + std::to_string(c));
      }
    }
  }
}

struct LinearCase {
  int64_t n, k, rows, capacity, batches, x_gap;
  bool bias;
};

static void check_linear(const char* format, int m, const LinearCase& shape, uint64_t seed) {
  Random random(seed);
  const Weights w(format, shape.n * shape.batches, shape.k, random, false);
  const int64_t x_stride = shape.batches * shape.k + shape.x_gap, y_stride = shape.n * shape.batches + 1;
  const std::vector<float> x = random.floats(shape.capacity * x_stride), bias = random.floats(shape.n);
  const auto rows = static_cast<int32_t>(shape.rows);
  std::vector<float> y(static_cast<size_t>(shape.capacity * y_stride), kUntouched);
  LinearArguments a = {};
  a.weight = w.matrix();
  a.weight.n = shape.n;
  a.x = x.data(), a.x_stride = x_stride, a.x_batch = shape.k;
  a.y = y.data(), a.y_stride = y_stride, a.y_batch = shape.n;
  a.bias = shape.bias ? bias.data() : nullptr;
  a.rows = &rows, a.weight_batch = shape.n;
  const std::string name = std::string("linear_") + format + "_m" + std::to_string(m);
  if (!launch(name.c_str(), linear_shape(*w.format, shape.n, shape.k, shape.capacity, m > 1, shape.batches), a, y)) return;
  for (int64_t t = 0; t < shape.capacity; t++) {
    for (int64_t c = 0; c < y_stride; c++) {
      const float actual = y[static_cast<size_t>(t * y_stride + c)];
      if (t >= shape.rows || c == y_stride - 1) {
        EXPECT_THAT(actual == kUntouched, name + " writes past its rows");
        continue;
      }
      double sum = shape.bias ? bias[static_cast<size_t>(c % shape.n)] : 0, magnitude = std::abs(sum);
      for (int64_t i = 0; i < shape.k; i++) {
        const double product = static_cast<double>(w.values[static_cast<size_t>(c * shape.k + i)]) * x[static_cast<size_t>(t * x_stride + c / shape.n * shape.k + i)];
        sum += product;
        magnitude += std::abs(product);
      }
      EXPECT_THAT(within(actual, sum, magnitude), name + " row " + std::to_string(t) + " column " + std::to_string(c) + ": " + std::to_string(actual) + " for " + std::to_string(sum));
    }
  }
}

TEST(cuda_linear_of_every_format) {
  uint64_t seed = 10;
  for (const char* format : kNames) {
    check_linear(format, 1, {19, 768, 1, 1, 1, 0, false}, seed++);
    check_linear(format, 1, {5, 256, 2, 3, 3, 0, false}, seed++);
    check_linear(format, 8, {17, 1280, 6, 9, 1, 4, true}, seed++);
    check_linear(format, 8, {9, 512, 8, 8, 1, 1, true}, seed++);
  }
}

// Every warp has several spans, one of them more than others.
TEST(cuda_linear_of_long_rows) {
  uint64_t seed = 60;
  for (const char* format : {"f32", "f8_e4m3", "q8_0", "mxfp4_g32", "q5_k", "q2_k", "iq2_xxs"}) {
    const int m = seed % 2 == 0 ? 1 : 8;
    check_linear(format, m, {2, 4864, 1, 1, 1, 0, false}, seed++);
  }
}

// A row has the same bits alone and among others, in every place.
TEST(cuda_linear_of_a_row_alone_and_among_others) {
  for (const char* format : {"q4_k", "q6_k", "q8_0", "bf16", "f32", "iq2_xs"}) {
    Random random(7);
    const int64_t n = 20, k = 2304, rows = 8;
    const Weights w(format, n, k, random, false);
    const std::vector<float> x = random.floats(rows * k);
    LinearArguments a = {};
    a.weight = w.matrix();
    a.x_stride = k, a.y_stride = n;
    const auto product = [&](const char* kernel, int64_t first, int32_t count) {
      std::vector<float> y(static_cast<size_t>(count * n), kUntouched);
      a.x = x.data() + first * k, a.y = y.data(), a.rows = &count;
      launch((std::string("linear_") + format + kernel).c_str(), linear_shape(*w.format, n, k, count, count > 1), a, y);
      return y;
    };
    const std::vector<float> all = product("_m8", 0, 8), last = product("_m8", 5, 3);
    for (int64_t r : {0, 3, 7}) {
      const std::vector<float> alone = product("_m1", r, 1);
      EXPECT_THAT(std::memcmp(alone.data(), &all[static_cast<size_t>(r * n)], static_cast<size_t>(n) * 4) == 0, std::string(format) + " row " + std::to_string(r) + " has other bits among eight");
    }
    EXPECT_THAT(std::memcmp(last.data(), &all[static_cast<size_t>(5 * n)], last.size() * 4) == 0, std::string(format) + ": three rows have other bits among eight");
  }
}

// Rows of the matrix summed with the weights of x, for several heads that lie apart.
TEST(cuda_linear_transposed_of_every_format) {
  uint64_t seed = 200;
  for (const char* format : kNames) {
    Random random(seed++);
    const int64_t heads = 2, n = 35, gap = 4, k = 512, rows = 2, capacity = 3, first = 1;
    const Weights w(format, first + heads * (n + gap), k, random, false);
    const int64_t x_stride = heads * n + 1, y_stride = heads * (k + 1);
    const std::vector<float> x = random.floats(capacity * x_stride);
    const auto live = static_cast<int32_t>(rows);
    std::vector<float> y(static_cast<size_t>(capacity * y_stride), kUntouched);
    LinearArguments a = {};
    a.weight = w.matrix();
    a.weight.n = n, a.weight_first = first, a.weight_batch = n + gap;
    a.x = x.data(), a.x_stride = x_stride, a.x_batch = n;
    a.y = y.data(), a.y_stride = y_stride, a.y_batch = k + 1, a.rows = &live;
    const std::string name = std::string("linear_transposed_") + format;
    if (!launch(name.c_str(), transposed_shape(k, capacity, heads), a, y)) continue;
    for (int64_t t = 0; t < capacity; t++) {
      for (int64_t c = 0; c < y_stride; c++) {
        const float actual = y[static_cast<size_t>(t * y_stride + c)];
        const int64_t head = c / (k + 1), column = c % (k + 1);
        double sum = 0, magnitude = 0;
        for (int64_t i = 0; i < n && column < k; i++) {
          const double product = static_cast<double>(w.values[static_cast<size_t>((first + head * (n + gap) + i) * k + column)]) * x[static_cast<size_t>(t * x_stride + head * n + i)];
          sum += product;
          magnitude += std::abs(product);
        }
        if (t >= rows || column == k) EXPECT_THAT(actual == kUntouched, name + " writes past its rows");
        else EXPECT_THAT(within(actual, sum, magnitude), name + " row " + std::to_string(t) + " column " + std::to_string(c));
      }
    }
  }
}

TEST(cuda_linear_at_the_edges) {
  for (const char* format : {"f32", "f16", "bf16", "f8_e4m3"}) {
    for (int64_t k : {1, 31, 33, 100, 129}) check_linear(format, 8, {3, k, 3, 4, 1, k % 3, true}, static_cast<uint64_t>(k));
  }
  check_linear("q8_0", 1, {33, 32, 1, 2, 1, 0, true}, 77);
  check_linear("q4_0", 8, {1, 96, 0, 5, 1, 0, true}, 78);  // no rows at all
  check_linear("q6_k", 8, {2, 256, 17, 17, 1, 0, false}, 79);
}

}  // namespace tandem::test
