// attention and mla over the emulation: parts, merge, sinks, windows, pages in any order, dead sequences; and the whole absorbed
// path of MLA against attention over expanded keys and values. Expected values are f64; the bound is that of src/ops/attend-row.ts.
#include "quant/half.h"
#include "test/cuda_kernels_attention.h"

namespace tandem::test {

using namespace tandem::cuda;

// `part` 0: on tiles.
struct AttentionCase {
  int64_t heads, kv_heads, head_size, value_size, window, part;
  bool sinks;
  CacheType type;
  bool group = false;  // on tensor cores
};

// First row and rows of tiles of up to 64 rows, none with rows of two sequences.
static std::vector<int32_t> tiles_of(const PagedContext& context) {
  std::vector<int32_t> tiles;
  int64_t row = 0;
  for (const TestSequence& s : context.sequences()) {
    for (int64_t r = 0; r < s.rows; r += 64) {
      tiles.push_back(static_cast<int32_t>(row + r));
      tiles.push_back(static_cast<int32_t>(std::min<int64_t>(64, s.rows - r)));
    }
    row += s.rows;
  }
  return tiles;
}

static void check_attention(const AttentionCase& shape, uint64_t seed) {
  Random random(seed);
  const bool tiles = shape.part == 0;
  PagedContext context(tiles ? std::vector<TestSequence>{{0, 70}, {5, 2, true}, {90, 1}, {61, 20}} : std::vector<TestSequence>{{0, 1}, {37, 3}, {130, 2}, {5, 2, true}, {63, 1}}, seed % 2 == 0 ? 64 : 16, random);
  Cache cache(context, {{shape.kv_heads, shape.head_size}, {shape.kv_heads, shape.value_size}}, shape.type, random);
  const int64_t rows = context.rows(), parts = tiles ? 0 : (context.longest() + shape.part - 1) / shape.part;
  const int64_t q_stride = shape.heads * shape.head_size + 3, y_stride = shape.heads * shape.value_size;
  const std::vector<float> q = random.floats((rows + 1) * q_stride, 2), sinks = random.floats(shape.heads, 3);
  const auto live = static_cast<int32_t>(rows);
  std::vector<float> partial(static_cast<size_t>((rows + 1) * shape.heads * parts * (shape.value_size + 2)), NAN);
  std::vector<float> y(static_cast<size_t>((rows + 1) * y_stride), kUntouched);
  AttentionArguments a = {};
  a.keys = cache.view(0, &live), a.values = cache.view(1, &live);
  a.q = q.data(), a.q_stride = q_stride, a.y = y.data(), a.y_stride = y_stride, a.partial = partial.data();
  a.heads = shape.heads, a.kv_heads = shape.kv_heads, a.head_size = shape.head_size, a.value_size = shape.value_size;
  a.values_stride = shape.value_size, a.window = shape.window, a.parts = parts, a.part = shape.part, a.scale = 0.3f;
  a.sinks = shape.sinks ? sinks.data() : nullptr;
  const std::vector<int32_t> tile_list = tiles_of(context);
  const auto tile_count = static_cast<int32_t>(tile_list.size() / 2);
  a.tiles = tile_list.data(), a.tile_count = &tile_count;
  const int room = std::max(shape.head_size, shape.value_size) <= 64 ? 64 : 128;
  const std::string on_tiles = std::string("attention_tiles_") + shape.type.name + "_" + std::to_string(room);
  if (tiles && !launch(on_tiles.c_str(), attention_tiles_shape(shape.heads, shape.kv_heads, tile_count + 1, room), a, y)) return;
  const std::string in_parts = shape.group ? std::string("attention_group_") + shape.type.name + "_" + std::to_string(room) : std::string("attention_part_") + shape.type.name;
  const Shape parts_shape = shape.group ? attention_group_shape(shape.heads, shape.kv_heads, parts, rows + 1, room) : attention_part_shape(shape.heads, shape.kv_heads, parts, rows + 1);
  if (!tiles && !launch(in_parts.c_str(), parts_shape, a, partial)) return;
  if (!tiles && !launch("attention_merge", attention_merge_shape(shape.heads, rows + 1), a, y)) return;
  for (int64_t r = 0; r < rows; r++) {
    const int64_t sequence = context.owner(r), visible = context.position(r) + 1;
    const int64_t first = shape.window > 0 && visible > shape.window ? visible - shape.window : 0;
    for (int64_t h = 0; h < shape.heads; h++) {
      if (context.dead(sequence)) {
        EXPECT_THAT(y[static_cast<size_t>(r * y_stride + h * shape.value_size)] == kUntouched, "attention of a dead sequence");
        continue;
      }
      const int64_t kv_head = h / (shape.heads / shape.kv_heads);
      Attended row(shape.value_size);
      if (shape.sinks) row.sink = sinks[static_cast<size_t>(h)];
      for (int64_t t = first; t < visible; t++) {
        double score = 0, size = 0;
        for (int64_t i = 0; i < shape.head_size; i++) {
          const double product = static_cast<double>(q[static_cast<size_t>(r * q_stride + h * shape.head_size + i)]) * cache.at(0, sequence, t, kv_head, i);
          score += product;
          size += std::abs(product);
        }
        std::vector<double> value;
        for (int64_t i = 0; i < shape.value_size; i++) value.push_back(cache.at(1, sequence, t, kv_head, i));
        row.add(0.3f * score, 0.3f * size, value, value);
      }
      row.check(&y[static_cast<size_t>(r * y_stride + h * shape.value_size)], "attention row " + std::to_string(r) + " head " + std::to_string(h), tiles ? 1 : 0);
    }
  }
  EXPECT_THAT(y[static_cast<size_t>(rows * y_stride)] == kUntouched, "attention writes past its rows");
}

TEST(cuda_attention) {
  check_attention({4, 2, 64, 64, 0, 32, false, kBf16}, 1);
  check_attention({8, 1, 128, 128, 0, 128, false, kBf16}, 2);
  check_attention({9, 1, 24, 10, 20, 64, true, kF32}, 3);     // more heads than a block takes; odd sizes
  check_attention({2, 2, 8, 2, 1, 16, true, kBf16}, 4);       // a window of one position
  check_attention({20, 1, 576, 512, 0, 64, false, kBf16}, 5);  // the sizes of absorbed MLA
  check_attention({6, 3, 80, 96, 100, 48, true, kE4m3}, 6);
  check_attention({3, 1, 256, 256, 33, 64, false, kF32}, 7);
}

TEST(cuda_attention_in_parts_on_tensor_cores) {
  check_attention({8, 1, 128, 128, 0, 128, false, kBf16, true}, 21);
  check_attention({34, 2, 64, 64, 20, 64, true, kBf16, true}, 22);  // groups of one head more than a block takes
  check_attention({6, 3, 80, 96, 100, 48, true, kE4m3, true}, 23);
  check_attention({2, 2, 16, 48, 1, 16, true, kBf16, true}, 24);    // smaller heads than there is room for, a window of one position
  check_attention({12, 2, 64, 32, 0, 64, false, kE4m3, true}, 25);
}

TEST(cuda_attention_on_tiles) {
  check_attention({2, 1, 64, 64, 0, 0, false, kBf16}, 11);
  check_attention({2, 2, 64, 64, 40, 0, true, kF32}, 12);
  check_attention({1, 1, 128, 128, 1, 0, true, kBf16}, 13);
  check_attention({3, 1, 128, 128, 0, 0, false, kF32}, 14);
  check_attention({4, 1, 64, 64, 128, 0, true, kE4m3}, 15);   // gpt-oss: sinks, a window of 128
  check_attention({2, 1, 32, 16, 0, 0, false, kBf16}, 16);    // smaller heads than there is room for
  check_attention({2, 2, 20, 50, 7, 0, true, kE4m3}, 17);     // sizes that are no multiple of eight
  check_attention({1, 1, 112, 80, 0, 0, false, kF32}, 18);
  check_attention({1, 1, 128, 6, 30, 0, true, kE4m3}, 19);
}

// Absorbed: q_nope·W_UK beside q_rope, attention over the latent stream, W_UV. Expanded: what the op says.
static void check_mla(bool transposed, uint64_t seed) {
  Random random(seed);
  const int64_t heads = 5, nope = 20, rope = 8, latent = 64, value = 12, part = 32;
  const float scale = 0.2f;
  PagedContext context({{0, 2}, {41, 1}, {8, 3}}, 16, random);
  Cache cache(context, {{1, latent + rope}}, kBf16, random);
  const int64_t rows = context.rows(), parts = (context.longest() + part - 1) / part, width = latent + rope;
  const auto live = static_cast<int32_t>(rows);
  const std::vector<float> q = random.floats(rows * heads * (nope + rope), 2);
  const std::vector<float> up = random.floats(heads * nope * latent, 0.3f), down = random.floats(heads * value * latent, 0.3f);
  // kvB: per head nope rows of W_UK, then value rows of W_UV. kB: W_UK transposed, vB.
  std::vector<float> kv_b, k_b(up.size());
  for (int64_t h = 0; h < heads; h++) {
    kv_b.insert(kv_b.end(), up.begin() + h * nope * latent, up.begin() + (h + 1) * nope * latent);
    kv_b.insert(kv_b.end(), down.begin() + h * value * latent, down.begin() + (h + 1) * value * latent);
    for (int64_t n = 0; n < nope; n++) {
      for (int64_t l = 0; l < latent; l++) k_b[static_cast<size_t>((h * latent + l) * nope + n)] = up[static_cast<size_t>((h * nope + n) * latent + l)];
    }
  }
  const auto weight = [](const std::vector<float>& w, int64_t n, int64_t k) { return WeightMatrix{reinterpret_cast<const uint8_t*>(w.data()), k * 4, nullptr, 0, n, k}; };
  std::vector<float> absorbed(static_cast<size_t>(rows * heads * width), kUntouched), attended(static_cast<size_t>(rows * heads * latent), kUntouched);
  std::vector<float> y(static_cast<size_t>(rows * heads * value), kUntouched), partial(static_cast<size_t>(rows * heads * parts * (latent + 2)), NAN);
  LinearArguments a = {};
  a.x = q.data(), a.x_stride = heads * (nope + rope), a.x_batch = nope + rope;
  a.y = absorbed.data(), a.y_stride = heads * width, a.y_batch = width, a.rows = &live;
  if (transposed) {
    a.weight = weight(kv_b, nope, latent), a.weight_batch = nope + value;
    launch("linear_transposed_f32", transposed_shape(latent, rows, heads), a, absorbed);
  } else {
    a.weight = weight(k_b, latent, nope), a.weight_batch = latent;
    launch("linear_f32_m8", linear_shape(*quant::find_format("f32"), latent, nope, rows, true, heads), a, absorbed);
  }
  const CopyHeadsArguments copy = {q.data() + nope, heads * (nope + rope), nope + rope, absorbed.data() + latent, heads * width, width, heads, rope, &live};
  launch("copy_heads", elementwise_shape(heads * rope, rows), copy, absorbed);
  AttentionArguments attention = {};
  attention.keys = attention.values = cache.view(0, &live);
  attention.q = absorbed.data(), attention.q_stride = heads * width, attention.y = attended.data(), attention.y_stride = heads * latent, attention.partial = partial.data();
  attention.heads = heads, attention.kv_heads = 1, attention.head_size = width, attention.value_size = latent, attention.values_stride = width;
  attention.parts = parts, attention.part = part, attention.scale = scale;
  launch("attention_part_bf16", attention_part_shape(heads, 1, parts, rows), attention, partial);
  launch("attention_merge", attention_merge_shape(heads, rows), attention, attended);
  LinearArguments out = {};
  out.x = attended.data(), out.x_stride = heads * latent, out.x_batch = latent, out.y = y.data(), out.y_stride = heads * value, out.y_batch = value, out.rows = &live;
  out.weight = weight(kv_b, value, latent), out.weight_first = nope, out.weight_batch = nope + value;
  launch("linear_f32_m1", linear_shape(*quant::find_format("f32"), value, latent, rows, false, heads), out, y);

  for (int64_t r = 0; r < rows; r++) {
    for (int64_t h = 0; h < heads; h++) {
      const float* query = &q[static_cast<size_t>((r * heads + h) * (nope + rope))];
      Attended row(value);
      for (int64_t t = 0; t <= context.position(r); t++) {
        double score = 0, size = 0;
        const auto entry = [&](int64_t i) { return static_cast<double>(cache.at(0, context.owner(r), t, 0, i)); };
        for (int64_t i = 0; i < rope; i++) {
          score += query[nope + i] * entry(latent + i);
          size += std::abs(query[nope + i] * entry(latent + i));
        }
        for (int64_t n = 0; n < nope; n++) {
          for (int64_t l = 0; l < latent; l++) {
            const double product = static_cast<double>(query[n]) * up[static_cast<size_t>((h * nope + n) * latent + l)] * entry(l);
            score += product;
            size += std::abs(product);
          }
        }
        std::vector<double> values(static_cast<size_t>(value), 0), sizes = values;
        for (int64_t v = 0; v < value; v++) {
          for (int64_t l = 0; l < latent; l++) {
            const double product = down[static_cast<size_t>((h * value + v) * latent + l)] * entry(l);
            values[static_cast<size_t>(v)] += product;
            sizes[static_cast<size_t>(v)] += std::abs(product);
          }
        }
        row.add(scale * score, scale * size, values, sizes);
      }
      row.check(&y[static_cast<size_t>((r * heads + h) * value)], "mla row " + std::to_string(r) + " head " + std::to_string(h));
    }
  }
}

TEST(cuda_mla_absorbed) {
  check_mla(true, 7);
  check_mla(false, 8);
}

// What is no number stays none, and −∞ scores leave the others alone.
TEST(cuda_attention_of_infinities) {
  Random random(9);
  PagedContext context({{3, 1}}, 16, random);
  Cache cache(context, {{1, 8}, {1, 2}}, kF32, random);
  std::vector<float> q(24, 0);
  q[0] = NAN;
  q[8] = -INFINITY;
  const int32_t live = 1;
  for (int64_t t = 0; t < 4; t++) cache.set(0, 0, t, 0, 0, t == 2 ? -1.0f : 1.0f);
  std::vector<float> y(6, kUntouched), partial(3 * 2 * 4, NAN);
  AttentionArguments a = {};
  a.keys = cache.view(0, &live), a.values = cache.view(1, &live);
  a.q = q.data(), a.q_stride = 24, a.y = y.data(), a.y_stride = 6, a.partial = partial.data();
  a.heads = 3, a.kv_heads = 1, a.head_size = 8, a.value_size = 2, a.values_stride = 2, a.parts = 2, a.part = 2, a.scale = 1;
  launch("attention_part_f32", attention_part_shape(3, 1, 2, 1), a, partial);
  launch("attention_merge", attention_merge_shape(3, 1), a, y);
  EXPECT_THAT(std::isnan(y[0]) && std::isnan(y[1]), "a nan in the query");
  EXPECT_THAT(std::isnan(y[2]), "+inf in the scores");
  EXPECT_THAT(within(y[4], (cache.at(1, 0, 0, 0, 0) + cache.at(1, 0, 1, 0, 0) + cache.at(1, 0, 2, 0, 0) + cache.at(1, 0, 3, 0, 0)) / 4.0, 1), "equal scores");
  q[8] = -INFINITY, q[9] = 0;
  for (int64_t t = 0; t < 4; t++) cache.set(0, 0, t, 0, 0, t == 1 ? 0.0f : 1.0f);
  q[8] = -3e38f;
  cache.set(0, 0, 0, 0, 0, 3e38f), cache.set(0, 0, 2, 0, 0, 3e38f), cache.set(0, 0, 3, 0, 0, 3e38f);  // overflow to −∞ everywhere but at 1
  y.assign(6, kUntouched);
  launch("attention_part_f32", attention_part_shape(3, 1, 2, 1), a, partial);
  launch("attention_merge", attention_merge_shape(3, 1), a, y);
  EXPECT_THAT(y[2] == cache.at(1, 0, 1, 0, 0), "one score that is no −∞");
}

}  // namespace tandem::test
