// Products on tensor cores and the routed experts over the emulation. What is rounded to bf16 by contract is rounded here too,
// so the kernels are judged on their arithmetic alone.
#include <array>

#include "test/cuda_kernels_rounded.h"
#include "test/cuda_kernels_weights.h"

namespace tandem::test {

using namespace tandem::cuda;

static double rounded(float value) { return quant::bf16_to_f32(quant::f32_to_bf16(value)); }

// Column of a product: row `n` of w with x, both rounded to bf16 on tiles.
struct Product {
  double sum = 0, magnitude = 0;
  Product(const float* x, const float* w, int64_t k, bool tiles) {
    for (int64_t i = 0; i < k; i++) {
      const double product = tiles ? rounded(x[i]) * rounded(w[i]) : static_cast<double>(x[i]) * w[i];
      sum += product;
      magnitude += std::abs(product);
    }
  }
};

struct TilesCase {
  int64_t n, k, rows, capacity, x_gap = 0, batches = 1;
  bool small = false;
};

static void check_linear_tiles(const char* format, const TilesCase& shape, uint64_t seed) {
  Random random(seed);
  const int64_t n = shape.n, k = shape.k, apart = n + 2, first = shape.batches > 1 ? 1 : 0;
  const Weights w(format, first + (shape.batches - 1) * apart + n, k, random, false);
  const int64_t x_stride = k + shape.x_gap, y_stride = shape.batches * n + 1;
  const std::vector<float> x = random.floats(shape.capacity * x_stride), bias = random.floats(n);
  const auto live = static_cast<int32_t>(shape.rows);
  const std::vector<uint16_t> rounded_x = round_rows(x.data(), x_stride, shape.capacity, k, format, &live);
  std::vector<float> y(static_cast<size_t>(shape.capacity * y_stride), kUntouched);
  LinearTilesArguments a = {};
  a.weight = w.matrix(), a.weight.n = n, a.x = rounded_x.data(), a.x_stride = rounded_columns(k), a.y = y.data(), a.y_stride = y_stride, a.y_batch = n, a.bias = bias.data(), a.rows = &live;
  a.batches = shape.batches, a.weight_first = first, a.weight_batch = apart;
  const std::string name = std::string("linear_") + format + (shape.small ? "_tiles_small" : "_tiles");
  if (!launch(name.c_str(), linear_tiles_shape(n, shape.capacity, shape.batches, shape.small), a, y)) return;
  for (int64_t t = 0; t < shape.capacity; t++) {
    for (int64_t c = 0; c < y_stride; c++) {
      const float actual = y[static_cast<size_t>(t * y_stride + c)];
      if (t >= shape.rows || c == y_stride - 1) {
        EXPECT_THAT(actual == kUntouched, name + " writes past its rows");
        continue;
      }
      const Product want(&x[static_cast<size_t>(t * x_stride)], &w.values[static_cast<size_t>((first + c / n * apart + c % n) * k)], k, true);
      const double offset = bias[static_cast<size_t>(c % n)];
      EXPECT_THAT(within(actual, want.sum + offset, want.magnitude + std::abs(offset)), name + " row " + std::to_string(t) + " column " + std::to_string(c) + ": " + std::to_string(actual) + " for " + std::to_string(want.sum + offset));
    }
  }
}

// Every column of x in its place, for all orders; past the last one zeros.
TEST(cuda_round_rows_keeps_every_column) {
  const int32_t rows = 3;
  for (const int64_t k : {256, 100, 33}) {
    Random random(static_cast<uint64_t>(k));
    const std::vector<float> x = random.floats(rows * (k + 1));
    for (const char* format : {"bf16", "q8_0", "iq4_xs", "q4_k", "q6_k"}) {
      const std::vector<uint16_t> y = round_rows(x.data(), k + 1, rows + 1, k, format, &rows);
      const int64_t stride = rounded_columns(k);
      for (int64_t r = 0; r < rows; r++) {
        std::vector<int> seen(static_cast<size_t>(stride), 0);
        for (int64_t at = 0; at < stride; at++) {
          const int64_t half = at / 64, word = at % 64 / 8;
          const ColumnOrder order = column_order(format);
          const EightColumns eight = eight_columns(order, static_cast<int>(word & 3), static_cast<int>(2 * (half & 1) + (word >> 2)));
          const int64_t i = at % 8, turn = order == ColumnOrder::interleaved ? i % 2 : i / 4, within = order == ColumnOrder::interleaved ? i / 2 : i % 4;
          const int64_t column = half / 2 * 128 + (turn == 0 ? eight.first : eight.second) + within;
          seen[static_cast<size_t>(column)]++;
          const uint16_t want = column < k ? quant::f32_to_bf16(x[static_cast<size_t>(r * (k + 1) + column)]) : uint16_t{0};
          EXPECT_THAT(y[static_cast<size_t>(r * stride + at)] == want, std::string("round_rows for ") + format + " place " + std::to_string(at));
        }
        EXPECT_THAT(std::count(seen.begin(), seen.end(), 1) == stride, "every column once");
      }
      for (int64_t at = 0; at < stride; at++) EXPECT_THAT(std::isnan(quant::bf16_to_f32(y[static_cast<size_t>(rows * stride + at)])), "rows that there are not stay as they were");
    }
  }
}

TEST(cuda_linear_tiles_of_every_format) {
  uint64_t seed = 300;
  for (const char* format : kNames) {
    check_linear_tiles(format, {18, 512, 9, 9, 0, 1, seed % 2 == 0}, seed);
    seed++;
  }
}

// Rows of x that are 1 in one column give the weights themselves: rounded to bf16 from their f32, once.
TEST(cuda_linear_tiles_round_weights_once) {
  uint64_t seed = 350;
  for (const char* format : kNames) {
    Random random(seed++);
    const int64_t n = 2, k = 256;
    const Weights w(format, n, k, random, false);
    std::vector<float> x(static_cast<size_t>(k * k), 0);
    for (int64_t c = 0; c < k; c++) x[static_cast<size_t>(c * k + c)] = 1;
    const int32_t live = k;
    const std::vector<uint16_t> rounded_x = round_rows(x.data(), k, k, k, format, &live);
    std::vector<float> y(static_cast<size_t>(k * n), kUntouched);
    LinearTilesArguments a = {};
    a.weight = w.matrix(), a.x = rounded_x.data(), a.x_stride = k, a.y = y.data(), a.y_stride = n, a.rows = &live, a.batches = 1;
    const std::string name = std::string("linear_") + format + "_tiles";
    if (!launch(name.c_str(), linear_tiles_shape(n, k, 1, false), a, y)) continue;
    for (int64_t c = 0; c < k; c++) {
      for (int64_t r = 0; r < n; r++) {
        const double want = rounded(w.values[static_cast<size_t>(r * k + c)]);
        EXPECT_THAT(y[static_cast<size_t>(c * n + r)] == want, name + " weight " + std::to_string(c) + " of row " + std::to_string(r) + ": " + std::to_string(y[static_cast<size_t>(c * n + r)]) + " for " + std::to_string(want));
      }
    }
  }
}

// A code or a scale that is no number makes its row none, and no other.
TEST(cuda_linear_tiles_keep_what_is_no_number) {
  for (const char* format : {"f8_e4m3", "mxfp4", "q4_k", "bf16"}) {
    Random random(60);
    const int64_t n = 3, k = 256, rows = 2;
    Weights w(format, n, k, random, false);
    const bool whole = std::strcmp(format, "mxfp4") == 0;  // its scale is the first byte of a block
    uint8_t* const row = w.bytes.data() + w.matrix().row_bytes;
    if (whole) row[0] = 255;
    else if (std::strcmp(format, "f8_e4m3") == 0) row[77] = 0xff;
    else row[0] = 0, row[1] = 0x7e;  // NaN as f16; as bf16 2^125
    if (std::strcmp(format, "bf16") == 0) row[0] = 0xc1, row[1] = 0xff;
    const std::vector<float> x = random.floats(rows * k);
    const int32_t live = rows;
    const std::vector<uint16_t> rounded_x = round_rows(x.data(), k, rows, k, format, &live);
    std::vector<float> y(static_cast<size_t>(rows * n), kUntouched);
    LinearTilesArguments a = {};
    a.weight = w.matrix(), a.x = rounded_x.data(), a.x_stride = k, a.y = y.data(), a.y_stride = n, a.rows = &live, a.batches = 1;
    launch((std::string("linear_") + format + "_tiles").c_str(), linear_tiles_shape(n, rows, 1, false), a, y);
    for (size_t i = 0; i < y.size(); i++) EXPECT_THAT(std::isnan(y[i]) == (i % n == 1), std::string(format) + " at " + std::to_string(i));
  }
}

TEST(cuda_linear_tiles_at_the_edges) {
  check_linear_tiles("bf16", {290, 100, 131, 140, 1}, 1);                  // more than a tile each way, columns that are no piece
  check_linear_tiles("bf16", {130, 136, 67, 70, 1, 1, true}, 7);
  check_linear_tiles("f32", {128, 64, 128, 128}, 2);
  check_linear_tiles("q8_0", {129, 96, 3, 130, 4}, 3);                     // three pieces of a step's four
  check_linear_tiles("mxfp4", {33, 160, 40, 40, 0, 1, true}, 8);
  check_linear_tiles("f8_e4m3", {140, 160, 33, 33}, 4);                    // a second row of scales
  check_linear_tiles("f8_e4m3", {5, 75, 2, 2}, 9);
  check_linear_tiles("q4_k", {7, 768, 1, 1}, 5);
  check_linear_tiles("f16", {1, 1, 0, 3}, 6);
  check_linear_tiles("q4_0", {35, 128, 70, 2200, 0, 3, true}, 10);         // matrices apart, more than a band of rows
  check_linear_tiles("q5_k", {20, 256, 5, 2100, 0, 2}, 11);
}

// A row has the same bits among few others and among many, on large tiles and on small ones.
TEST(cuda_linear_tiles_give_a_row_the_same_bits) {
  Random random(12);
  const int64_t n = 40, k = 512, rows = 150;
  const Weights w("q4_k", n, k, random, false);
  const std::vector<float> x = random.floats(rows * k);
  std::vector<float> all[3];
  for (int i = 0; i < 3; i++) {
    const auto live = static_cast<int32_t>(i == 2 ? 1 : rows);
    const std::vector<float> own(i == 2 ? x.begin() + 140 * k : x.begin(), i == 2 ? x.begin() + 141 * k : x.end());
    const std::vector<uint16_t> rounded_x = round_rows(own.data(), k, live, k, "q4_k", &live);
    all[i].assign(static_cast<size_t>(live * n), kUntouched);
    LinearTilesArguments a = {};
    a.weight = w.matrix(), a.x = rounded_x.data(), a.x_stride = k, a.y = all[i].data(), a.y_stride = n, a.rows = &live, a.batches = 1;
    if (!launch(i == 1 ? "linear_q4_k_tiles_small" : "linear_q4_k_tiles", linear_tiles_shape(n, live, 1, i == 1), a, all[i])) return;
  }
  EXPECT_THAT(all[0] == all[1], "small tiles as large ones");
  EXPECT_THAT(std::equal(all[2].begin(), all[2].end(), all[0].begin() + 140 * n), "a row alone as among others");
}

// Experts of one matrix each, some of which are elsewhere.
struct Experts {
  Weights weights;
  int64_t count, n, k;
  std::vector<const uint8_t*> matrices, scales;
  Experts(const char* format, int64_t count, int64_t n, int64_t k, Random& random) : weights(format, count * 128, k, random, false), count(count), n(n), k(k) {
    const WeightMatrix all = weights.matrix();
    for (int64_t e = 0; e < count; e++) {  // 128 stored rows each, so that scales begin anew
      matrices.push_back(e % 4 == 3 ? nullptr : all.data + e * 128 * all.row_bytes);
      scales.push_back(all.scales == nullptr ? nullptr : all.scales + e * 128 / weights.format->scale_rows * all.scale_stride);
    }
  }
  bool here(int64_t e) const { return e >= 0 && matrices[static_cast<size_t>(e)] != nullptr; }
  const float* row(int64_t e, int64_t r) const { return &weights.values[static_cast<size_t>((e * 128 + r) * k)]; }
};

static std::vector<int32_t> random_ids(int64_t rows, int64_t topk, int64_t experts, Random& random) {
  std::vector<int32_t> ids;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t j = 0; j < topk; j++) {
      int32_t id;
      do id = static_cast<int32_t>(random.below(experts + 1)) - 1;
      while (id >= 0 && std::find(ids.end() - j, ids.end(), id) != ids.end());
      ids.push_back(id);
    }
  }
  return ids;
}

// What expert_groups says of these ids: every visit of the first `visits` in the group of its expert, in order, and tiles over each group.
static void check_groups(const std::vector<int32_t>& ids, int64_t visits, int64_t experts, const int32_t* order, const int32_t* offsets, const int32_t* tiles, int32_t tile_count) {
  int32_t place = 0, tile = 0;
  std::vector<std::vector<int32_t>> groups(static_cast<size_t>(experts));
  for (int64_t v = 0; v < visits; v++) {
    if (ids[static_cast<size_t>(v)] >= 0) groups[static_cast<size_t>(ids[static_cast<size_t>(v)])].push_back(static_cast<int32_t>(v));
  }
  for (int64_t e = 0; e < experts; e++) {
    EXPECT_THAT(offsets[e] == place, "where the visits of expert " + std::to_string(e) + " begin");
    for (size_t i = 0; i < groups[static_cast<size_t>(e)].size(); i++, place++) {
      EXPECT_THAT(order[place] == groups[static_cast<size_t>(e)][i], "visits of an expert, in order");
      if (i % 128 != 0) continue;
      EXPECT_THAT(tile < tile_count && tiles[2 * tile] == e && tiles[2 * tile + 1] == place, "a tile of 128 visits");
      tile++;
    }
  }
  EXPECT_THAT(offsets[experts] == place && tile_count == tile, "no visit and no tile more");
}

TEST(cuda_expert_groups_of_many) {
  uint64_t seed = 90;
  for (const auto& [rows, topk, experts] : {std::array<int64_t, 3>{700, 8, 256}, {3, 2, 1500}, {40, 3, 5}, {260, 1, 1}, {0, 4, 7}}) {
    Random random(seed++);
    std::vector<int32_t> ids;
    for (int64_t v = 0; v < rows * topk; v++) ids.push_back(static_cast<int32_t>(random.below(experts + 1) - 1));
    ids.push_back(0);  // of no row
    const auto live = static_cast<int32_t>(rows);
    const int64_t capacity = expert_tiles(rows, topk, experts);
    std::vector<float> all(static_cast<size_t>(rows * topk + experts + 1 + 2 * capacity + 1), kUntouched);
    auto* order = reinterpret_cast<int32_t*>(all.data());
    int32_t *offsets = order + rows * topk, *tiles = offsets + experts + 1, *count = tiles + 2 * capacity;
    const ExpertGroupsArguments a = {ids.data(), topk, experts, &live, order, offsets, tiles, count};
    if (launch("expert_groups", expert_groups_shape(), a, all)) check_groups(ids, rows * topk, experts, order, offsets, tiles, *count);
  }
}

static void check_experts(const char* format, bool tiles, bool down, int64_t rows, uint64_t seed) {
  Random random(seed);
  const int64_t capacity = rows + 1, topk = 3, count = 6, n = 21, k = 256;
  const Experts experts(format, count, n, k, random);
  const std::vector<int32_t> ids = random_ids(capacity, topk, count, random);
  const int64_t x_stride = k + 4, y_stride = n + 2, visits = capacity * topk;
  const std::vector<float> x = random.floats(visits * x_stride), bias = random.floats(count * n);
  const auto live = static_cast<int32_t>(rows);
  // The groups, all in one array: order, offsets, tiles, count.
  const int64_t tile_capacity = expert_tiles(capacity, topk, count);
  std::vector<float> groups(static_cast<size_t>(visits + count + 1 + 2 * tile_capacity + 1), kUntouched);
  auto* order = reinterpret_cast<int32_t*>(groups.data());
  int32_t *offsets = order + visits, *tile_list = offsets + count + 1, *tile_count = tile_list + 2 * tile_capacity;
  if (tiles) {
    const ExpertGroupsArguments arguments = {ids.data(), topk, count, &live, order, offsets, tile_list, tile_count};
    launch("expert_groups", expert_groups_shape(), arguments, groups);
    check_groups(ids, rows * topk, count, order, offsets, tile_list, *tile_count);
  }
  std::vector<float> y(static_cast<size_t>(visits * y_stride), kUntouched);
  ExpertsArguments a = {};
  a.matrices = experts.matrices.data(), a.scales = experts.scales.data(), a.row_bytes = experts.weights.matrix().row_bytes, a.scale_stride = experts.weights.matrix().scale_stride;
  if (experts.weights.matrix().scales == nullptr) a.scales = nullptr;
  a.n = n, a.k = k, a.x = x.data(), a.x_stride = x_stride, a.y = y.data(), a.y_stride = y_stride, a.bias = bias.data(), a.ids = ids.data(), a.topk = topk;
  a.visits_a_row = down ? 1 : topk, a.rows = &live, a.order = order, a.offsets = offsets, a.tiles = tile_list, a.tile_count = tile_count;
  const auto x_rows = static_cast<int32_t>(down ? rows * topk : rows);
  const std::vector<uint16_t> rounded_x = tiles ? round_rows(x.data(), x_stride, visits, k, format, &x_rows) : std::vector<uint16_t>();
  a.rounded = rounded_x.data(), a.rounded_stride = rounded_columns(k);
  const std::string name = std::string("experts_") + format + (tiles ? "_tiles" : "_rows");
  if (!launch(name.c_str(), tiles ? experts_tiles_shape(n, capacity, topk, count) : experts_rows_shape(*experts.weights.format, n, k, capacity, topk), a, y)) return;
  for (int64_t v = 0; v < visits; v++) {
    const int64_t expert = ids[static_cast<size_t>(v)];
    for (int64_t c = 0; c < y_stride; c++) {
      const float actual = y[static_cast<size_t>(v * y_stride + c)];
      if (v >= rows * topk || c >= n || !experts.here(expert)) {
        EXPECT_THAT(actual == kUntouched, name + " writes what is not its own");
        continue;
      }
      const Product want(&x[static_cast<size_t>((down ? v : v / topk) * x_stride)], experts.row(expert, c), k, tiles);
      const double offset = bias[static_cast<size_t>(expert * n + c)];
      EXPECT_THAT(within(actual, want.sum + offset, want.magnitude + std::abs(offset)), name + " visit " + std::to_string(v) + " column " + std::to_string(c));
    }
  }
}

TEST(cuda_experts_of_every_format) {
  uint64_t seed = 400;
  for (const char* format : kNames) {
    check_experts(format, false, seed % 2 == 0, 2, seed);
    seed++;
  }
}

// Their tiles are those of linear: what differs is where rows and matrices lie.
TEST(cuda_experts_on_tiles) {
  uint64_t seed = 450;
  for (const char* format : kNames) {
    check_experts(format, true, seed % 2 == 1, 5, seed);
    seed++;
  }
}

TEST(cuda_experts_tiles_at_the_edges) {
  check_experts("q8_0", true, true, 330, 1);  // more visits of one expert than a tile takes
  check_experts("q4_k", true, false, 0, 2);
}

TEST(cuda_gated_and_combine) {
  Random random(11);
  const int64_t rows = 3, topk = 2, columns = 260, stride = columns + 1, visits = (rows + 1) * topk;
  const auto live = static_cast<int32_t>(rows);
  std::vector<float> gate = random.floats(visits * stride, 12), up = random.floats(visits * stride, 12);
  gate[0] = NAN, up[1] = NAN, gate[2] = -INFINITY;
  for (bool clamped : {false, true}) {
    std::vector<float> y(gate.size(), kUntouched);
    const GatedArguments a = {gate.data(), up.data(), y.data(), stride, columns, topk, clamped, 1.702f, 7.0f, &live};
    launch("gated", elementwise_shape(columns, visits), a, y);
    for (int64_t v = 0; v < visits; v++) {
      for (int64_t c = 0; c < stride; c++) {
        const auto at = static_cast<size_t>(v * stride + c);
        if (v >= rows * topk || c == columns) {
          EXPECT_THAT(y[at] == kUntouched, "gated writes past its rows");
          continue;
        }
        double g = gate[at], u = up[at];
        if (clamped) g = g > 7 ? 7 : g, u = u > 7 ? 7 : u < -7 ? -7 : u;
        const double want = clamped ? g / (1 + std::exp(-static_cast<double>(1.702f) * g)) * (u + 1) : g / (1 + std::exp(-g)) * u;
        // u + 1 cancels, and the argument of exp is rounded.
        EXPECT_THAT(within(y[at], want, std::abs(want) * std::abs(g) + std::abs(g * u)), "gated visit " + std::to_string(v) + " column " + std::to_string(c));
      }
    }
  }
  const std::vector<int32_t> ids = {2, 0, -1, 3, 1, 2, 0, 1};
  const std::vector<float> weights = random.floats(visits);
  const uint8_t somewhere = 0;
  const std::vector<const uint8_t*> matrices = {&somewhere, nullptr, &somewhere, &somewhere};
  std::vector<float> y(static_cast<size_t>((rows + 1) * columns), kUntouched);
  gate = random.floats(visits * stride);
  for (int64_t c = 0; c < stride; c++) gate[static_cast<size_t>(2 * stride + c)] = gate[static_cast<size_t>(4 * stride + c)] = NAN;  // no expert; one that is elsewhere
  const CombineArguments a = {gate.data(), stride, ids.data(), weights.data(), matrices.data(), y.data(), columns, columns, topk, &live};
  launch("combine", elementwise_shape(columns, rows + 1), a, y);
  for (int64_t r = 0; r <= rows; r++) {
    for (int64_t c = 0; c < columns; c++) {
      double sum = 0, magnitude = 0;
      for (int64_t v = r * topk; v < (r + 1) * topk; v++) {
        const int32_t expert = ids[static_cast<size_t>(v)];
        if (expert < 0 || matrices[static_cast<size_t>(expert)] == nullptr) continue;
        const double part = static_cast<double>(weights[static_cast<size_t>(v)]) * gate[static_cast<size_t>(v * stride + c)];
        sum += part;
        magnitude += std::abs(part);
      }
      const float actual = y[static_cast<size_t>(r * columns + c)];
      EXPECT_THAT(r == rows ? actual == kUntouched : within(actual, sum, magnitude), "combine row " + std::to_string(r) + " column " + std::to_string(c));
    }
  }
}

}  // namespace tandem::test
