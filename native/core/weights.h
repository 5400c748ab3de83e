// Weights in memory: reads or maps what the Program uses, checks it, and binds every weight to its bytes.
//
// `pages`: byte ranges are read in parallel into one anonymous region with huge pages; each tensor starts at a multiple of 64.
// `mapped`: files are mapped read-only and paged in when touched; tensors lie as the file has them, aligned to nothing.
// Small tensors (norms, biases, routers) and scale tensors are read in either mode, so they are always aligned to 64.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/kernel.h"
#include "core/memory.h"
#include "core/program.h"
#include "core/status.h"

namespace tandem {

enum class LoadMode { automatic, mapped, pages };

// A file that locations refer to: a path, or its bytes.
struct FileInput {
  std::string path;
  std::vector<uint8_t> bytes;
  bool in_memory = false;
};

// Shared between the loader and whoever watches it.
struct LoadProgress {
  std::atomic<uint64_t> loaded{0};
  std::atomic<uint64_t> total{0};
  std::atomic<bool> cancel{false};       // set it to stop: the load ends with Code::aborted
  std::function<void()> on_advance;      // called from any thread of the pool, after `loaded` grew; must not throw
};

class WeightStore {
 public:
  WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;
  ~WeightStore();

  // `other_bytes`: what the model takes beside its weights, counted when choosing the mode and refusing what cannot fit.
  Status load(const Program& program, std::vector<FileInput> files, LoadMode mode, int64_t other_bytes, ThreadPool& pool,
              LoadProgress& progress);

  const BoundWeight& weight(size_t id) const { return *bound_[id]; }
  LoadMode mode() const { return mode_; }
  int64_t bytes() const { return bytes_; }

 private:
  struct Range;
  struct File;
  struct Binding;
  Status open_files();
  Status collect(const Program& program);
  Status choose_mode(LoadMode mode, int64_t other_bytes);
  Status place();
  Status read(ThreadPool& pool, LoadProgress& progress);
  void bind(const Program& program);

  std::vector<File> files_;
  std::vector<Range> ranges_;                  // sorted by file and offset, no two equal
  std::vector<std::vector<size_t>> part_of_;   // per weight: index of its ranges
  std::vector<std::vector<size_t>> scales_of_;
  std::vector<std::unique_ptr<Binding>> bindings_;
  std::vector<const BoundWeight*> bound_;
  Region region_;
  LoadMode mode_ = LoadMode::pages;
  int64_t bytes_ = 0;
};

}  // namespace tandem
