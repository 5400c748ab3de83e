#include "core/weights.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <mutex>
#include <tuple>

#include "core/finite.h"
#include "cpu/pool.h"
#include "cpu/topology.h"
#include "quant/formats.h"

namespace tandem {

namespace {

// A chunk is read and checked by one thread while it is in its L2.
constexpr int64_t kChunkBytes = int64_t{1} << 20;
// Tensors up to this size are read in mapped mode too.
constexpr uint64_t kSmallBytes = uint64_t{4} << 20;
// Part of the available memory that `automatic` is ready to fill.
constexpr double kComfortable = 0.85;

Status invalid(const std::string& rule, const std::string& given) {
  return Status(Code::model_invalid, "[native] " + rule + "; " + given + "; the checkpoint is damaged or was converted wrongly");
}

int64_t ceil_divide(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace

struct WeightStore::File {
  FileInput input;
  int descriptor = -1;
  uint64_t size = 0;
  const uint8_t* mapping = nullptr;
};

// Bytes [offset, offset + bytes) of a file, whole rows of one tensor.
struct WeightStore::Range {
  uint32_t file;
  uint64_t offset, bytes;
  const quant::FormatInfo* format;
  int64_t row_bytes;
  bool aligned;              // always read into the region
  bool widened = false;      // bf16 in the file, f32 in the region: `aligned`
  std::string name;          // of the first weight that uses it, for messages
  uint8_t* target = nullptr; // in the region; null: `data` points into the file
  const uint8_t* data = nullptr;
};

namespace {

// `count` bf16 at the front of `data` become f32 over all of it, from the last on.
void widen(uint8_t* data, uint64_t count) {
  for (uint64_t i = count; i-- > 0;) {
    const float value = quant::bf16_to_f32(quant::load_u16(data + 2 * i));
    std::memcpy(data + 4 * i, &value, sizeof value);
  }
}

}  // namespace

struct WeightStore::Binding {
  BoundWeight bound;
  std::unique_ptr<std::atomic<const uint8_t*>[]> outer;
  std::vector<const uint8_t*> scales;
};

WeightStore::WeightStore() = default;

WeightStore::~WeightStore() {
  for (File& file : files_) {
    if (file.mapping != nullptr) munmap(const_cast<uint8_t*>(file.mapping), file.size);
    if (file.descriptor >= 0) close(file.descriptor);
  }
}

Status WeightStore::load(const Program& program, std::vector<FileInput> files, LoadMode mode, int64_t other_bytes, ThreadPool& pool,
                         LoadProgress& progress) {
  for (FileInput& input : files) {
    File file;
    file.input = std::move(input);
    files_.push_back(std::move(file));
  }
  TANDEM_TRY(open_files());
  TANDEM_TRY(collect(program));
  TANDEM_TRY(choose_mode(mode, other_bytes));
  TANDEM_TRY(place());
  TANDEM_TRY(read(pool, progress));
  for (const Range& range : ranges_) {
    if (range.widened) widen(range.target, range.bytes / 2);
  }
  bind(program);
  for (File& file : files_) {
    if (file.descriptor >= 0) close(file.descriptor);
    file.descriptor = -1;
  }
  return {};
}

Status WeightStore::open_files() {
  for (File& file : files_) {
    if (file.input.in_memory) {
      file.size = file.input.bytes.size();
      continue;
    }
    const std::string& path = file.input.path;
    file.descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const auto failed = [&](const char* what) {
      const int error = errno;
      return Status(error == ENOENT ? Code::file_not_found : Code::file_io,
                    "[native] " + std::string(what) + "; " + path + ": " + std::strerror(error) + "; check the path and its permissions");
    };
    if (file.descriptor < 0) return failed("a model file can be opened");
    struct stat info;
    if (fstat(file.descriptor, &info) != 0) return failed("a model file can be examined");
    if (!S_ISREG(info.st_mode)) return Status(Code::file_io, "[native] a model file is a regular file; " + path + " is not; give the file itself");
    file.size = static_cast<uint64_t>(info.st_size);
  }
  return {};
}

// Finds the format of every weight, checks the sizes of its parts and gathers the distinct byte ranges.
Status WeightStore::collect(const Program& program) {
  const quant::FormatInfo* bf16 = quant::find_format("bf16");
  std::map<std::tuple<uint32_t, uint64_t, uint64_t>, size_t> known;
  const auto range_of = [&](const std::string& name, const Location& at, const quant::FormatInfo* format, int64_t row_bytes, bool aligned,
                            uint64_t expected, size_t& index) -> Status {
    if (at.bytes != expected)
      return invalid("a tensor has as many bytes as its shape needs", name + " has " + std::to_string(at.bytes) + ", its shape needs " + std::to_string(expected));
    const File& file = files_[at.file];
    if (at.offset > file.size || at.bytes > file.size - at.offset)
      return Status(Code::file_io, "[native] a model file holds all its tensors; " + (file.input.in_memory ? std::string("a file given as bytes") : file.input.path) +
                                       " ends at byte " + std::to_string(file.size) + ", " + name + " needs " + std::to_string(at.offset + at.bytes) +
                                       "; the file is incomplete, copy or download it again");
    const auto [entry, fresh] = known.try_emplace({at.file, at.offset, at.bytes}, ranges_.size());
    index = entry->second;
    if (fresh) ranges_.push_back({at.file, at.offset, at.bytes, format, row_bytes, aligned, false, name, nullptr, nullptr});
    else ranges_[index].aligned = ranges_[index].aligned || aligned;
    return {};
  };

  for (const Weight& weight : program.weights) {
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
    if (weight.of != rows && format->scale_rows > 1) return invalid("matrices whose rows share scales are stored whole", weight.name);
    if (weight.scales_bf16 && format->scale_bytes != 4) return invalid("scales are of their format's type, or bf16 for f32", weight.name);
    const int64_t row_bytes = quant::row_bytes(*format, columns);
    const int64_t each = experts / static_cast<int64_t>(weight.parts.size());  // matrices in a part
    const uint64_t part_bytes = static_cast<uint64_t>(each) * static_cast<uint64_t>(weight.of) * static_cast<uint64_t>(row_bytes);
    std::vector<size_t> parts(weight.parts.size()), scales(weight.scales.size());
    for (size_t i = 0; i < parts.size(); i++)
      TANDEM_TRY(range_of(weight.name, weight.parts[i], format, row_bytes, part_bytes <= kSmallBytes && experts == 1, part_bytes, parts[i]));
    for (size_t i = 0; i < scales.size(); i++) {
      const quant::FormatInfo* stored = weight.scales_bf16 ? bf16 : quant::scale_format(*format);
      const int64_t stride = ceil_divide(columns, format->scale_columns) * stored->block_bytes;
      const int64_t bytes = each * ceil_divide(weight.of, format->scale_rows) * stride;
      const bool shared = format->scale_rows > 1;  // few: read in either mode
      TANDEM_TRY(range_of(weight.name + " (scales)", weight.scales[i], stored, stride, shared, static_cast<uint64_t>(bytes), scales[i]));
      ranges_[scales[i]].widened = weight.scales_bf16;
    }
    part_of_.push_back(std::move(parts));
    scales_of_.push_back(std::move(scales));
  }
  for (const Range& range : ranges_) bytes_ += static_cast<int64_t>(range.bytes);
  return {};
}

Status WeightStore::choose_mode(LoadMode mode, int64_t other_bytes) {
  const Memory memory = read_memory();
  const double available = static_cast<double>(memory.available);
  const double whole = static_cast<double>(bytes_) + static_cast<double>(other_bytes);
  mode_ = mode;
  if (mode == LoadMode::automatic) mode_ = whole <= kComfortable * available ? LoadMode::pages : LoadMode::mapped;
  const double needed = mode_ == LoadMode::pages ? whole : static_cast<double>(other_bytes);
  if (available <= 0 || needed <= available) return {};
  return Status(Code::out_of_memory, "[native] a model fits into the available memory; " + format_bytes(needed) + " needed, " + format_bytes(available) +
                                         " available; use " + (mode_ == LoadMode::pages ? "load: 'mmap', " : "") + "fewer KV pages or a smaller model");
}

// Gives every range its place: in the region at a multiple of 64, or in the file.
Status WeightStore::place() {
  const auto in_region = [this](const Range& range) {
    return range.aligned || (mode_ == LoadMode::pages && !files_[range.file].input.in_memory);
  };
  const auto place_of = [](const Range& range) { return ((range.widened ? 2 : 1) * range.bytes + 63) & ~uint64_t{63}; };
  size_t size = 0;
  for (const Range& range : ranges_)
    if (in_region(range)) size += place_of(range);
  TANDEM_TRY(region_.allocate(size, size >= (size_t{2} << 20), "the weights"));
  size_t at = 0;
  for (Range& range : ranges_) {
    File& file = files_[range.file];
    if (in_region(range)) {
      range.data = range.target = region_.data() + at;
      at += place_of(range);
    } else if (file.input.in_memory) {
      range.data = file.input.bytes.data() + range.offset;
    } else {
      if (file.mapping == nullptr) {
        void* mapping = mmap(nullptr, file.size, PROT_READ, MAP_SHARED, file.descriptor, 0);
        if (mapping == MAP_FAILED)
          return Status(Code::file_io, "[native] a model file can be mapped; " + file.input.path + ": " + std::strerror(errno) + "; use load: 'pages'");
        file.mapping = static_cast<const uint8_t*>(mapping);
        madvise(mapping, file.size, MADV_HUGEPAGE);  // file systems that cannot refuse
      }
      range.data = file.mapping + range.offset;
    }
  }
  return {};
}

// Reads chunks of whole rows in parallel and checks each for non-finite numbers. Mapped ranges are not touched.
Status WeightStore::read(ThreadPool& pool, LoadProgress& progress) {
  struct Chunk {
    size_t range;
    uint64_t offset, bytes;
  };
  std::vector<Chunk> chunks;
  uint64_t mapped = 0;
  for (size_t i = 0; i < ranges_.size(); i++) {
    const Range& range = ranges_[i];
    if (range.target == nullptr && !files_[range.file].input.in_memory) {
      mapped += range.bytes;
      continue;
    }
    const uint64_t rows = static_cast<uint64_t>(std::max<int64_t>(kChunkBytes / std::max<int64_t>(range.row_bytes, 1), 1));
    const uint64_t step = rows * static_cast<uint64_t>(range.row_bytes);
    for (uint64_t at = 0; at < range.bytes; at += step) chunks.push_back({i, at, std::min(step, range.bytes - at)});
  }
  // In the order of the files, whatever the order of the Program.
  std::sort(chunks.begin(), chunks.end(), [this](const Chunk& a, const Chunk& b) {
    const Range &x = ranges_[a.range], &y = ranges_[b.range];
    return std::make_tuple(x.file, x.offset + a.offset) < std::make_tuple(y.file, y.offset + b.offset);
  });
  progress.total.store(static_cast<uint64_t>(bytes_));
  progress.loaded.store(mapped);

  std::mutex mutex;
  Status first;
  std::atomic<bool> failed{false};
  const auto fail = [&](Status status) {
    std::lock_guard lock(mutex);
    if (first.ok()) first = std::move(status);
    failed.store(true);
  };
  const auto read_chunk = [&](const Chunk& chunk) {
    Range& range = ranges_[chunk.range];
    const File& file = files_[range.file];
    if (range.target != nullptr && file.input.in_memory) {
      std::memcpy(range.target + chunk.offset, file.input.bytes.data() + range.offset + chunk.offset, chunk.bytes);
    } else if (range.target != nullptr) {
      uint64_t done = 0;
      while (done < chunk.bytes) {
        const ssize_t got = pread(file.descriptor, range.target + chunk.offset + done, chunk.bytes - done,
                                  static_cast<off_t>(range.offset + chunk.offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
          return fail(Status(Code::file_io, "[native] a model file can be read; " + file.input.path + " at byte " +
                                                std::to_string(range.offset + chunk.offset + done) + ": " +
                                                (got < 0 ? std::strerror(errno) : "the file ends") + "; check the disk, copy the file again"));
        }
        done += static_cast<uint64_t>(got);
      }
    }
    const int64_t rows = static_cast<int64_t>(chunk.bytes) / range.row_bytes;
    const int64_t bad = first_non_finite_row(*range.format, range.data + chunk.offset, rows, range.row_bytes);
    if (bad >= 0) {
      const int64_t row = static_cast<int64_t>(chunk.offset) / range.row_bytes + bad;
      return fail(invalid("weights are finite numbers", "row " + std::to_string(row) + " of " + range.name + " has a NaN or an infinity"));
    }
    progress.loaded.fetch_add(chunk.bytes);
    if (progress.on_advance) progress.on_advance();
  };
  pool.parallel_for(static_cast<int64_t>(chunks.size()), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t i = begin; i < end; i++) {
      if (failed.load(std::memory_order_relaxed) || progress.cancel.load(std::memory_order_relaxed)) return;
      try {
        read_chunk(chunks[static_cast<size_t>(i)]);
      } catch (const std::bad_alloc&) {  // only messages allocate
        failed.store(true);
      }
    }
  });
  if (progress.cancel.load()) return Status(Code::aborted, "[native] loading was cancelled");
  if (!first.ok()) return first;
  if (failed.load()) return Status(Code::out_of_memory, "[native] memory was refused while loading; close other programs");
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
    binding->outer = std::make_unique<std::atomic<const uint8_t*>[]>(static_cast<size_t>(b.experts));
    const std::vector<size_t>& parts = part_of_[id];
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
      binding->outer[static_cast<size_t>(e)].store(ranges_[parts[part]].data + (within * weight.of + weight.start) * row_bytes, std::memory_order_release);
      if (scales.empty()) continue;
      const int64_t first = within * ceil_divide(weight.of, b.format->scale_rows) + weight.start;
      binding->scales[static_cast<size_t>(e)] = ranges_[scales[part]].data + first * scale_row;
    }
    b.outer = binding->outer.get();
    b.scales = scales.empty() ? nullptr : binding->scales.data();
    bound_.push_back(&b);
    bindings_.push_back(std::move(binding));
  }
}

const uint8_t* BoundWeight::row_scales(int64_t e, int64_t n) const {
  return scales == nullptr ? nullptr : scales[e] + n / format->scale_rows * scale_stride;
}

}  // namespace tandem
