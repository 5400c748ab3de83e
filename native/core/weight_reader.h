// Brings tensors into memory: many requests in flight, each tensor checked for NaN while it is in a cache.
//
// `keep` bytes, the first of the files, go through the page cache, which has them for the next start. Of the rest, what the
// page cache holds is copied and dropped behind, and what it does not hold comes past it by direct reads: loading then takes
// the memory of the weights and no more.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/loading.h"
#include "core/memory.h"
#include "core/model_file.h"
#include "core/status.h"
#include "quant/formats.h"

namespace tandem {

// A file with what the user gave for it.
struct LoadFile {
  FileInput input;
  ModelFile file;  // not opened when the input is bytes
};

// Whole rows of one tensor that are contiguous in their file and in memory.
struct WeightPiece {
  uint32_t file = 0;
  uint64_t offset = 0, bytes = 0;         // in the file
  uint8_t* target = nullptr;              // where to put them; null: they stay where `data` points, in a mapping or in the user's bytes
  const uint8_t* data = nullptr;          // where they are found from then on
  const quant::FormatInfo* format = nullptr;
  int64_t row_bytes = 0;
  int64_t first_row = 0;                  // of the tensor, for messages
  const std::string* name = nullptr;      // for messages
};

// task() on the calling thread and `wanted` - 1 others, fewer where the system refuses; returns when all are done. The others
// may run on all cores that the process has: the caller is bound to one, and new threads inherit that.
void run_on_all_cores(int wanted, const std::function<void()>& task);

class WeightReader {
 public:
  // `region`: holds all targets.
  WeightReader(std::vector<std::unique_ptr<LoadFile>>& files, const Region& region, uint64_t keep, LoadProgress& progress)
      : files_(files), region_(region), keep_(keep), progress_(progress) {}

  // Returns when all is there. FILE_IO, MODEL_INVALID (not a finite number), OUT_OF_MEMORY, ABORTED.
  Status read(std::vector<WeightPiece> pieces, int threads);

  int64_t from_cache() const { return from_cache_.load(); }
  int64_t from_disk() const { return from_disk_.load(); }

 private:
  // Pieces [first, last) of one file, one way of reading; bytes [begin, end) of the file with the gaps between.
  struct Block {
    size_t first, last;
    uint64_t begin, end;
    bool keep;            // it goes through the page cache and stays there
    bool cached = false;  // the page cache has it, before anything was read: reading ahead would blur that
  };
  struct Buffer;
  std::vector<Block> cut(std::vector<WeightPiece>& pieces) const;
  void look(std::vector<Block>& blocks, const std::vector<WeightPiece>& pieces);
  void work(const std::vector<WeightPiece>& pieces, const std::vector<Block>& blocks);
  Status read_block(const std::vector<WeightPiece>& pieces, const Block& block, Buffer& buffer);
  Status past_cache(const std::vector<WeightPiece>& pieces, const Block& block, Buffer& buffer, bool& done);
  Status page_in(const WeightPiece* pieces, const Block& block);
  Status check(const WeightPiece& piece) const;
  void fail(Status status);

  std::vector<std::unique_ptr<LoadFile>>& files_;
  const Region& region_;
  const uint64_t keep_;
  LoadProgress& progress_;
  std::atomic<size_t> next_{0};
  std::atomic<bool> failed_{false};
  std::atomic<int64_t> from_cache_{0}, from_disk_{0};
  std::mutex mutex_;
  Status first_;  // failure
};

}  // namespace tandem
