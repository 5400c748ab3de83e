// mla on tiles over the emulation: latents of a chunk gathered, expanded by W_UK and W_UV, attended chunk after chunk; and the
// transposed weights it takes where the checkpoint has kB. Expected values are f64 from src/ops/mla.ts.
#include "test/cuda_kernels_attention.h"
#include "test/cuda_kernels_rounded.h"
#include "test/cuda_kernels_weights.h"

namespace tandem::test {

using namespace tandem::cuda;

struct MlaCase {
  int64_t heads, nope, rope, latent, value, chunk;
  bool transposed;  // the checkpoint has kB
  CacheType type;
};

static std::vector<float> bf16_of(const std::vector<float>& values) {
  std::vector<float> words((values.size() + 1) / 2, 0);
  for (size_t i = 0; i < values.size(); i++) {
    const uint16_t half = quant::f32_to_bf16(values[i]);
    std::memcpy(reinterpret_cast<uint8_t*>(words.data()) + 2 * i, &half, 2);
  }
  return words;
}

static void check_mla_tiles(const MlaCase& shape, uint64_t seed) {
  Random random(seed);
  const auto [heads, nope, rope, latent, value, chunk, transposed, type] = shape;
  const float scale = 0.2f;
  PagedContext context({{0, 67}, {70, 3}, {4, 2, true}}, 16, random);
  Cache cache(context, {{1, latent + rope}}, type, random);
  const int64_t rows = context.rows();
  const auto live = static_cast<int32_t>(rows);
  const std::vector<float> q = random.floats(rows * heads * (nope + rope), 2);
  const std::vector<float> up = random.floats(heads * nope * latent, 0.2f), down = random.floats(heads * value * latent, 0.2f);
  std::vector<float> k_b(up.size());  // [heads, latent, nope]
  for (int64_t h = 0; h < heads; h++) {
    for (int64_t n = 0; n < nope; n++) {
      for (int64_t l = 0; l < latent; l++) k_b[static_cast<size_t>((h * latent + l) * nope + n)] = up[static_cast<size_t>((h * nope + n) * latent + l)];
    }
  }
  std::vector<float> up_bf16 = bf16_of(up);
  const std::vector<float> down_bf16 = bf16_of(down);
  if (transposed) {
    std::fill(up_bf16.begin(), up_bf16.end(), kUntouched);
    TransposeArguments turn = {};
    turn.weight = {reinterpret_cast<const uint8_t*>(k_b.data()), nope * 4, nullptr, 0, latent, nope}, turn.weight_batch = latent;
    turn.y = reinterpret_cast<uint16_t*>(up_bf16.data()), turn.y_stride = latent, turn.y_batch = nope * latent;
    if (!launch("transpose_f32", transpose_shape(latent, nope, heads), turn, up_bf16)) return;
    EXPECT_THAT(up_bf16 == bf16_of(up), "transpose_f32");
  }
  std::vector<float> y(static_cast<size_t>(rows * heads * value), kUntouched), state(static_cast<size_t>(rows * heads * 2), NAN);
  int64_t row = 0;
  for (size_t s = 0; s < context.sequences().size(); s++) {
    const TestSequence& sequence = context.sequences()[s];
    std::vector<int32_t> tiles;
    for (int64_t r = 0; r < sequence.rows; r += 64) tiles.insert(tiles.end(), {static_cast<int32_t>(row + r), static_cast<int32_t>(std::min<int64_t>(64, sequence.rows - r))});
    row += sequence.rows;
    const auto tile_count = static_cast<int32_t>(tiles.size() / 2);
    const int64_t length = sequence.first_position + sequence.rows;
    for (int64_t first = 0; first < length; first += chunk) {
      const int64_t positions = std::min(chunk, length - first);
      const int32_t own[4] = {static_cast<int32_t>(s), static_cast<int32_t>(first), static_cast<int32_t>(positions), first + positions == length};
      const auto halves = [](std::vector<float>& words) { return reinterpret_cast<uint16_t*>(words.data()); };
      std::vector<float> latents(static_cast<size_t>(positions * latent + (positions * rope + 1) / 2), kUntouched), keys(static_cast<size_t>((positions * heads * nope + 1) / 2), kUntouched);
      std::vector<float> values(static_cast<size_t>((positions * heads * value + 1) / 2), kUntouched);
      MlaChunkArguments a = {};
      a.cache = cache.view(0, &live), a.chunk = own, a.latents = latents.data(), a.ropes = halves(latents) + 2 * positions * latent;
      a.keys = halves(keys), a.values = halves(values);
      a.q = q.data(), a.q_stride = heads * (nope + rope), a.y = y.data(), a.y_stride = heads * value, a.state = state.data();
      a.heads = heads, a.nope = nope, a.rope = rope, a.latent = latent, a.value = value, a.scale = scale, a.tiles = tiles.data(), a.tile_count = &tile_count;
      if (!launch((std::string("mla_gather_") + type.name).c_str(), mla_gather_shape(latent + rope, chunk), a, latents)) return;
      LinearTilesArguments expand = {};
      const std::vector<uint16_t> rounded = round_rows(latents.data(), latent, positions, latent, "bf16", own + 2);
      expand.x = rounded.data(), expand.x_stride = rounded_columns(latent), expand.rows = own + 2, expand.batches = 1;
      const auto weight = [&](const std::vector<float>& w, int64_t n) { return WeightMatrix{reinterpret_cast<const uint8_t*>(w.data()), latent * 2, nullptr, 0, n, latent}; };
      expand.weight = weight(up_bf16, heads * nope), expand.y_bf16 = halves(keys), expand.y_stride = heads * nope;
      if (!launch("linear_bf16_tiles", linear_tiles_shape(heads * nope, positions, 1, false), expand, keys)) return;
      expand.weight = weight(down_bf16, heads * value), expand.y_bf16 = halves(values), expand.y_stride = heads * value;
      if (!launch("linear_bf16_tiles", linear_tiles_shape(heads * value, positions, 1, false), expand, values)) return;
      // What a chunk leaves in `state` is an output too.
      std::vector<float> both = y;
      both.insert(both.end(), state.begin(), state.end());
      a.y = both.data(), a.state = both.data() + y.size();
      if (!launch("mla_tiles", mla_tiles_shape(heads, tile_count + 1), a, both)) return;
      std::copy(both.begin(), both.begin() + static_cast<int64_t>(y.size()), y.begin());
      std::copy(both.begin() + static_cast<int64_t>(y.size()), both.end(), state.begin());
    }
  }
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t h = 0; h < heads; h++) {
      const float* query = &q[static_cast<size_t>((r * heads + h) * (nope + rope))];
      const float* own = &y[static_cast<size_t>((r * heads + h) * value)];
      if (context.dead(context.owner(r))) {
        EXPECT_THAT(*own == kUntouched, "mla of a dead sequence");
        continue;
      }
      Attended attended(value);
      for (int64_t t = 0; t <= context.position(r); t++) {
        double score = 0, size = 0;
        const auto entry = [&](int64_t i) { return static_cast<double>(cache.at(0, context.owner(r), t, 0, i)); };
        for (int64_t i = 0; i < rope; i++) {
          score += query[nope + i] * entry(latent + i);
          size += std::abs(query[nope + i] * entry(latent + i));
        }
        std::vector<double> values(static_cast<size_t>(value), 0), sizes = values;
        for (int64_t l = 0; l < latent; l++) {
          const double c = entry(l);
          for (int64_t n = 0; n < nope; n++) {
            const double product = static_cast<double>(query[n]) * up[static_cast<size_t>((h * nope + n) * latent + l)] * c;
            score += product;
            size += std::abs(product);
          }
          for (int64_t v = 0; v < value; v++) {
            const double product = down[static_cast<size_t>((h * value + v) * latent + l)] * c;
            values[static_cast<size_t>(v)] += product;
            sizes[static_cast<size_t>(v)] += std::abs(product);
          }
        }
        attended.add(scale * score, scale * size, values, sizes);
      }
      attended.check(own, "mla_tiles row " + std::to_string(r) + " head " + std::to_string(h), 2);
    }
  }
}

TEST(cuda_mla_on_tiles) {
  check_mla_tiles({2, 128, 64, 64, 128, 1000, false, kBf16}, 1);  // the head of DeepSeek, one chunk
  check_mla_tiles({2, 16, 8, 32, 16, 64, true, kF32}, 2);         // chunks that some rows do not see
  check_mla_tiles({1, 20, 6, 32, 10, 24, false, kBf16}, 3);       // sizes and chunks that are no multiple of eight
  check_mla_tiles({1, 16, 8, 32, 16, 40, true, kE4m3}, 4);
}

// Absorbed queries over the latent stream, in parts on tensor cores: within the bound of f32.
struct MlaPartCase {
  int64_t heads, width, latent, part;
  CacheType type;
  float scale;
};

static void check_mla_part(const MlaPartCase& shape, uint64_t seed) {
  Random random(seed);
  const auto [heads, width, latent, part, type, scale] = shape;
  PagedContext context({{0, 1}, {37, 2}, {5, 2, true}, {98, 1}}, 16, random);
  Cache cache(context, {{1, width}}, type, random);
  const int64_t rows = context.rows(), parts = (context.longest() + part - 1) / part, q_stride = heads * width + 3, y_stride = heads * latent;
  const auto live = static_cast<int32_t>(rows);
  const std::vector<float> q = random.floats((rows + 1) * q_stride, 2);
  std::vector<float> partial(static_cast<size_t>((rows + 1) * heads * parts * (latent + 2)), NAN), y(static_cast<size_t>((rows + 1) * y_stride), kUntouched);
  AttentionArguments a = {};
  a.keys = a.values = cache.view(0, &live);
  a.q = q.data(), a.q_stride = q_stride, a.y = y.data(), a.y_stride = y_stride, a.partial = partial.data();
  a.heads = heads, a.kv_heads = 1, a.head_size = width, a.value_size = latent, a.values_stride = width;
  a.parts = parts, a.part = part, a.scale = scale;
  if (!launch((std::string("mla_part_") + type.name).c_str(), mla_part_shape(heads, parts, rows + 1), a, partial)) return;
  if (!launch("attention_merge", attention_merge_shape(heads, rows + 1), a, y)) return;
  for (int64_t r = 0; r < rows; r++) {
    for (int64_t h = 0; h < heads; h++) {
      const float* own = &y[static_cast<size_t>(r * y_stride + h * latent)];
      if (context.dead(context.owner(r))) {
        EXPECT_THAT(*own == kUntouched, "mla_part of a dead sequence");
        continue;
      }
      Attended row(latent);
      for (int64_t t = 0; t <= context.position(r); t++) {
        double score = 0, size = 0;
        std::vector<double> value;
        for (int64_t i = 0; i < width; i++) {
          const double k = cache.at(0, context.owner(r), t, 0, i), product = q[static_cast<size_t>(r * q_stride + h * width + i)] * k;
          score += product;
          size += std::abs(product);
          if (i < latent) value.push_back(k);
        }
        row.add(scale * score, scale * size, value, value);
      }
      row.check(own, "mla_part row " + std::to_string(r) + " head " + std::to_string(h));
    }
  }
  EXPECT_THAT(y[static_cast<size_t>(rows * y_stride)] == kUntouched, "mla_part writes past its rows");
}

TEST(cuda_mla_in_parts_on_tensor_cores) {
  check_mla_part({17, 576, 512, 64, kBf16, 0.1f}, 1);  // one head more than a block takes
  check_mla_part({3, 576, 512, 128, kE4m3, 0.2f}, 2);
  check_mla_part({16, 80, 64, 32, kBf16, 1.0f}, 3);    // smaller than there is room for, a quarter of the columns without any
  check_mla_part({5, 144, 128, 48, kE4m3, 0.3f}, 4);   // tiles that a part fills halfway
}

TEST(cuda_transpose_of_every_format) {
  for (const char* name : kNames) {
    Random random(5);
    const int64_t n = 3, k = 256, batches = 2, first = 1, stride = n + 1;
    const Weights w(name, first + n * batches, k, random, false);
    std::vector<float> y(static_cast<size_t>(k * stride * batches / 2), kUntouched), want = y;
    TransposeArguments a = {};
    a.weight = w.matrix(), a.weight.n = n, a.weight_first = first, a.weight_batch = n;
    a.y = reinterpret_cast<uint16_t*>(y.data()), a.y_stride = stride, a.y_batch = k * stride;
    if (!launch((std::string("transpose_") + name).c_str(), transpose_shape(n, k, batches), a, y)) continue;
    for (int64_t b = 0; b < batches; b++) {
      for (int64_t r = 0; r < n; r++) {
        for (int64_t c = 0; c < k; c++) {
          const uint16_t half = quant::f32_to_bf16(w.values[static_cast<size_t>((first + b * n + r) * k + c)]);
          std::memcpy(reinterpret_cast<uint8_t*>(want.data()) + 2 * (b * k * stride + c * stride + r), &half, 2);
        }
      }
    }
    EXPECT_THAT(std::memcmp(y.data(), want.data(), y.size() * 4) == 0, std::string("transpose_") + name);
  }
}

}  // namespace tandem::test
