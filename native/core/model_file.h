// A file of a model: read through the page cache or past it, asked what the cache holds, mapped.
//
// `read`, `read_direct`, `cached` and `drop` may be called from several threads at once.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "core/mapping.h"
#include "core/status.h"

namespace tandem {

class ModelFile {
 public:
  // Offsets, sizes and memory of direct reads are multiples of it: a page, no device asks for more.
  static constexpr uint64_t kDirectUnit = 4096;

  ModelFile() = default;
  ModelFile(const ModelFile&) = delete;
  ModelFile& operator=(const ModelFile&) = delete;
  ~ModelFile();

  Status open(const std::string& path);
  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // Bytes [offset, offset + bytes), through the page cache. FILE_IO with the file and the byte.
  Status read(uint64_t offset, uint64_t bytes, uint8_t* to) const;

  // The same past the page cache, in units of kDirectUnit (the end of the file may cut the last one short). `supported`
  // becomes false, and nothing is read, where the file system refuses such reads.
  Status read_direct(uint64_t offset, uint64_t bytes, uint8_t* to, bool& supported);

  // True when most of the range lies in the page cache, or when the system does not tell us.
  bool cached(uint64_t offset, uint64_t bytes) const;
  // Lets the page cache forget the range, as far as nobody maps it.
  void drop(uint64_t offset, uint64_t bytes) const;

  // Kept until the file is destroyed. FILE_IO.
  Status map();
  const Mapping& mapping() const { return mapping_; }

  // FILE_IO where a mapped file was changed, cut short or could not be read since it was opened.
  Status unchanged() const;

  // No reads after this; a mapped file stays open, to be looked at.
  void end_reading();

 private:
  Status failed(const char* rule, uint64_t offset, const char* why) const;

  std::string path_;
  uint64_t size_ = 0;
  int64_t modified_ = 0;  // nanoseconds
  int descriptor_ = -1;
  int direct_ = -1;
  std::atomic<bool> direct_works_{true};
  bool tells_cache_ = false;
  void* window_ = nullptr;  // a mapping that is never touched: mincore wants one
  Mapping mapping_;
};

}  // namespace tandem
