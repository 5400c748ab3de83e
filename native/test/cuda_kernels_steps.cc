// The small steps over the emulation: norms, rotation, routing, elementwise, cache writes, greedy tokens. Expected values are
// computed here in f64 from docs/reference/ops.md.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "quant/half.h"
#include "test/cuda_kernels_attention.h"

namespace tandem::test {

using namespace tandem::cuda;

static std::string at(const char* what, int64_t row, int64_t column) { return std::string(what) + " row " + std::to_string(row) + " column " + std::to_string(column); }

TEST(cuda_elementwise) {
  for (int64_t columns : {1, 255, 256, 300}) {
    Random random(static_cast<uint64_t>(columns));
    const int64_t capacity = 3, stride = columns + 2;
    const int32_t rows = 2;
    std::vector<float> a = random.floats(capacity * stride, 20), b = random.floats(capacity * columns);
    a[0] = -INFINITY, a[stride] = NAN, a[1] = -100;
    std::vector<float> y(static_cast<size_t>(capacity * columns), kUntouched), z = y, g = y;
    const ElementwiseArguments arguments = {a.data(), stride, b.data(), columns, y.data(), columns, columns, &rows};
    launch("add", elementwise_shape(columns, capacity), arguments, y);
    ElementwiseArguments gated = arguments;
    gated.y = z.data();
    launch("glu", elementwise_shape(columns, capacity), gated, z);
    const std::vector<int32_t> index = {2, 0, 1};
    const GatherArguments gather = {a.data(), stride, index.data(), g.data(), columns, columns, &rows};
    launch("gather_rows", elementwise_shape(columns, capacity), gather, g);
    for (int64_t r = 0; r < capacity; r++) {
      for (int64_t c = 0; c < columns; c++) {
        const size_t place = static_cast<size_t>(r * columns + c);
        if (r >= rows) {
          EXPECT_THAT(y[place] == kUntouched && z[place] == kUntouched && g[place] == kUntouched, at("elementwise past its rows", r, c));
          continue;
        }
        const double p = a[static_cast<size_t>(r * stride + c)], q = b[place];
        EXPECT_THAT(within(y[place], p + q, 0), at("add", r, c));
        EXPECT_THAT(within(z[place], p / (1 + std::exp(-p)) * q, 0), at("glu", r, c));
        const float moved = a[static_cast<size_t>(index[static_cast<size_t>(r)] * stride + c)];
        EXPECT_THAT(std::memcmp(&moved, &g[place], 4) == 0, at("gather_rows", r, c));
      }
    }
  }
}

TEST(cuda_rms_norm) {
  for (int64_t group : {1, 31, 64, 100, 576, 2048, 7168}) {
    Random random(static_cast<uint64_t>(group));
    const int64_t columns = group < 1000 ? 3 * group : group, capacity = 3, stride = columns + 1;
    const int32_t rows = 2;
    const float epsilon = 1e-6f;
    const std::vector<float> x = random.floats(capacity * stride, 30), w = random.floats(group);
    std::vector<float> y(static_cast<size_t>(capacity * columns), kUntouched);
    const RmsNormArguments arguments = {x.data(), stride, w.data(), y.data(), columns, columns, group, epsilon, &rows};
    launch("rms_norm", rms_norm_shape(columns, group, capacity), arguments, y);
    for (int64_t r = 0; r < capacity; r++) {
      for (int64_t c = 0; c < columns; c++) {
        const float actual = y[static_cast<size_t>(r * columns + c)];
        if (r >= rows) {
          EXPECT_THAT(actual == kUntouched, at("rms_norm past its rows", r, c));
          continue;
        }
        double squares = 0;
        const int64_t start = r * stride + c / group * group;
        for (int64_t i = 0; i < group; i++) squares += static_cast<double>(x[static_cast<size_t>(start + i)]) * x[static_cast<size_t>(start + i)];
        const double scale = 1 / std::sqrt(squares / static_cast<double>(group) + epsilon);
        EXPECT_THAT(within(actual, x[static_cast<size_t>(r * stride + c)] * scale * w[static_cast<size_t>(c % group)], 0), at("rms_norm", r, c));
      }
    }
  }
}

struct RopeCase {
  int64_t heads, head_size, offset, width;
  bool paired;
};

TEST(cuda_rope) {
  for (const RopeCase& shape : {RopeCase{3, 64, 0, 64, false}, RopeCase{2, 192, 128, 64, true}, RopeCase{1, 10, 2, 6, true}, RopeCase{5, 10, 4, 2, false}}) {
    Random random(static_cast<uint64_t>(shape.head_size));
    const int64_t columns = shape.heads * shape.head_size, capacity = 4, pairs = shape.width / 2;
    const int32_t rows = 3;
    const std::vector<int32_t> positions = {0, 131071, 17, 3};
    const std::vector<float> x = random.floats(capacity * columns);
    std::vector<double> frequencies;
    for (int64_t i = 0; i < pairs; i++) frequencies.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(shape.width)));
    const double magnitude = 1.25;
    std::vector<float> y(x.size(), kUntouched);
    const RopeArguments arguments = {x.data(), columns, y.data(), columns, columns, shape.head_size, shape.offset, shape.width, frequencies.data(), magnitude, shape.paired, positions.data(), &rows};
    launch("rope", rope_shape(capacity), arguments, y);
    std::vector<double> expected(x.begin(), x.end()), sizes(x.size(), 0);
    for (int64_t r = 0; r < rows; r++) {
      for (int64_t i = 0; i < pairs; i++) {
        const double angle = positions[static_cast<size_t>(r)] * frequencies[static_cast<size_t>(i)];
        const double c = std::cos(angle) * magnitude, s = std::sin(angle) * magnitude;
        for (int64_t h = 0; h < shape.heads; h++) {
          const auto first = static_cast<size_t>(r * columns + h * shape.head_size + shape.offset + (shape.paired ? 2 * i : i));
          const size_t second = first + static_cast<size_t>(shape.paired ? 1 : pairs);
          const double a = x[first], b = x[second];
          expected[first] = a * c - b * s;
          expected[second] = a * s + b * c;
          sizes[first] = sizes[second] = (std::abs(a) + std::abs(b)) * magnitude;
        }
      }
    }
    for (int64_t r = 0; r < capacity; r++) {
      for (int64_t c = 0; c < columns; c++) {
        const auto place = static_cast<size_t>(r * columns + c);
        if (r >= rows) EXPECT_THAT(y[place] == kUntouched, at("rope past its rows", r, c));
        else if (sizes[place] == 0) EXPECT_THAT(y[place] == x[place], at("rope copies", r, c));
        else EXPECT_THAT(within(y[place], expected[place], sizes[place]), at("rope", r, c));
      }
    }
  }
}

struct RouterCase {
  int experts, topk, groups, group_topk;
  bool sigmoid, top2, normalize, bias;
};

// Indices of the `count` largest, ties to the lowest index.
static std::vector<int> largest(const std::vector<float>& values, int count) {
  std::vector<int> order(values.size());
  for (size_t i = 0; i < order.size(); i++) order[i] = static_cast<int>(i);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[static_cast<size_t>(a)] > values[static_cast<size_t>(b)]; });
  order.resize(static_cast<size_t>(count));
  return order;
}

static std::vector<int> routed(const float* logits, const float* bias, const RouterCase& shape, std::vector<float>& scores) {
  const int experts = shape.experts;
  double maximum = -INFINITY, sum = 0;
  for (int e = 0; e < experts; e++) maximum = logits[e] > maximum ? logits[e] : maximum;
  for (int e = 0; e < experts; e++) sum += std::exp(logits[e] - maximum);
  std::vector<float> choice(static_cast<size_t>(experts));
  scores = choice;
  for (int e = 0; e < experts; e++) {
    const double logit = logits[e];
    scores[e] = static_cast<float>(shape.sigmoid ? 1 / (1 + std::exp(-logit)) : std::exp(logit - maximum) / sum);
    choice[e] = scores[e] + (bias == nullptr ? 0 : bias[e]);
    if (std::isnan(choice[e])) choice[e] = -INFINITY;
  }
  if (shape.groups > 1 && shape.group_topk < shape.groups) {
    const int size = experts / shape.groups;
    std::vector<float> groups;
    for (int g = 0; g < shape.groups; g++) {
      const std::vector<float> members(choice.begin() + g * size, choice.begin() + (g + 1) * size);
      const std::vector<int> best = largest(members, std::min(2, size));
      groups.push_back(shape.top2 && size > 1 ? members[best[0]] + members[best[1]] : members[best[0]]);
    }
    const std::vector<int> kept = largest(groups, shape.group_topk);
    for (int e = 0; e < experts; e++) {
      if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) choice[e] = -INFINITY;
    }
  }
  return largest(choice, shape.topk);
}

TEST(cuda_router) {
  const RouterCase cases[] = {
      {256, 8, 8, 4, true, true, true, true},    {128, 8, 1, 1, false, false, true, false}, {160, 6, 8, 3, false, false, false, false},
      {384, 8, 1, 1, true, false, true, true},   {7, 7, 1, 1, false, false, false, true},   {1, 1, 1, 1, true, true, true, false},
      {1024, 32, 32, 2, true, true, false, true}, {8, 2, 8, 2, true, true, true, false},     {33, 4, 3, 3, false, true, true, false}};
  uint64_t seed = 100;
  for (const RouterCase& shape : cases) {
    Random random(seed++);
    const int64_t capacity = 6, experts = shape.experts, topk = shape.topk;
    const int32_t rows = 5;
    std::vector<float> logits = random.floats(capacity * experts, 4), bias = random.floats(experts, 0.2f);
    for (int64_t e = 0; e < experts; e++) {
      logits[static_cast<size_t>(experts + e)] = 0.5f;                                // all equal: the lowest win
      logits[static_cast<size_t>(2 * experts + e)] = static_cast<float>(e * 7 % 5);   // many ties
      logits[static_cast<size_t>(3 * experts + e)] = e % 3 == 0 ? NAN : logits[static_cast<size_t>(3 * experts + e)];
      logits[static_cast<size_t>(4 * experts + e)] = e == 0 ? 1.0f : -INFINITY;
    }
    std::vector<float> out(static_cast<size_t>(2 * capacity * topk), kUntouched);
    auto* ids = reinterpret_cast<int32_t*>(out.data());
    float* weights = out.data() + capacity * topk;
    const RouterArguments arguments = {logits.data(), experts, shape.bias ? bias.data() : nullptr, ids, topk, weights, topk, shape.experts, shape.topk,
                                       shape.groups, shape.group_topk, shape.sigmoid, shape.top2, shape.normalize, 2.5, &rows};
    launch("router", router_shape(capacity), arguments, out);
    for (int64_t r = 0; r < rows; r++) {
      std::vector<float> scores;
      const std::vector<int> chosen = routed(&logits[static_cast<size_t>(r * experts)], arguments.bias, shape, scores);
      double sum = 0;
      for (int e : chosen) sum += scores[static_cast<size_t>(e)];
      const double factor = 2.5 / (shape.normalize ? sum + 1e-20 : 1);
      for (int64_t j = 0; j < topk; j++) {
        const int e = chosen[static_cast<size_t>(j)];
        EXPECT_THAT(ids[r * topk + j] == e, at("router id", r, j) + " of " + std::to_string(experts));
        EXPECT_THAT(within(weights[r * topk + j], scores[static_cast<size_t>(e)] * factor, 0), at("router weight", r, j) + " of " + std::to_string(experts));
      }
    }
    EXPECT_THAT(weights[rows * topk] == kUntouched, "router writes past its rows");
  }
}

TEST(cuda_rank_experts) {
  const float odd[] = {0.0f, -0.0f, 1.0f, 1.0f, -1.0f, INFINITY, -INFINITY, NAN};
  for (const int64_t topk : {1, 2, 3, 8, 33, 65}) {
    Random random(static_cast<uint64_t>(topk));
    const int64_t capacity = 5, stride = topk + 2;
    const int32_t rows = 4;
    std::vector<float> weights = random.floats(capacity * stride, 1);
    std::vector<int32_t> ids(static_cast<size_t>(capacity * stride));
    for (size_t i = 0; i < ids.size(); i++) {
      ids[i] = i % 7 == 3 ? -1 : static_cast<int32_t>(i);
      if (i >= static_cast<size_t>(2 * stride)) weights[i] = odd[i * 5 % 8];
    }
    std::vector<float> out(static_cast<size_t>(2 * capacity * topk), kUntouched);
    auto* ranked = reinterpret_cast<int32_t*>(out.data());
    float* shares = out.data() + capacity * topk;
    const RankExpertsArguments arguments = {ids.data() + 1, stride, weights.data() + 1, stride, ranked, topk, shares, topk, static_cast<int32_t>(topk), &rows};
    launch("rank_experts", router_shape(capacity), arguments, out);
    for (int64_t r = 0; r < rows; r++) {
      std::vector<int64_t> order(static_cast<size_t>(topk));
      std::iota(order.begin(), order.end(), r * stride + 1);
      const auto heavy = [&](int64_t i) { return ids[static_cast<size_t>(i)] < 0 || std::isnan(weights[static_cast<size_t>(i)]) ? -INFINITY : weights[static_cast<size_t>(i)]; };
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return heavy(a) > heavy(b); });
      for (int64_t j = 0; j < topk; j++) {
        const size_t from = static_cast<size_t>(order[static_cast<size_t>(j)]);
        EXPECT_THAT(ranked[r * topk + j] == ids[from], at("ranked id", r, j) + " of " + std::to_string(topk));
        EXPECT_THAT(std::memcmp(&shares[r * topk + j], &weights[from], 4) == 0, at("ranked weight", r, j) + " of " + std::to_string(topk));
      }
    }
    EXPECT_THAT(shares[rows * topk] == kUntouched, "rank_experts writes past its rows");
  }
}

TEST(cuda_cache_append) {
  for (const CacheType& type : {kF32, kBf16, kE4m3}) {
    Random random(3);
    // Two streams a page; the second is written, its columns [first, first + columns) of every head.
    const int64_t page_tokens = 4, heads = 3, width = 10, columns = 6, first = 4, offset = 7, pages = 5;
    const int64_t page_elements = offset + heads * page_tokens * width, stride = heads * columns + 1;
    const std::vector<int32_t> tables = {3, 1, 0, 4, 2, 0}, positions = {2, 3, 4, 5, 0, 9}, owners = {0, 0, 0, 1, 2, 0};
    const std::vector<uint8_t> dead = {0, 0, 1};
    const int32_t rows = 5;
    const std::vector<float> x = random.floats(6 * stride, 3);
    std::vector<float> cache(static_cast<size_t>(pages * page_elements), kUntouched);
    CacheAppendArguments a = {};
    a.cache = {reinterpret_cast<uint8_t*>(cache.data()), page_elements, page_tokens, offset, width, tables.data(), 2, positions.data(), owners.data(), dead.data(), &rows};
    a.x = x.data(), a.x_stride = stride, a.heads = heads, a.columns = columns, a.first = first;
    std::vector<float> expected = cache;
    auto* bytes = reinterpret_cast<uint8_t*>(expected.data());
    for (int64_t r = 0; r < 4; r++) {  // row 4 is dead, row 5 none of the pass
      const int64_t page = tables[static_cast<size_t>(owners[static_cast<size_t>(r)] * 2 + positions[static_cast<size_t>(r)] / page_tokens)];
      for (int64_t h = 0; h < heads; h++) {
        for (int64_t c = 0; c < columns; c++) {
          const int64_t element = page * page_elements + offset + (h * page_tokens + positions[static_cast<size_t>(r)] % page_tokens) * width + first + c;
          const float value = x[static_cast<size_t>(r * stride + h * columns + c)];
          const uint16_t half = quant::f32_to_bf16(value);
          if (type.bytes == 1) bytes[element] = nearest_e4m3(value);
          else std::memcpy(bytes + type.bytes * element, type.bytes == 2 ? static_cast<const void*>(&half) : &value, static_cast<size_t>(type.bytes));
        }
      }
    }
    launch((std::string("cache_append_") + type.name).c_str(), elementwise_shape(heads * columns, 6), a, cache);
    EXPECT_THAT(std::memcmp(cache.data(), expected.data(), cache.size() * 4) == 0, std::string(type.name) + " cache");
  }
}

// Every e4m3, the middles between two, what is next to both, and what is too large.
TEST(cuda_cache_append_rounds_to_e4m3) {
  std::vector<float> x = {0.0f, -0.0f, 448.0f, 463.9f, 464.0f, 480.0f, 1e30f, -1e30f, INFINITY, -INFINITY, NAN, 0x1p-10f, 0x1p-11f, 0x1p-149f, 0x1.8p-10f};
  for (int code = 0; code < 0x7e; code++) {
    const float low = quant::e4m3_to_f32(static_cast<uint8_t>(code)), middle = (low + quant::e4m3_to_f32(static_cast<uint8_t>(code + 1))) / 2;
    for (float value : {low, middle, std::nextafter(middle, 0.0f), std::nextafter(middle, 500.0f)}) x.push_back(value), x.push_back(-value);
  }
  const auto count = static_cast<int64_t>(x.size());
  const int32_t rows = 1, zero = 0;
  std::vector<float> cache(static_cast<size_t>(count / 4 + 1), kUntouched);
  CacheAppendArguments a = {};
  a.cache = {reinterpret_cast<uint8_t*>(cache.data()), count, 1, 0, count, &zero, 1, &zero, &zero, nullptr, &rows};
  a.x = x.data(), a.x_stride = count, a.heads = 1, a.columns = count;
  if (!launch("cache_append_e4m3", elementwise_shape(count, 1), a, cache)) return;
  const auto* bytes = reinterpret_cast<const uint8_t*>(cache.data());
  for (int64_t i = 0; i < count; i++) {
    const float value = x[static_cast<size_t>(i)];
    const uint8_t want = std::isinf(value) ? (value > 0 ? 0x7e : 0xfe) : nearest_e4m3(value);
    EXPECT_THAT(bytes[i] == want, std::to_string(value) + " becomes " + std::to_string(bytes[i]) + ", not " + std::to_string(want));
  }
}

TEST(cuda_greedy) {
  for (int64_t vocabulary : {1, 31, 257, 5000}) {
    Random random(static_cast<uint64_t>(vocabulary));
    const int64_t capacity = 6;
    const int32_t rows = 5;
    std::vector<float> logits = random.floats(capacity * vocabulary, 10);
    const auto row = [&](int64_t r) { return &logits[static_cast<size_t>(r * vocabulary)]; };
    for (int64_t i = 0; i < vocabulary; i++) {
      row(1)[i] = i % 2 ? -INFINITY : NAN;                                          // nothing to draw
      row(2)[i] = 3;                                                                // the lowest of equals
      row(3)[i] = i == vocabulary - 1 ? -1e30f : i % 2 ? NAN : -INFINITY;           // one candidate
      if (i % 50 == 7) row(4)[i] = INFINITY;
    }
    std::vector<float> out(static_cast<size_t>(capacity), kUntouched);
    auto* tokens = reinterpret_cast<int32_t*>(out.data());
    const GreedyArguments arguments = {logits.data(), vocabulary, vocabulary, tokens, &rows};
    launch("greedy", greedy_shape(capacity), arguments, out);
    for (int64_t r = 0; r < rows; r++) {
      int32_t best = -1;
      for (int64_t i = 0; i < vocabulary; i++) {
        if (row(r)[i] > -INFINITY && (best < 0 || row(r)[i] > row(r)[best])) best = static_cast<int32_t>(i);
      }
      EXPECT_THAT(tokens[r] == best, "greedy row " + std::to_string(r) + " of " + std::to_string(vocabulary));
    }
    EXPECT_THAT(out[5] == kUntouched, "greedy writes past its rows");
  }
}

}  // namespace tandem::test
