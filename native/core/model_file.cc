#include "core/model_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace tandem {

namespace {

constexpr uint64_t kPage = 4096;  // of mincore; larger where pages are, then one entry stands for several of ours

int64_t nanoseconds(const struct timespec& time) { return int64_t{time.tv_sec} * 1000000000 + time.tv_nsec; }

}  // namespace

ModelFile::~ModelFile() {
  end_reading();
  if (descriptor_ >= 0) close(descriptor_);
}

void ModelFile::end_reading() {
  if (window_ != nullptr) munmap(window_, size_);
  window_ = nullptr;
  if (direct_ >= 0) close(direct_);
  direct_ = -1;
  if (descriptor_ >= 0 && mapping_.data() == nullptr) {
    close(descriptor_);
    descriptor_ = -1;
  }
}

Status ModelFile::open(const std::string& path) {
  path_ = path;
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto refused = [&](const char* what) {
    const int error = errno;
    return Status(error == ENOENT ? Code::file_not_found : Code::file_io,
                  "[native] " + std::string(what) + "; " + path + ": " + std::strerror(error) + "; check the path and its permissions");
  };
  if (descriptor_ < 0) return refused("a model file can be opened");
  struct stat info;
  if (fstat(descriptor_, &info) != 0) return refused("a model file can be examined");
  if (!S_ISREG(info.st_mode)) return Status(Code::file_io, "[native] a model file is a regular file; " + path + " is not; give the file itself");
  size_ = static_cast<uint64_t>(info.st_size);
  modified_ = nanoseconds(info.st_mtim);
  // To others than the owner and those who may write, mincore calls every page resident.
  tells_cache_ = geteuid() == 0 || geteuid() == info.st_uid || access(path.c_str(), W_OK) == 0;
  if (size_ > 0 && tells_cache_) {
    void* window = mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor_, 0);
    if (window != MAP_FAILED) window_ = window;
  }
  direct_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);  // refused by some file systems here, by others at the read
  return {};
}

Status ModelFile::failed(const char* rule, uint64_t offset, const char* why) const {
  return Status(Code::file_io, "[native] " + std::string(rule) + "; " + path_ + " at byte " + std::to_string(offset) + ": " + why +
                                   "; check the disk, copy the file again");
}

Status ModelFile::read(uint64_t offset, uint64_t bytes, uint8_t* to) const {
  for (uint64_t done = 0; done < bytes;) {
    const ssize_t got = pread(descriptor_, to + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return failed("a model file can be read", offset + done, got < 0 ? std::strerror(errno) : "the file ends");
    done += static_cast<uint64_t>(got);
  }
  return {};
}

Status ModelFile::read_direct(uint64_t offset, uint64_t bytes, uint8_t* to, bool& supported) {
  supported = direct_ >= 0 && direct_works_.load(std::memory_order_relaxed);
  if (!supported) return {};
  const uint64_t wanted = std::min(bytes, size_ - offset);
  for (uint64_t done = 0; done < wanted;) {
    const ssize_t got = pread(direct_, to + done, bytes - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0 && (errno == EINVAL || errno == EOPNOTSUPP || errno == ENOMEM)) {
      direct_works_.store(false, std::memory_order_relaxed);
      supported = false;
      return {};
    }
    if (got <= 0) return failed("a model file can be read", offset + done, got < 0 ? std::strerror(errno) : "the file ends");
    done += static_cast<uint64_t>(got);
    if (done < wanted && done % kDirectUnit != 0) {  // a short read that the next one cannot begin at
      TANDEM_TRY(read(offset + done, wanted - done, to + done));
      break;
    }
  }
  return {};
}

bool ModelFile::cached(uint64_t offset, uint64_t bytes) const {
  if (window_ == nullptr) return !tells_cache_;
  unsigned char resident[2048];
  uint64_t present = 0, asked = 0;
  const uint64_t end = std::min(offset + bytes, size_);
  for (uint64_t at = offset / kPage * kPage; at < end; at += sizeof resident * kPage) {
    const uint64_t length = std::min(end - at, sizeof resident * kPage);
    if (mincore(static_cast<uint8_t*>(window_) + at, length, resident) != 0) return true;
    const uint64_t pages = (length + static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) - 1) / static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
    for (uint64_t i = 0; i < pages; i++) present += resident[i] & 1;
    asked += pages;
  }
  return 2 * present >= asked;
}

void ModelFile::drop(uint64_t offset, uint64_t bytes) const {
  posix_fadvise(descriptor_, static_cast<off_t>(offset), static_cast<off_t>(bytes), POSIX_FADV_DONTNEED);
}

Status ModelFile::map() {
  if (mapping_.data() != nullptr) return {};
  if (mapping_.map(descriptor_, size_)) return {};
  return Status(Code::file_io, "[native] a model file can be mapped; " + path_ + ": " + std::strerror(errno) + "; use load: 'pages'");
}

Status ModelFile::unchanged() const {
  if (mapping_.data() == nullptr) return {};
  struct stat info;
  const bool seen = fstat(descriptor_, &info) == 0;
  const auto changed = [this](const std::string& how) {
    return Status(Code::file_io, "[native] a mapped model file stays as it is while it is used; " + path_ + " " + how + "; load the model again, or with load: 'pages'");
  };
  if (seen && static_cast<uint64_t>(info.st_size) != size_)
    return changed("had " + std::to_string(size_) + " bytes when it was loaded and has " + std::to_string(info.st_size) + " now");
  if (seen && nanoseconds(info.st_mtim) != modified_) return changed("was written to since it was loaded");
  if (!seen || mapping_.lost()) return changed("could not be read (check the disk)");
  return {};
}

}  // namespace tandem
