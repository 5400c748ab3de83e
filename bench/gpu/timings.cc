// Every family of kernels at the shapes of DeepSeek-V3 and Qwen3-30B-A3B, a launch among many of a graph, held against what the card
// does at its best (docs/reference/gpu-kernels.md): decode against the copy, prompts against the product of bf16. What is read lies in so
// many places that no cache holds it; all is random, no zeros.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/formats.h"
#include "cuda/kernels/shapes.h"
#include "measure.h"
#include "pieces.h"
#include "quant/formats.h"

namespace tandem::bench {

using namespace cuda;

namespace {

#define NAME_OF(X, format, Block) #format,
constexpr const char* kFormats[] = {TANDEM_CUDA_FORMATS(NAME_OF, 0)};
#undef NAME_OF

// What caches of cards hold, several times over.
constexpr size_t kPastCaches = size_t{512} << 20;

struct Matrix {
  const quant::FormatInfo* format;
  int64_t n, k, row_bytes, scale_stride = 0;
  size_t data_bytes, scale_bytes = 0;
  Matrix(const char* name, int64_t n, int64_t k) : format(quant::find_format(name)), n(n), k(k), row_bytes(quant::row_bytes(*format, k)), data_bytes(static_cast<size_t>(n * row_bytes)) {
    if (format->scale_rows == 0) return;
    scale_stride = (k + format->scale_columns - 1) / format->scale_columns * format->scale_bytes;
    scale_bytes = static_cast<size_t>((n + format->scale_rows - 1) / format->scale_rows * scale_stride);
  }
  size_t bytes() const { return data_bytes + scale_bytes; }
  size_t place() const { return (data_bytes + 255) / 256 * 256 + (scale_bytes + 255) / 256 * 256; }
};

class Bench {
 public:
  Bench(Device& device, bool small, const std::string& only, Pieces& pieces) : device_(device), pieces_(pieces), small_(small), only_(only) {}

  Status open() {
    TANDEM_TRY(measure_ceilings(device_, small_, ceilings_));
    pieces_.tell("copyBytesPerSecond", number(ceilings_.copy));
    pieces_.tell("bf16OperationsPerSecond", number(ceilings_.bf16));
    size_t free = 0;
    TANDEM_TRY(device_.free_memory(free));
    weight_bytes_ = small_ ? size_t{8} << 20 : std::min<size_t>(size_t{6} << 30, free / 5 * 2);
    vector_bytes_ = small_ ? size_t{8} << 20 : std::min<size_t>(size_t{1} << 30, free / 8);
    TANDEM_TRY(device_.allocate(weight_bytes_, "weights to time", weights_));
    TANDEM_TRY(device_.allocate(vector_bytes_, "values to time", x_));
    TANDEM_TRY(device_.allocate(vector_bytes_, "values to time", y_));
    TANDEM_TRY(device_.allocate(size_t{1} << 26, "constants to time", constants_));
    TANDEM_TRY(device_.stream(stream_));
    return fill();
  }

  int64_t size(int64_t whole, int64_t little) const { return small_ ? little : whole; }
  Address x() const { return x_.get(); }
  Address y() const { return y_.get(); }
  Address weights() const { return weights_.get(); }
  size_t weight_bytes() const { return weight_bytes_; }
  bool small() const { return small_; }
  int64_t multiprocessors() const { return device_.info().multiprocessors; }

  // Constants on the card, as long as the bench lives.
  template <typename T> const T* put(const std::vector<T>& values) {
    const size_t bytes = values.size() * sizeof(T);
    const Address at = constants_.get() + used_;
    used_ = (used_ + bytes + 255) / 256 * 256;
    if (used_ > size_t{1} << 26) broken_ = Status(Code::native_failed, "[bench] constants fit into their place; they do not");
    if (broken_.ok()) broken_ = stream_.copy_in(at, values.data(), bytes);
    if (broken_.ok()) broken_ = finish(stream_);
    return reinterpret_cast<const T*>(at);
  }
  const int32_t* count(int64_t value) { return put(std::vector<int32_t>{static_cast<int32_t>(value)}); }

  // The i-th copy of a matrix.
  WeightMatrix at(const Matrix& m, int i) const {
    const size_t copies = std::max<size_t>(1, std::min(weight_bytes_ / m.place(), kPastCaches / m.place() + 2));
    const Address data = weights_.get() + static_cast<size_t>(i) % copies * m.place();
    const Address scales = m.scale_bytes == 0 ? 0 : data + (m.data_bytes + 255) / 256 * 256;
    return {reinterpret_cast<const uint8_t*>(data), m.row_bytes, reinterpret_cast<const uint8_t*>(scales), m.scale_stride, m.n, m.k};
  }
  bool fits(const Matrix& m) const { return m.place() <= weight_bytes_; }

  // `launch(stream, function, i)`, with `shared` bytes of dynamic shared memory at most; the floor is the larger of bytes over the copy and operations over the product.
  void time(const std::string& kernel, const std::string& shape, double bytes, double operations, const std::function<Status(Stream&, FunctionHandle*, int)>& launch,
            unsigned shared = 0) {
    if (kernel.find(only_) == std::string::npos || !broken_.ok()) return;
    broken_ = pieces_.run(kernel + " " + shape, [&](Fields& found) -> Status {
      FunctionHandle* function = nullptr;
      TANDEM_TRY(device_.function("tandem_" + kernel, function, shared));
      double seconds = 0;
      TANDEM_TRY(time_launches(device_, [&](Stream& stream, int i) { return launch(stream, function, i); }, seconds));
      const double by_memory = bytes / ceilings_.copy, by_product = ceilings_.bf16 > 0 ? operations / ceilings_.bf16 : 0, floor = std::max(by_memory, by_product);
      const bool memory = by_memory >= by_product;
      say("%-28s %-26s %9.1f us  %7.0f %s  %3.0f %% of %s", kernel.c_str(), shape.c_str(), seconds * 1e6, memory ? bytes / seconds / 1e9 : operations / seconds / 1e12, memory ? "GB/s    " : "TFLOP/s ",
          100 * floor / seconds, memory ? "the copy" : "the product");
      found = {{"kernel", quoted(kernel)}, {"shape", quoted(shape)}, {"microseconds", number(seconds * 1e6)}, {"bytes", number(bytes)}, {"operations", number(operations)},
               {"bound", quoted(memory ? "memory" : "product")}, {"share", number(floor / seconds)}};
      if (!memory && device_.info().bf16 > 0) found.push_back({"shareByClocks", number(operations / seconds / device_.info().bf16)});
      return {};
    });
  }

  const Status& status() const { return broken_; }

 private:
  // Weights: any bytes, the exponents of halves in them small; values in [−1, 1).
  Status fill() {
    Pinned pinned;
    const size_t block = small_ ? size_t{1} << 20 : size_t{64} << 20;
    TANDEM_TRY(device_.pin(block, "what is random", pinned));
    std::mt19937_64 random(1);
    uint64_t* const words = reinterpret_cast<uint64_t*>(pinned.data());
    for (size_t i = 0; i < block / 8; i++) words[i] = random() & 0xbfffbfffbfffbfffu;
    for (size_t at = 0; at < weight_bytes_; at += block) TANDEM_TRY(stream_.copy_in(weights_.get() + at, pinned.data(), std::min(block, weight_bytes_ - at)));
    TANDEM_TRY(finish(stream_));
    float* const floats = reinterpret_cast<float*>(pinned.data());
    for (size_t i = 0; i < block / 4; i++) floats[i] = static_cast<float>(random() >> 40) * 0x1p-23f - 1;
    for (const Memory* memory : {&x_, &y_})
      for (size_t at = 0; at < vector_bytes_; at += block) TANDEM_TRY(stream_.copy_in(memory->get() + at, pinned.data(), std::min(block, vector_bytes_ - at)));
    return finish(stream_);
  }

  Device& device_;
  Pieces& pieces_;
  bool small_;
  std::string only_;
  Ceilings ceilings_;
  Memory weights_, x_, y_, constants_;
  Stream stream_;
  size_t weight_bytes_ = 0, vector_bytes_ = 0, used_ = 0;
  Status broken_;
};

template <typename Arguments> Status launch(Stream& stream, FunctionHandle* function, Shape shape, Arguments arguments) {
  void* list[] = {&arguments};
  return stream.launch(function, {shape.x, shape.y, shape.z}, {shape.threads, 1, 1}, shape.shared, list);
}

float* floats(Address address) { return reinterpret_cast<float*>(address); }
int32_t* ints(Address address) { return reinterpret_cast<int32_t*>(address); }
std::string by(int64_t a, int64_t b) { return std::to_string(a) + "x" + std::to_string(b); }

LinearArguments linear_arguments(Bench& b, int64_t n, int64_t k, const int32_t* rows) {
  LinearArguments a = {};
  a.x = floats(b.x()), a.x_stride = k;
  a.y = floats(b.y()), a.y_stride = n;
  a.rows = rows;
  return a;
}

void linear(Bench& b, const char* format, int64_t n, int64_t k, int64_t rows) {
  const Matrix m(format, n, k);
  if (!b.fits(m)) return;
  const int width = rows == 1 ? 1 : 8;
  const LinearArguments fixed = linear_arguments(b, n, k, b.count(rows));
  const Shape shape = linear_shape(*quant::find_format(format), n, k, rows, width > 1);
  const double values = 4 * static_cast<double>(rows) * static_cast<double>(k + n);
  b.time(std::string("linear_") + format + "_m" + std::to_string(width), by(n, k) + " T=" + std::to_string(rows), static_cast<double>(m.bytes()) + values, 0, [&](Stream& stream, FunctionHandle* function, int i) {
    LinearArguments a = fixed;
    a.weight = b.at(m, i);
    return launch(stream, function, shape, a);
  }, shape.shared);
}

void round_rows(Bench& b, const char* format, int64_t k, int64_t rows) {
  const RoundRowsArguments a = {floats(b.x()), k, reinterpret_cast<uint16_t*>(b.y()), rounded_columns(k), k, b.count(rows), 1, 0, column_order(format)};
  b.time("round_rows", by(rows, k) + " " + format, 6 * static_cast<double>(rows * k), 0, [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, round_rows_shape(k, rows), a); });
}

void linear_tiles(Bench& b, const char* format, int64_t n, int64_t k, int64_t rows) {
  const Matrix m(format, n, k);
  if (!b.fits(m)) return;
  LinearTilesArguments fixed = {};
  fixed.x = reinterpret_cast<const uint16_t*>(b.x()), fixed.x_stride = rounded_columns(k), fixed.y = floats(b.y()), fixed.y_stride = n, fixed.rows = b.count(rows), fixed.batches = 1;
  const bool small = small_tiles(n, rows, 1, b.multiprocessors());
  const double t = static_cast<double>(rows), values = t * static_cast<double>(2 * k + 4 * n), products = 2 * t * static_cast<double>(n) * static_cast<double>(k);
  b.time(std::string("linear_") + format + (small ? "_tiles_small" : "_tiles"), by(n, k) + " T=" + std::to_string(rows), static_cast<double>(m.bytes()) + values, products, [&](Stream& stream, FunctionHandle* function, int i) {
    LinearTilesArguments a = fixed;
    a.weight = b.at(m, i);
    return launch(stream, function, linear_tiles_shape(n, rows, 1, small), a);
  });
}

void linears(Bench& b) {
  if (b.small()) {
    for (const char* format : kFormats) linear(b, format, 16, 256, 1);
    linear(b, "q4_k", 16, 256, 4);
    linear(b, "q4_k", 16, 256, 8);
    return linear_tiles(b, "q4_k", 16, 256, 9);
  }
  for (const char* format : kFormats) linear(b, format, 18432, 7168, 1);
  // DeepSeek-V3: what goes into attention, out of it, dense and shared experts, head; then Qwen3-30B.
  const int64_t shapes[][2] = {{1536, 7168}, {24576, 1536}, {576, 7168}, {7168, 16384}, {7168, 18432}, {2048, 7168}, {129280, 7168}, {4096, 2048}, {512, 2048}, {2048, 4096}};
  for (const auto& [n, k] : shapes)
    for (const char* format : {"q4_k", "q6_k", "q8_0"}) linear(b, format, n, k, 1);
  for (const char* format : {"q4_k", "q6_k", "q8_0", "mxfp4", "iq4_xs", "f8_e4m3", "bf16"})
    for (const int64_t rows : {2, 4, 8, 32}) linear(b, format, 18432, 7168, rows);
  for (const char* format : {"bf16", "q4_k", "q6_k", "q8_0", "f8_e4m3", "mxfp4"})
    for (const int64_t rows : {64, 256, 2048}) linear_tiles(b, format, 7168, 16384, rows);
  for (const char* format : kFormats) linear_tiles(b, format, 4096, 7168, 2048);
  for (const char* format : {"bf16", "q8_0", "q4_k", "q6_k"}) round_rows(b, format, 7168, 2048);
}

void experts(Bench& b, const char* format, int64_t count, int64_t n, int64_t k, int64_t topk, int64_t rows, bool tiles) {
  const Matrix m(format, n, k);
  const size_t places = std::min<size_t>(static_cast<size_t>(count), b.weight_bytes() / m.place());
  std::vector<uint64_t> data, scales;
  for (size_t e = 0; e < static_cast<size_t>(count); e++) {
    const Address at = b.weights() + e % places * m.place();
    data.push_back(at);
    scales.push_back(at + (m.data_bytes + 255) / 256 * 256);
  }
  std::mt19937 random(7);
  std::vector<int32_t> ids;
  for (int64_t row = 0; row < rows; row++) {
    std::vector<int32_t> all(static_cast<size_t>(count));
    for (size_t e = 0; e < all.size(); e++) all[e] = static_cast<int32_t>(e);
    std::shuffle(all.begin(), all.end(), random);
    ids.insert(ids.end(), all.begin(), all.begin() + topk);
  }
  std::vector<int32_t> visited = ids;
  std::sort(visited.begin(), visited.end());
  const double distinct = static_cast<double>(std::unique(visited.begin(), visited.end()) - visited.begin());
  ExpertsArguments fixed = {};
  fixed.matrices = reinterpret_cast<const uint8_t* const*>(b.put(data));
  fixed.scales = m.scale_bytes == 0 ? nullptr : reinterpret_cast<const uint8_t* const*>(b.put(scales));
  fixed.row_bytes = m.row_bytes, fixed.scale_stride = m.scale_stride, fixed.n = n, fixed.k = k;
  fixed.x = floats(b.x()), fixed.x_stride = k, fixed.y = floats(b.y()), fixed.y_stride = n;
  fixed.rounded = reinterpret_cast<const uint16_t*>(b.x()), fixed.rounded_stride = rounded_columns(k);
  fixed.ids = b.put(ids), fixed.topk = topk, fixed.visits_a_row = topk, fixed.rows = b.count(rows);
  const int64_t most_tiles = expert_tiles(rows, topk, count);
  std::vector<int32_t> groups(static_cast<size_t>(rows * topk + count + 1 + 2 * most_tiles + 1), 0);
  int32_t* const order = const_cast<int32_t*>(b.put(groups));
  int32_t *const offsets = order + rows * topk, *const tile_list = offsets + count + 1, *const tile_count = tile_list + 2 * most_tiles;
  const std::string shape = std::to_string(count) + " of " + by(n, k) + " T=" + std::to_string(rows);
  const double t = static_cast<double>(rows * topk);
  if (tiles) {
    const ExpertGroupsArguments g = {fixed.ids, topk, count, fixed.rows, order, offsets, tile_list, tile_count};
    b.time("expert_groups", shape, 8 * t, 0, [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, expert_groups_shape(), g); });
    fixed.order = order, fixed.offsets = offsets, fixed.tiles = tile_list, fixed.tile_count = tile_count;
  }
  const Shape grid = tiles ? experts_tiles_shape(n, rows, topk, count) : experts_rows_shape(*quant::find_format(format), n, k, rows, topk);
  // Rows of decode visit other experts at every launch.
  std::vector<const int32_t*> choices = {fixed.ids};
  for (int i = 1; i < 16 && !tiles; i++) {
    for (int32_t& id : ids) id = static_cast<int32_t>((id + 17) % count);
    choices.push_back(b.put(ids));
  }
  b.time(std::string("experts_") + format + (tiles ? "_tiles" : "_rows"), shape, distinct * static_cast<double>(m.bytes()) + 4 * (static_cast<double>(rows * k) + t * static_cast<double>(n)),
         tiles ? 2 * t * static_cast<double>(n) * static_cast<double>(k) : 0, [&](Stream& stream, FunctionHandle* function, int i) {
           ExpertsArguments a = fixed;
           a.ids = choices[static_cast<size_t>(i) % choices.size()];
           return launch(stream, function, grid, a);
         }, grid.shared);
}

void all_experts(Bench& b) {
  if (b.small()) {
    experts(b, "q4_k", 4, 16, 256, 2, 1, false);
    return experts(b, "q4_k", 4, 16, 256, 2, 3, true);
  }
  for (const char* format : {"q4_k", "q6_k", "q8_0", "mxfp4", "f8_e4m3"}) experts(b, format, 256, 2048, 7168, 8, 1, false);
  experts(b, "q4_k", 128, 768, 2048, 8, 1, false);
  experts(b, "q4_k", 128, 768, 2048, 8, 16, false);
  for (const char* format : {"q4_k", "q6_k", "q8_0", "mxfp4", "f8_e4m3", "int4_g32", "bf16"}) experts(b, format, 128, 768, 2048, 8, 2048, true);
  experts(b, "q4_k", 256, 2048, 7168, 8, 512, true);
}

// Rows at the end of contexts of so many positions, each a sequence of its own; or one sequence of `rows` rows from position 0 on.
CacheView cache(Bench& b, int64_t heads, int64_t width, int64_t streams, int64_t offset, int64_t rows, int64_t context, bool prompt, int bytes) {
  const int64_t page_tokens = 64, pages = (context + page_tokens - 1) / page_tokens, page_elements = streams * heads * width * page_tokens;
  const int64_t held = std::max<int64_t>(1, static_cast<int64_t>(b.weight_bytes()) / (page_elements * bytes));
  std::vector<int32_t> tables, positions, owners;
  for (int64_t row = 0; row < rows; row++) {
    positions.push_back(static_cast<int32_t>(prompt ? row : context - 1));
    owners.push_back(prompt ? 0 : static_cast<int32_t>(row * pages));
    if (!prompt || row == 0)
      for (int64_t p = 0; p < pages; p++) tables.push_back(static_cast<int32_t>((row * pages + p) * 37 % held));
  }
  return {reinterpret_cast<uint8_t*>(b.weights()), page_elements, page_tokens, offset * heads * width * page_tokens, width, b.put(tables), 1, b.put(positions), b.put(owners), nullptr, b.count(rows)};
}

void attention_parts(Bench& b, const char* what, int64_t heads, int64_t kv_heads, int64_t head_size, int64_t value_size, int64_t context, int64_t rows) {
  const bool latent = value_size != head_size;
  AttentionArguments a = {};
  a.keys = cache(b, kv_heads, head_size, latent ? 1 : 2, 0, rows, context, false, 2);
  a.values = a.keys;
  if (!latent) a.values.offset = kv_heads * head_size * 64;
  a.q = floats(b.x()), a.q_stride = heads * head_size, a.y = floats(b.y()), a.y_stride = heads * value_size;
  a.partial = floats(b.y() + static_cast<size_t>(rows * heads * value_size * 4 + 255) / 256 * 256);
  a.heads = heads, a.kv_heads = kv_heads, a.head_size = head_size, a.value_size = value_size, a.values_stride = head_size;
  a.part = std::max<int64_t>(256, (context + 63) / 64 / 64 * 64), a.parts = (context + a.part - 1) / a.part, a.scale = 0.1f;
  const std::string shape = std::string(what) + " S=" + std::to_string(context) + " T=" + std::to_string(rows);
  const double t = static_cast<double>(rows), s = static_cast<double>(context);
  const double partial = 4 * t * static_cast<double>(heads * a.parts * (value_size + 2));
  b.time("attention_part_bf16", shape, t * s * static_cast<double>(kv_heads * (latent ? head_size : 2 * head_size)) * 2 + partial, 0,
         [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, attention_part_shape(heads, kv_heads, a.parts, rows), a); });
  const int room = head_size <= 64 ? 64 : 128;
  if (!latent) {
    const double products = 3 * 2 * t * s * static_cast<double>(heads * 2 * head_size) * (heads / kv_heads < 16 ? 16.0 * static_cast<double>(kv_heads) / static_cast<double>(heads) : 1);  // rows of zeros too
    b.time("attention_group_bf16_" + std::to_string(room), shape, t * s * static_cast<double>(kv_heads * 2 * head_size) * 2 + partial, products,
           [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, attention_group_shape(heads, kv_heads, a.parts, rows, room), a); }, kAttentionGroupShared<128>);
  }
  if (latent) {
    const double products = 3 * 2 * t * s * static_cast<double>(heads * (head_size + value_size));  // of three parts each
    b.time("mla_part_bf16", shape, t * s * static_cast<double>(head_size) * 2 + partial, products,
           [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, mla_part_shape(heads, a.parts, rows), a); }, kMlaPartShared);
  }
  b.time("attention_merge", shape, partial, 0, [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, attention_merge_shape(heads, rows), a); });
}

std::vector<int32_t> tiles_of(int64_t rows) {
  std::vector<int32_t> tiles;
  for (int64_t first = 0; first < rows; first += 64) {
    tiles.push_back(static_cast<int32_t>(first));
    tiles.push_back(static_cast<int32_t>(std::min<int64_t>(64, rows - first)));
  }
  return tiles;
}

void attention_tiles(Bench& b, int64_t heads, int64_t kv_heads, int64_t head_size, int64_t rows) {
  AttentionArguments a = {};
  a.keys = cache(b, kv_heads, head_size, 2, 0, rows, rows, true, 2);
  a.values = a.keys;
  a.values.offset = kv_heads * head_size * 64;
  a.q = floats(b.x()), a.q_stride = heads * head_size, a.y = floats(b.y()), a.y_stride = heads * head_size;
  a.heads = heads, a.kv_heads = kv_heads, a.head_size = a.value_size = a.values_stride = head_size, a.scale = 0.1f;
  const std::vector<int32_t> tiles = tiles_of(rows);
  a.tiles = b.put(tiles), a.tile_count = b.count(static_cast<int64_t>(tiles.size() / 2));
  const double t = static_cast<double>(rows), d = static_cast<double>(heads * head_size);
  b.time("attention_tiles_bf16_" + std::to_string(head_size), std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads T=S=" + std::to_string(rows), 8 * t * d, 2 * t * t * d,
         [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, attention_tiles_shape(heads, kv_heads, static_cast<int64_t>(tiles.size() / 2), static_cast<int>(head_size)), a); },
         attention_tiles_shape(heads, kv_heads, 1, static_cast<int>(head_size)).shared);
}

void mla_prompt(Bench& b, int64_t heads, int64_t nope, int64_t rope, int64_t latent, int64_t value, int64_t rows) {
  MlaChunkArguments a = {};
  a.cache = cache(b, 1, latent + rope, 1, 0, rows, rows, true, 2);
  a.chunk = b.put(std::vector<int32_t>{0, 0, static_cast<int32_t>(rows), 1});
  a.latents = floats(b.y()), a.ropes = reinterpret_cast<uint16_t*>(b.weights()), a.keys = reinterpret_cast<const uint16_t*>(b.weights()), a.values = a.keys;
  a.q = floats(b.x()), a.q_stride = heads * (nope + rope), a.y = floats(b.y()), a.y_stride = heads * value;
  a.state = floats(b.y() + static_cast<size_t>(rows * heads * value * 4 + 255) / 256 * 256);
  a.heads = heads, a.nope = nope, a.rope = rope, a.latent = latent, a.value = value, a.scale = 0.1f;
  const std::vector<int32_t> tiles = tiles_of(rows);
  a.tiles = b.put(tiles), a.tile_count = b.count(static_cast<int64_t>(tiles.size() / 2));
  const double t = static_cast<double>(rows), h = static_cast<double>(heads);
  const std::string shape = std::to_string(heads) + " heads T=S=" + std::to_string(rows);
  b.time("mla_gather_bf16", shape, 6 * t * static_cast<double>(latent), 0, [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, mla_gather_shape(latent + rope, rows), a); });
  b.time("mla_tiles", shape, 4 * t * h * static_cast<double>(nope + rope + value), t * t * h * static_cast<double>(nope + rope + value),
         [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, mla_tiles_shape(heads, static_cast<int64_t>(tiles.size() / 2)), a); }, kMlaTilesShared);
}

void attentions(Bench& b) {
  if (b.small()) {
    attention_parts(b, "2/1 heads of 64", 2, 1, 64, 64, 70, 1);
    attention_parts(b, "absorbed", 2, 1, 80, 64, 70, 1);
    attention_tiles(b, 2, 1, 64, 70);
    return mla_prompt(b, 2, 16, 8, 64, 16, 70);
  }
  for (const int64_t context : {1024, 8192, 32768}) {
    attention_parts(b, "32/4 heads of 128", 32, 4, 128, 128, context, 1);
    attention_parts(b, "absorbed, 128 heads", 128, 1, 576, 512, context, 1);
  }
  attention_parts(b, "32/4 heads of 128", 32, 4, 128, 128, 4096, 16);
  attention_parts(b, "absorbed, 128 heads", 128, 1, 576, 512, 4096, 8);
  attention_parts(b, "absorbed, 16 heads", 16, 1, 576, 512, 8192, 1);
  attention_tiles(b, 32, 4, 128, 2048);
  attention_tiles(b, 64, 8, 64, 2048);
  attention_tiles(b, 32, 4, 128, 8192);
  mla_prompt(b, 128, 128, 64, 512, 128, 1024);
}

// Launches that move a few numbers: what they cost in a graph is what a step of a token costs at least.
void rows_of(Bench& b, int64_t rows) {
  const int64_t hidden = b.size(7168, 96), wide = b.size(18432, 128), count = b.size(256, 16), heads = b.size(128, 2);
  const std::string t = " T=" + std::to_string(rows);
  const double r = static_cast<double>(rows);
  const int32_t* const live = b.count(rows);
  float *const x = floats(b.x()), *const y = floats(b.y());
  const RmsNormArguments norm = {x, hidden, x, y, hidden, hidden, hidden, 1e-6f, live};
  b.time("rms_norm", std::to_string(hidden) + t, 8 * r * static_cast<double>(hidden), 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, rms_norm_shape(hidden, hidden, rows), norm); });
  const ElementwiseArguments two = {x, wide, x, wide, y, wide, wide, live};
  b.time("glu", std::to_string(wide) + t, 12 * r * static_cast<double>(wide), 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, elementwise_shape(wide, rows), two); });
  const ElementwiseArguments sum = {x, hidden, x, hidden, y, hidden, hidden, live};
  b.time("add", std::to_string(hidden) + t, 12 * r * static_cast<double>(hidden), 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, elementwise_shape(hidden, rows), sum); });
  std::vector<double> frequencies;
  std::vector<int32_t> positions;
  for (int i = 0; i < 32; i++) frequencies.push_back(std::pow(10000.0, -i / 32.0));
  for (int64_t i = 0; i < rows; i++) positions.push_back(static_cast<int32_t>(4000 + i));
  const RopeArguments rope = {x, heads * 192, y, heads * 192, heads * 192, 192, 128, 64, b.put(frequencies), 1, 1, b.put(positions), live};
  b.time("rope", std::to_string(heads) + " heads of 192" + t, 8 * r * static_cast<double>(heads * 192), 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, rope_shape(rows), rope); });
  RouterArguments route = {};
  route.logits = x, route.logits_stride = count, route.bias = x, route.ids = ints(b.y()), route.ids_stride = 8, route.weights = y + rows * 8, route.weights_stride = 8;
  route.experts = static_cast<int32_t>(count), route.topk = 8, route.groups = 8, route.group_topk = 4, route.sigmoid = 1, route.top2 = 1, route.normalize = 1, route.scale = 2.5, route.rows = live;
  b.time("router", std::to_string(count) + " experts, 8 groups" + t, 4 * r * static_cast<double>(count), 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, router_shape(rows), route); });
  CacheAppendArguments append = {};
  append.cache = cache(b, 1, 576, 1, 0, rows, std::max<int64_t>(rows, 64), true, 2);
  append.x = x, append.x_stride = 512, append.heads = 1, append.columns = 512;
  b.time("cache_append_bf16", "512" + t, 6 * r * 512, 0, [&](Stream& s, FunctionHandle* f, int) { return launch(s, f, elementwise_shape(512, rows), append); });
}

void small_steps(Bench& b) {
  rows_of(b, 1);
  if (!b.small()) rows_of(b, 2048);
  // q_nope · W_UK of DeepSeek-V3 for one token.
  const int64_t heads = b.size(128, 2), nope = b.size(128, 16), latent = b.size(512, 256);
  const Matrix up("q4_k", heads * 2 * nope, latent);
  LinearArguments a = linear_arguments(b, heads * latent, heads * nope, b.count(1));
  a.x_batch = nope, a.y_batch = latent, a.weight_batch = 2 * nope;
  b.time("linear_transposed_q4_k", std::to_string(heads) + " heads of " + by(nope, latent) + " T=1", static_cast<double>(up.bytes()) / 2, 0, [&](Stream& stream, FunctionHandle* function, int i) {
    LinearArguments own = a;
    own.weight = b.at(up, i);
    own.weight.n = nope;
    return launch(stream, function, transposed_shape(latent, 1, heads), own);
  });
  const int64_t vocabulary = b.size(129280, 300), hidden = b.size(7168, 256);
  const Matrix table("q4_k", vocabulary, hidden);
  const int32_t* const one = b.count(1);
  b.time("embed_q4_k", std::to_string(hidden) + " T=1", static_cast<double>(table.row_bytes + 4 * hidden), 0, [&](Stream& stream, FunctionHandle* function, int i) {
    return launch(stream, function, embed_shape(hidden, 1), EmbedArguments{b.at(table, i), one, floats(b.y()), hidden, one});
  });
  b.time("greedy", std::to_string(vocabulary) + " T=1", 4 * static_cast<double>(vocabulary), 0, [&](Stream& stream, FunctionHandle* function, int) {
    return launch(stream, function, greedy_shape(1), GreedyArguments{floats(b.x()), vocabulary, vocabulary, ints(b.y()), one});
  });
  SampleRow row = {};
  row.temperature = 0.7f, row.top_p = 0.95f, row.repetition_penalty = 1, row.top_k = 40, row.seed_low = 1, row.position = 5, row.sampled = 1, row.mask_first = -1;
  SampleArguments sample = {};
  sample.lists = b.put(std::vector<SampleLists>(1));
  sample.logits = floats(b.x()), sample.logits_stride = sample.vocabulary = sample.adjusted_stride = vocabulary;
  sample.adjusted = floats(b.y()) + 64, sample.token = ints(b.y()), sample.logprob = floats(b.y()) + 8, sample.rows = one;
  sample.lists = b.put(std::vector<SampleLists>(1));
  for (const bool kept : {true, false}) {
    row.top_k = kept ? 40 : 0;
    sample.records = b.put(std::vector<SampleRow>{row});
    b.time("sample", std::string(kept ? "top-k 40, " : "") + "top-p, " + std::to_string(vocabulary) + " T=1", 4 * static_cast<double>(vocabulary), 0,
           [&](Stream& stream, FunctionHandle* function, int) { return launch(stream, function, sample_shape(1), sample); });
  }
}

}  // namespace

Status timings(Device& device, bool small, const std::string& only, Pieces& pieces) {
  Bench b(device, small, only, pieces);
  TANDEM_TRY(b.open());
  linears(b);
  all_experts(b);
  attentions(b);
  small_steps(b);
  return b.status();
}

}  // namespace tandem::bench
