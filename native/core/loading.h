// What loading is told and what it tells: modes, files, progress, the report.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

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
  std::atomic<bool> cancel{false};   // set it to stop: the load ends with Code::aborted
  std::function<void()> on_advance;  // called from any thread, after `loaded` grew; must not throw
};

// What loading did, in bytes and seconds.
struct LoadReport {
  int64_t in_pages = 0;              // read into memory of our own
  int64_t mapped = 0;                // used where the mapped files have them
  int64_t huge = 0;                  // of both: what lies in huge pages
  int64_t from_cache = 0;            // what was read: out of the page cache,
  int64_t from_disk = 0;             // and from the disk
  bool experts_mapped = false;       // the routed experts are mapped and were not read: memory is short
  int64_t needed = 0, available = 0; // what all of it would take, and what there was
  double seconds = 0;

  bool dense_mapped = false;         // all but small tensors is mapped
  // "pages", "mmap" or "pages, experts mmap".
  std::string ways() const;
  // For people: "9.7 GB into huge pages from the page cache, 2.1 GB/s".
  std::string sentence() const;
};

}  // namespace tandem
