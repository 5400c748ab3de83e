#include "core/weights.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <map>
#include <tuple>

#include "cpu/node_memory.h"
#include "cpu/topology.h"
#include "quant/formats.h"

namespace tandem {

namespace {

// Tensors up to this size are read in mapped mode too.
constexpr uint64_t kSmallBytes = uint64_t{4} << 20;

// What `automatic` leaves to the rest of the machine: a part of what is available, and no more than so much.
constexpr double kReservePart = 0.15;
constexpr double kReserveBytes = 8e9;
// What a kept page cache leaves free.
constexpr double kCacheReservePart = 0.05;

Status invalid(const std::string& rule, const std::string& given) {
  return Status(Code::model_invalid, "[native] " + rule + "; " + given + "; the checkpoint is damaged or was converted wrongly");
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Per weight: is it a matrix of routed experts?
std::vector<bool> routed_experts(const Program& program) {
  std::vector<bool> routed(program.weights.size());
  for (const Step& step : program.steps) {
    if (step.op != "experts") continue;
    for (const Operand& operand : step.inputs)
      if (operand.kind == Operand::Kind::weight && program.weights[operand.index].shape.size() == 3) routed[operand.index] = true;
  }
  return routed;
}

}  // namespace

// Bytes [offset, offset + bytes) of a file, whole rows of one tensor.
struct WeightStore::Range {
  uint32_t file;
  uint64_t offset, bytes;
  const quant::FormatInfo* format;
  int64_t row_bytes;
  bool aligned;               // read into the region whatever the mode
  bool routed;                // of routed experts
  bool remote = false;        // only other devices use it, from the file
  bool widened = false;       // bf16 in the file, f32 in the region: `aligned`
  // Matrices of so many rows of `row_bytes` become as many columns in the region: `aligned`. 0: they stay as they are.
  int64_t turned_rows = 0;
  std::string name;           // of the first weight that uses it, for messages
  uint8_t* target = nullptr;  // in the region; null: `data` points into the file
  const uint8_t* data = nullptr;
  // Split over nodes: bounds of a matrix's rows [nodes + 1], and where the rows of each node begin, those of all matrices
  // one after the other. `target` and `data` are then the first of these. A row is `in_turn` stored ones: of gate and up that
  // take turns a node has both. Gate above up are two matrices.
  const std::vector<int64_t>* bounds = nullptr;
  int64_t in_turn = 1;
  std::vector<uint8_t*> node_targets = {};
  int64_t matrices() const { return static_cast<int64_t>(bytes) / (row_bytes * in_turn * bounds->back()); }
};

namespace {

// `count` bf16 at the front of `data` become f32 over all of it, from the last on.
void widen(uint8_t* data, uint64_t count) {
  for (uint64_t i = count; i-- > 0;) {
    const float value = quant::bf16_to_f32(quant::load_u16(data + 2 * i));
    std::memcpy(data + 4 * i, &value, sizeof value);
  }
}

// A matrix [rows, columns] of words becomes [columns, rows] in its place; `scratch` is as large. By squares that a core's
// first cache holds.
template <typename Word> void turn_matrix(uint8_t* data, int64_t rows, int64_t columns, uint8_t* scratch) {
  constexpr int64_t kSide = 64;
  constexpr int64_t kSize = sizeof(Word);
  for (int64_t r0 = 0; r0 < rows; r0 += kSide) {
    for (int64_t c0 = 0; c0 < columns; c0 += kSide) {
      const int64_t r1 = std::min(r0 + kSide, rows), c1 = std::min(c0 + kSide, columns);
      for (int64_t c = c0; c < c1; c++)
        for (int64_t r = r0; r < r1; r++) std::memcpy(scratch + (c * rows + r) * kSize, data + (r * columns + c) * kSize, kSize);
    }
  }
  std::memcpy(data, scratch, static_cast<size_t>(rows * columns * kSize));
}

}  // namespace

struct WeightStore::Binding {
  BoundWeight bound;
  std::unique_ptr<std::atomic<const uint8_t*>[]> outer;
  std::vector<const uint8_t*> scales;
};

WeightStore::WeightStore() = default;
WeightStore::~WeightStore() = default;

Status WeightStore::load(const Program& program, std::vector<FileInput> files, LoadMode mode, int64_t other_bytes, int64_t most, const TeamPlan& team,
                         const RemoteWeights& remote, LoadProgress& progress) {
  const auto started = std::chrono::steady_clock::now();
  for (FileInput& input : files) {
    files_.push_back(std::make_unique<LoadFile>());
    files_.back()->input = std::move(input);
  }
  TANDEM_TRY(open_files());
  TANDEM_TRY(collect(program, remote.weights));
  choose_split(program, team);
  TANDEM_TRY(choose_mode(mode, other_bytes, most));
  TANDEM_TRY(place(team));
  progress.total.store(static_cast<uint64_t>(bytes_) + remote.bytes);
  TANDEM_TRY(read(team.threads(), progress));
  for (const Range& range : ranges_)
    if (range.widened) widen(range.target, range.bytes / 2);
  TANDEM_TRY(turn(team.threads(), progress));
  bind(program);
  report_.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  conclude();
  return {};
}

Status WeightStore::open_files() {
  for (const auto& file : files_)
    if (!file->input.in_memory) TANDEM_TRY(file->file.open(file->input.path));
  return {};
}

// Finds the format of every weight, checks the sizes of its parts and gathers the distinct byte ranges.
Status WeightStore::collect(const Program& program, const std::vector<bool>& remote) {
  const quant::FormatInfo* bf16 = quant::find_format("bf16");
  std::map<std::tuple<uint32_t, uint64_t, uint64_t>, size_t> known;
  const auto range_of = [&](const std::string& name, const Location& at, const quant::FormatInfo* format, int64_t row_bytes, int64_t turned_rows,
                            bool aligned, bool routed, uint64_t expected, size_t& index) -> Status {
    if (at.bytes != expected)
      return invalid("a tensor has as many bytes as its shape needs", name + " has " + std::to_string(at.bytes) + ", its shape needs " + std::to_string(expected));
    const LoadFile& file = *files_[at.file];
    const uint64_t size = file.input.in_memory ? file.input.bytes.size() : file.file.size();
    if (at.offset > size || at.bytes > size - at.offset)
      return Status(Code::file_io, "[native] a model file holds all its tensors; " + (file.input.in_memory ? std::string("a file given as bytes") : file.input.path) +
                                       " ends at byte " + std::to_string(size) + ", " + name + " needs " + std::to_string(at.offset + at.bytes) +
                                       "; the file is incomplete, copy or download it again");
    const auto [entry, fresh] = known.try_emplace({at.file, at.offset, at.bytes}, ranges_.size());
    index = entry->second;
    if (fresh) ranges_.push_back({at.file, at.offset, at.bytes, format, row_bytes, aligned, routed, false, false, turned_rows, name, nullptr, nullptr});
    Range& range = ranges_[index];
    if (range.turned_rows != turned_rows || (turned_rows != 0 && range.row_bytes != row_bytes))
      return invalid("weights of one tensor agree on how it is stored", name + " does not with " + range.name);
    range.aligned = range.aligned || aligned;
    return {};
  };

  const std::vector<bool> routed = routed_experts(program);
  for (size_t id = 0; id < program.weights.size(); id++) {
    const Weight& weight = program.weights[id];
    const quant::FormatInfo* format = quant::find_format(weight.format);
    if (format == nullptr)
      return Status(Code::format_unsupported, "[native] a weight has a format that native knows; " + weight.name + " is " + weight.format + "; convert the file to another format");
    const size_t rank = weight.shape.size();
    const int64_t columns = weight.shape.back();
    const int64_t rows = rank >= 2 ? weight.shape[rank - 2] : 1;
    const int64_t experts = rank == 3 ? weight.shape[0] : 1;
    if (columns % format->block_size != 0)
      return invalid("columns are a multiple of the format's block", weight.name + " has " + std::to_string(columns) + " columns of " + weight.format);
    if ((format->scale_rows > 0) == weight.scales.empty())
      return invalid(weight.format + (format->scale_rows > 0 ? " weights have scales" : " weights have no scales"), weight.name);
    if (format->scale_rows > 1 && (weight.step != 1 || weight.start % format->scale_rows != 0))
      return invalid("some rows of stored matrices begin with those that share a scale", weight.name);
    if (weight.by_columns && (rank < 2 || format->block_size != 1 || format->block_bytes < 2 || format->scale_rows > 0))
      return invalid("matrices of single numbers alone may be stored column by column", weight.name + " is " + weight.format);
    if (weight.scales_bf16 && format->scale_bytes != 4) return invalid("scales are of their format's type, or bf16 for f32", weight.name);
    const int64_t row_bytes = quant::row_bytes(*format, columns);
    const int64_t each = experts / static_cast<int64_t>(weight.parts.size());  // matrices in a part
    const uint64_t part_bytes = static_cast<uint64_t>(each) * static_cast<uint64_t>(weight.of) * static_cast<uint64_t>(row_bytes);
    std::vector<size_t> parts(weight.parts.size()), scales(weight.scales.size());
    const int64_t stored_row = weight.by_columns ? quant::row_bytes(*format, weight.of) : row_bytes;
    for (size_t i = 0; i < parts.size(); i++) {
      const bool aligned = weight.by_columns || (part_bytes <= kSmallBytes && experts == 1);
      TANDEM_TRY(range_of(weight.name, weight.parts[i], format, stored_row, weight.by_columns ? columns : 0, aligned, routed[id], part_bytes, parts[i]));
    }
    for (size_t i = 0; i < scales.size(); i++) {
      const quant::FormatInfo* stored = weight.scales_bf16 ? bf16 : quant::scale_format(*format);
      const int64_t stride = ceil_divide(columns, format->scale_columns) * stored->block_bytes;
      const int64_t bytes = each * ceil_divide(weight.of, format->scale_rows) * stride;
      const bool shared = format->scale_rows > 1;  // few: read in either mode
      TANDEM_TRY(range_of(weight.name + " (scales)", weight.scales[i], stored, stride, 0, shared, routed[id], static_cast<uint64_t>(bytes), scales[i]));
      ranges_[scales[i]].widened = weight.scales_bf16;
    }
    part_of_.push_back(std::move(parts));
    scales_of_.push_back(std::move(scales));
  }
  if (!remote.empty()) find_remote(remote);
  for (const Range& range : ranges_)
    if (!range.remote) bytes_ += static_cast<int64_t>(range.bytes);
  return {};
}

// Ranges that remote weights alone use, and that are taken as they are.
void WeightStore::find_remote(const std::vector<bool>& remote) {
  for (Range& range : ranges_) range.remote = !range.widened && range.turned_rows == 0;
  for (size_t id = 0; id < remote.size(); id++) {
    if (remote[id]) continue;
    for (const auto* indices : {&part_of_, &scales_of_})
      for (const size_t index : (*indices)[id]) ranges_[index].remote = false;
  }
}

// Which ranges may be split over the nodes: matrices that only `linear` and `experts` multiply by, in ranges that no other weight
// uses, or only such as take the other rows of the same stored matrices.
void WeightStore::choose_split(const Program& program, const TeamPlan& team) {
  if (team.nodes() < 2) return;
  std::vector<int> users(ranges_.size()), fitting(ranges_.size());
  for (const auto* indices : {&part_of_, &scales_of_})
    for (const std::vector<size_t>& list : *indices)
      for (size_t index : list) users[index]++;
  std::vector<bool> multiplied(program.weights.size()), otherwise(program.weights.size());
  for (const Step& step : program.steps) {
    for (size_t k = 0; k < step.inputs.size(); k++) {
      if (step.inputs[k].kind != Operand::Kind::weight) continue;
      const bool matrix = step.op == "linear" ? k == 1 : step.op == "experts" && k >= 3 && k <= 5;
      (matrix ? multiplied : otherwise)[step.inputs[k].index] = true;
    }
  }
  for (size_t id = 0; id < program.weights.size(); id++) {
    const Weight& weight = program.weights[id];
    if (!multiplied[id] || otherwise[id] || weight.shape.size() < 2) continue;
    const int64_t rows = weight.shape[weight.shape.size() - 2];
    const bool in_turn = weight.of == rows * weight.step && weight.start < weight.step;
    const bool above = weight.step == 1 && weight.of % rows == 0 && weight.start % rows == 0;
    if (!in_turn && !above) continue;
    const std::vector<int64_t>& bounds = bounds_.try_emplace(rows, split_rows(rows, team)).first->second;
    if (bounds.empty()) continue;
    for (size_t index : part_of_[id]) {
      Range& range = ranges_[index];
      if (range.remote || range.turned_rows != 0) continue;
      if (fitting[index] > 0 && (range.bounds != &bounds || range.in_turn != weight.step)) continue;
      fitting[index]++;
      range.bounds = &bounds;
      range.in_turn = weight.step;
    }
  }
  // A weight lies wholly on the nodes or not at all, and so does what shares its ranges.
  for (bool changed = true; changed;) {
    changed = false;
    for (const std::vector<size_t>& parts : part_of_) {
      const bool all = std::all_of(parts.begin(), parts.end(), [&](size_t index) { return ranges_[index].bounds != nullptr && fitting[index] == users[index]; });
      for (size_t index : parts) {
        if (all || ranges_[index].bounds == nullptr) continue;
        ranges_[index].bounds = nullptr;
        changed = true;
      }
    }
  }
}

Status WeightStore::choose_mode(LoadMode mode, int64_t other_bytes, int64_t most) {
  // Reserved huge pages are no part of what the system calls available, and serve the weights alone.
  const bool reserved = reserved_huge_bytes() >= bytes_ + (int64_t{2} << 20);
  int64_t available = read_memory().available;
  if (most > 0) available = available > 0 ? std::min(available, most) : most;
  int64_t routed = 0;
  for (const Range& range : ranges_)
    if (range.routed && !range.aligned && !range.remote) routed += static_cast<int64_t>(range.bytes);
  const int64_t whole = (reserved ? 0 : bytes_) + other_bytes;
  const int64_t reserve = static_cast<int64_t>(std::min(kReservePart * static_cast<double>(available), kReserveBytes));
  const bool known = available > 0;
  const bool fits = !known || whole <= available - reserve;
  const bool dense_fits = !known || whole - (reserved ? 0 : routed) <= available - reserve;
  if (mode == LoadMode::automatic) {
    experts_mapped_ = !fits;
    dense_mapped_ = !fits && !dense_fits;
  } else {
    experts_mapped_ = dense_mapped_ = mode == LoadMode::mapped;
  }
  report_.needed = whole;
  report_.available = available;
  report_.experts_mapped = experts_mapped_ && !fits && routed > 0;
  report_.dense_mapped = dense_mapped_;
  // What finds room beside the copy stays in the page cache: the next start is then a matter of seconds. Such pages are given
  // up as soon as somebody wants them, the KV cache as it fills included: it is not counted here. Of a mapped file all stays.
  keep_ = dense_mapped_ ? UINT64_MAX : 0;
  const int64_t room = available - (reserved ? 0 : bytes_) - static_cast<int64_t>(kCacheReservePart * static_cast<double>(available));
  if (!experts_mapped_ && known && room > 0) keep_ = static_cast<uint64_t>(room);
  const int64_t needed = !experts_mapped_ ? whole : dense_mapped_ ? other_bytes : whole - routed;
  if (!known || needed <= available) return {};
  return Status(Code::out_of_memory, "[native] a model fits into the available memory; " + format_bytes(static_cast<double>(needed)) + " needed, " +
                                         format_bytes(static_cast<double>(available)) + " available; use " +
                                         (!experts_mapped_ ? "load: 'mmap', " : "") + "fewer KV pages or a smaller model");
}

bool WeightStore::in_region(const Range& range) const {
  if (range.remote) return false;
  if (range.aligned) return true;
  if (files_[range.file]->input.in_memory && range.bounds == nullptr) return false;
  return !(range.routed ? experts_mapped_ : dense_mapped_);
}

// Gives every range its place: in the region at a multiple of 64, or in the file. The region begins with what all nodes use:
//
//     [ norms, embeddings, scales, … ][ node 0: its rows of every split range ][ node 1: … ]
Status WeightStore::place(const TeamPlan& team) {
  const auto padded = [](uint64_t bytes) { return static_cast<size_t>((bytes + 63) & ~uint64_t{63}); };
  const auto place_of = [&](const Range& range) { return padded((range.widened ? 2 : 1) * range.bytes); };
  const size_t nodes = static_cast<size_t>(team.nodes());
  const auto rows_of_node = [](const Range& range, size_t node) {
    const int64_t rows = (*range.bounds)[node + 1] - (*range.bounds)[node];
    return static_cast<uint64_t>(rows * range.matrices() * range.in_turn * range.row_bytes);
  };
  std::vector<size_t> sizes(nodes + 1);  // of the common part, then of the nodes'
  for (Range& range : ranges_) {
    if (!in_region(range)) {
      range.bounds = nullptr;
    } else if (range.bounds == nullptr) {
      sizes[0] += place_of(range);
    } else {
      for (size_t node = 0; node < nodes; node++) sizes[node + 1] += padded(rows_of_node(range, node));
    }
  }
  // Parts of nodes begin with a (huge) page: memory belongs to a node by pages.
  size_t size = 0;
  for (size_t part : sizes) size += part;
  const bool huge = size >= (size_t{2} << 20);
  const size_t unit = nodes > 1 ? size_t{huge ? size_t{2} << 20 : 4096} : 64;
  std::vector<size_t> starts{0};
  for (size_t part : sizes) starts.push_back((starts.back() + part + unit - 1) / unit * unit);
  if (!huge || !region_.allocate_reserved(starts.back())) TANDEM_TRY(region_.allocate(starts.back(), huge, "the weights"));
  place_on_all(region_.data(), nodes > 1 ? starts[1] : starts.back(), team);
  for (size_t node = 0; team.memory_nodes.size() > 1 && nodes > 1 && node < nodes; node++)
    place_on_node(region_.data() + starts[node + 1], starts[node + 2] - starts[node + 1], team.system_node[node]);

  std::vector<size_t> at(starts.begin(), starts.end() - 1);
  for (Range& range : ranges_) {
    LoadFile& from = *files_[range.file];
    if (in_region(range)) {
      if (range.bounds == nullptr) {
        range.target = region_.data() + at[0];
        at[0] += place_of(range);
      } else {
        for (size_t node = 0; node < nodes; node++) {
          range.node_targets.push_back(region_.data() + at[node + 1]);
          at[node + 1] += padded(rows_of_node(range, node));
        }
        range.target = range.node_targets[0];
        split_bytes_ += static_cast<int64_t>(range.bytes);
      }
      range.data = range.target;
      report_.in_pages += static_cast<int64_t>(range.bytes);
    } else if (from.input.in_memory) {
      range.data = from.input.bytes.data() + range.offset;
    } else {
      std::vector<const ModelFile*>& list = range.remote ? remote_files_ : mapped_;
      if (std::find(list.begin(), list.end(), &from.file) == list.end()) list.push_back(&from.file);
      TANDEM_TRY(from.file.map());
      range.data = from.file.mapping().data() + range.offset;
      if (!range.remote) report_.mapped += static_cast<int64_t>(range.bytes);
    }
  }
  return {};
}

// Where the rows of a range go: the one place that decides it. Pieces hold whole rows, in order, none twice.
std::vector<WeightPiece> WeightStore::pieces_of(const Range& range) const {
  WeightPiece whole;
  whole.file = range.file;
  whole.offset = range.offset;
  whole.bytes = range.bytes;
  whole.target = range.target;
  whole.data = range.data;
  whole.format = range.format;
  whole.row_bytes = range.row_bytes;
  whole.name = &range.name;
  if (range.bounds == nullptr) return {whole};
  std::vector<WeightPiece> pieces;
  for (int64_t matrix = 0; matrix < range.matrices(); matrix++) {
    for (size_t node = 0; node < range.node_targets.size(); node++) {
      const int64_t first = (*range.bounds)[node] * range.in_turn, rows = (*range.bounds)[node + 1] * range.in_turn - first;
      if (rows == 0) continue;
      WeightPiece piece = whole;
      piece.first_row = matrix * range.bounds->back() * range.in_turn + first;
      piece.offset += static_cast<uint64_t>(piece.first_row * range.row_bytes);
      piece.bytes = static_cast<uint64_t>(rows * range.row_bytes);
      piece.target = range.node_targets[node] + matrix * rows * range.row_bytes;
      piece.data = piece.target;
      pieces.push_back(piece);
    }
  }
  return pieces;
}

Status WeightStore::read(int threads, LoadProgress& progress) {
  std::vector<WeightPiece> pieces;
  uint64_t left = 0;
  for (const Range& range : ranges_) {
    if (range.remote) continue;
    // Experts that memory has no room for are read when they are used.
    if (range.target == nullptr && range.routed && report_.experts_mapped && !files_[range.file]->input.in_memory) {
      left += range.bytes;
      continue;
    }
    for (WeightPiece& piece : pieces_of(range)) pieces.push_back(std::move(piece));
  }
  progress.loaded.store(left);
  WeightReader reader(files_, region_, keep_, progress);
  const Status status = reader.read(std::move(pieces), threads);
  report_.from_cache = reader.from_cache();
  report_.from_disk = reader.from_disk();
  for (const auto& file : files_) file->file.end_reading();
  return status;
}

// Matrices that are stored column by column become rows, each where it is.
Status WeightStore::turn(int threads, const LoadProgress& progress) {
  struct Matrix {
    uint8_t* data;
    int64_t rows, columns, size;  // as stored; bytes of a number
  };
  std::vector<Matrix> matrices;
  size_t largest = 0;
  for (const Range& range : ranges_) {
    if (range.turned_rows == 0) continue;
    const int64_t bytes = range.turned_rows * range.row_bytes, size = range.format->block_bytes;
    for (uint64_t at = 0; at < range.bytes; at += static_cast<uint64_t>(bytes))
      matrices.push_back({range.target + at, range.turned_rows, range.row_bytes / size, size});
    largest = std::max(largest, static_cast<size_t>(bytes));
  }
  std::atomic<size_t> next{0};
  std::atomic<bool> refused{false};
  const auto work = [&] {
    Region scratch;
    if (!scratch.allocate(largest, true, "turning weights").ok()) refused.store(true);
    for (size_t i; !refused.load() && !progress.cancel.load() && (i = next.fetch_add(1)) < matrices.size();) {
      const Matrix& m = matrices[i];
      (m.size == 4 ? turn_matrix<uint32_t> : turn_matrix<uint16_t>)(m.data, m.rows, m.columns, scratch.data());
    }
  };
  if (matrices.empty()) return {};
  run_on_all_cores(static_cast<int>(std::min<size_t>(static_cast<size_t>(std::max(threads, 1)), matrices.size())), work);
  if (progress.cancel.load()) return Status(Code::aborted, "[native] loading was cancelled");
  if (refused.load()) return Status(Code::out_of_memory, "[native] memory was refused while loading; close other programs");
  return {};
}

void WeightStore::bind(const Program& program) {
  for (size_t id = 0; id < program.weights.size(); id++) {
    const Weight& weight = program.weights[id];
    auto binding = std::make_unique<Binding>();
    BoundWeight& b = binding->bound;
    const size_t rank = weight.shape.size();
    b.format = quant::find_format(weight.format);
    b.columns = weight.shape.back();
    b.rows = rank >= 2 ? weight.shape[rank - 2] : 1;
    b.experts = rank == 3 ? weight.shape[0] : 1;
    const int64_t row_bytes = quant::row_bytes(*b.format, b.columns);
    b.row_bytes = weight.step * row_bytes;
    const std::vector<size_t>& parts = part_of_[id];
    if (const std::vector<int64_t>* bounds = ranges_[parts[0]].bounds; bounds != nullptr) {
      b.nodes = static_cast<int>(bounds->size()) - 1;
      b.node_rows = bounds->data();
    }
    binding->outer = std::make_unique<std::atomic<const uint8_t*>[]>(static_cast<size_t>(b.experts * b.nodes));
    const std::vector<size_t>& scales = scales_of_[id];
    const int64_t each = b.experts / static_cast<int64_t>(parts.size());
    const int64_t scale_row = scales.empty() ? 0 : ceil_divide(b.columns, b.format->scale_columns) * b.format->scale_bytes;
    if (!scales.empty()) {
      b.scale_stride = weight.step * scale_row;
      binding->scales.resize(static_cast<size_t>(b.experts));
    }
    for (int64_t e = 0; e < b.experts; e++) {
      const size_t part = static_cast<size_t>(e / each);
      const int64_t within = e % each;
      for (int node = 0; b.node_rows != nullptr && node < b.nodes; node++) {
        const int64_t rows = b.node_rows[node + 1] - b.node_rows[node];
        const int64_t matrix = (within * weight.of + weight.start) / (b.rows * weight.step);  // of the range's
        const uint8_t* data = ranges_[parts[part]].node_targets[static_cast<size_t>(node)] + matrix * rows * b.row_bytes +
                              (weight.step > 1 ? weight.start : 0) * row_bytes;
        binding->outer[static_cast<size_t>(e * b.nodes + node)].store(data, std::memory_order_release);
      }
      if (b.node_rows == nullptr) binding->outer[static_cast<size_t>(e)].store(ranges_[parts[part]].data + (within * weight.of + weight.start) * row_bytes, std::memory_order_release);
      if (scales.empty()) continue;
      const int64_t first = within * ceil_divide(weight.of, b.format->scale_rows) + weight.start / b.format->scale_rows;
      binding->scales[static_cast<size_t>(e)] = ranges_[scales[part]].data + first * scale_row;
    }
    b.outer = binding->outer.get();
    b.scales = scales.empty() ? nullptr : binding->scales.data();
    bound_.push_back(&b);
    bindings_.push_back(std::move(binding));
  }
}

// Looks at the result: how much of it really lies in huge pages.
void WeightStore::conclude() {
  constexpr size_t kHuge = size_t{2} << 20;
  if (region_.size() >= kHuge) report_.huge += static_cast<int64_t>(huge_bytes(region_.data(), region_.size()));
  if (!report_.experts_mapped)
    for (const ModelFile* file : mapped_) report_.huge += static_cast<int64_t>(huge_bytes(file->mapping().data(), file->mapping().size()));
}

bool WeightStore::lost() const {
  for (const ModelFile* file : mapped_)
    if (file->mapping().lost()) return true;
  return false;
}

Status WeightStore::unchanged() const {
  for (const ModelFile* file : mapped_) TANDEM_TRY(file->unchanged());
  return {};
}

Status WeightStore::remote_unchanged() const {
  for (const ModelFile* file : remote_files_) TANDEM_TRY(file->unchanged());
  return {};
}

const uint8_t* BoundWeight::row_scales(int64_t e, int64_t n) const {
  return scales == nullptr ? nullptr : scales[e] + n / format->scale_rows * scale_stride;
}

}  // namespace tandem
