#include "core/weight_reader.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <new>
#include <system_error>
#include <thread>
#include <tuple>

#include "core/finite.h"

namespace tandem {

namespace {

// One request to the disk: large enough for its full speed, small enough for a buffer of every thread.
constexpr uint64_t kBlockBytes = uint64_t{8} << 20;
// Bytes between two tensors that are read for nothing rather than asked around.
constexpr uint64_t kGapBytes = uint64_t{64} << 10;
// Requests in flight: a disk wants several, whatever the number of cores.
constexpr int kLeastReaders = 8, kMostReaders = 32;

// The model's thread is bound to one core, and new threads inherit that; reading may use all that the process has.
void use_all_cores() {
  cpu_set_t set;
  if (sched_getaffinity(getpid(), sizeof set, &set) == 0) sched_setaffinity(0, sizeof set, &set);
}

}  // namespace

void run_on_all_cores(int wanted, const std::function<void()>& task) {
  std::vector<std::thread> helpers;
  helpers.reserve(static_cast<size_t>(wanted));  // below, only the system may refuse
  for (int i = 1; i < wanted; i++) {
    try {
      helpers.emplace_back([&task] {
        use_all_cores();
        task();
      });
    } catch (const std::system_error&) {
      break;  // fewer, then
    }
  }
  task();
  for (std::thread& helper : helpers) helper.join();
}

// Aligned memory of one thread for direct reads; made at the first one.
struct WeightReader::Buffer {
  Region region;
  uint8_t* get() {
    if (region.data() == nullptr && !region.allocate(kBlockBytes + 2 * ModelFile::kDirectUnit, true, "reading").ok()) return nullptr;
    return region.data();
  }
};

// In the order of the files, whatever the order of the Program.
//
//   file    [.... tensor a ....][..][ tensor b ][c]      (gap)      [ tensor d .......
//   blocks  [ 8 MiB ][ 8 MiB ][ rest of a, b, c    ]                [ 8 MiB ][ ...
std::vector<WeightReader::Block> WeightReader::cut(std::vector<WeightPiece>& pieces) const {
  std::vector<WeightPiece> parts;
  for (const WeightPiece& piece : pieces) {
    const uint64_t row = static_cast<uint64_t>(piece.row_bytes);
    const uint64_t step = std::max<uint64_t>(kBlockBytes / row, 1) * row;
    for (uint64_t at = 0; at < piece.bytes; at += step) {
      WeightPiece part = piece;
      part.offset += at;
      part.bytes = std::min(step, piece.bytes - at);
      part.data += at;
      if (part.target != nullptr) part.target += at;
      part.first_row += static_cast<int64_t>(at / row);
      parts.push_back(part);
    }
  }
  std::sort(parts.begin(), parts.end(), [](const WeightPiece& a, const WeightPiece& b) {
    return std::make_tuple(a.file, a.offset, a.bytes) < std::make_tuple(b.file, b.offset, b.bytes);
  });
  pieces.swap(parts);
  std::vector<Block> blocks;
  for (size_t i = 0; i < pieces.size(); i++) {
    const WeightPiece& piece = pieces[i];
    const uint64_t end = piece.offset + piece.bytes;
    if (!blocks.empty()) {
      Block& last = blocks.back();
      const WeightPiece& before = pieces[last.first];
      if (before.file == piece.file && (before.target == nullptr) == (piece.target == nullptr) && piece.offset <= last.end + kGapBytes &&
          std::max(end, last.end) - last.begin <= kBlockBytes) {
        last.last = i + 1;
        last.end = std::max(end, last.end);
        continue;
      }
    }
    blocks.push_back({i, i + 1, piece.offset, end, false});
  }
  uint64_t before = 0;
  for (Block& block : blocks) {
    block.keep = before < keep_;
    before += block.end - block.begin;
  }
  return blocks;
}

Status WeightReader::read(std::vector<WeightPiece> pieces, int threads) {
  std::vector<Block> blocks = cut(pieces);
  const int wanted = std::min<int>(std::clamp(4 * threads, kLeastReaders, kMostReaders), static_cast<int>(std::min<size_t>(blocks.size(), kMostReaders)));
  run_on_all_cores(wanted, [&] { look(blocks, pieces); });
  next_.store(0);
  run_on_all_cores(wanted, [&] { work(pieces, blocks); });
  if (progress_.cancel.load()) return Status(Code::aborted, "[native] loading was cancelled");
  if (!first_.ok()) return first_;
  if (failed_.load()) return Status(Code::out_of_memory, "[native] memory was refused while loading; close other programs");
  return {};
}

void WeightReader::look(std::vector<Block>& blocks, const std::vector<WeightPiece>& pieces) {
  for (size_t i; (i = next_.fetch_add(1)) < blocks.size();) {
    const LoadFile& from = *files_[pieces[blocks[i].first].file];
    if (!from.input.in_memory) blocks[i].cached = from.file.cached(blocks[i].begin, blocks[i].end - blocks[i].begin);
  }
}

void WeightReader::work(const std::vector<WeightPiece>& pieces, const std::vector<Block>& blocks) {
  Buffer buffer;
  for (size_t i; (i = next_.fetch_add(1)) < blocks.size();) {
    if (failed_.load(std::memory_order_relaxed) || progress_.cancel.load(std::memory_order_relaxed)) return;
    try {
      Status status = read_block(pieces, blocks[i], buffer);
      if (!status.ok()) fail(std::move(status));
    } catch (const std::bad_alloc&) {  // only messages allocate
      failed_.store(true);
    }
  }
}

void WeightReader::fail(Status status) {
  std::lock_guard lock(mutex_);
  if (first_.ok()) first_ = std::move(status);
  failed_.store(true);
}

Status WeightReader::read_block(const std::vector<WeightPiece>& pieces, const Block& block, Buffer& buffer) {
  const WeightPiece* const all = pieces.data();
  LoadFile& from = *files_[all[block.first].file];
  const bool given = from.input.in_memory;
  uint64_t bytes = 0;
  for (size_t i = block.first; i < block.last; i++) {
    bytes += all[i].bytes;
    if (all[i].target != nullptr) TANDEM_TRY(region_.present(static_cast<size_t>(all[i].target - region_.data()), all[i].bytes));
  }
  bool done = false;
  if (all[block.first].target == nullptr) {
    if (!given) TANDEM_TRY(page_in(all, block));
  } else if (given) {
    for (size_t i = block.first; i < block.last; i++) std::memcpy(all[i].target, from.input.bytes.data() + all[i].offset, all[i].bytes);
  } else {
    if (!block.cached && !block.keep) TANDEM_TRY(past_cache(pieces, block, buffer, done));
    for (size_t i = block.first; !done && i < block.last; i++) TANDEM_TRY(from.file.read(all[i].offset, all[i].bytes, all[i].target));
    if (!block.keep && !done) from.file.drop(block.begin, block.end - block.begin);
    (block.cached ? from_cache_ : from_disk_).fetch_add(static_cast<int64_t>(bytes));
  }
  for (size_t i = block.first; i < block.last; i++) TANDEM_TRY(check(all[i]));
  progress_.loaded.fetch_add(bytes);
  if (progress_.on_advance) progress_.on_advance();
  return {};
}

// Into the thread's buffer, and from there to the targets: tensors lie at any byte of the file, direct reads do not.
Status WeightReader::past_cache(const std::vector<WeightPiece>& pieces, const Block& block, Buffer& buffer, bool& done) {
  constexpr uint64_t unit = ModelFile::kDirectUnit;
  const uint64_t begin = block.begin / unit * unit, end = (block.end + unit - 1) / unit * unit;
  if (end - begin > kBlockBytes + 2 * unit) return {};  // a single row of that size
  uint8_t* const memory = buffer.get();
  if (memory == nullptr) return {};
  TANDEM_TRY(files_[pieces[block.first].file]->file.read_direct(begin, end - begin, memory, done));
  for (size_t i = block.first; done && i < block.last; i++) std::memcpy(pieces[i].target, memory + (pieces[i].offset - begin), pieces[i].bytes);
  return {};
}

// A mapped block comes into the page cache, and into the page tables.
Status WeightReader::page_in(const WeightPiece* pieces, const Block& block) {
  const ModelFile& file = files_[pieces[block.first].file]->file;
  file.mapping().populate(block.begin, block.end);  // where it fails, the check below touches the pages and finds out
  uint64_t bytes = 0;
  for (size_t i = block.first; i < block.last; i++) bytes += pieces[i].bytes;
  (block.cached ? from_cache_ : from_disk_).fetch_add(static_cast<int64_t>(bytes));
  return {};
}

Status WeightReader::check(const WeightPiece& piece) const {
  const int64_t rows = static_cast<int64_t>(piece.bytes) / piece.row_bytes;
  const int64_t bad = first_non_finite_row(*piece.format, piece.data, rows, piece.row_bytes);
  const LoadFile& from = *files_[piece.file];
  if (!from.input.in_memory) TANDEM_TRY(from.file.mapping().lost() ? from.file.unchanged() : Status());
  if (bad < 0) return {};
  return Status(Code::model_invalid, "[native] weights are finite numbers; row " + std::to_string(piece.first_row + bad) + " of " + *piece.name +
                                         " has a NaN or an infinity; the checkpoint is damaged or was converted wrongly");
}

}  // namespace tandem
