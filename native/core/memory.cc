#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <utility>

namespace tandem {

namespace {

constexpr size_t kHuge = size_t{2} << 20;

Status refused(size_t bytes, const std::string& what) {
  return Status(Code::out_of_memory, "[native] memory for " + what + " was refused; " + format_bytes(static_cast<double>(bytes)) +
                                         " asked; use a smaller model, fewer KV pages or fewer rows");
}

}  // namespace

Region& Region::operator=(Region&& other) noexcept {
  if (this == &other) return *this;
  release();
  mapping_ = std::exchange(other.mapping_, nullptr);
  mapped_ = std::exchange(other.mapped_, 0);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  reserved_ = std::exchange(other.reserved_, false);
  return *this;
}

Status Region::allocate(size_t bytes, bool huge, const char* what) {
  release();
  if (bytes == 0) return {};
  const size_t slack = huge ? kHuge : 0;
  if (bytes > SIZE_MAX - slack) return refused(bytes, what);
  void* mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return refused(bytes, what);
  mapping_ = mapping;
  mapped_ = bytes + slack;
  uintptr_t address = reinterpret_cast<uintptr_t>(mapping);
  if (huge) {
    address = (address + kHuge - 1) & ~(kHuge - 1);
    // Refused where the kernel has no huge pages: slower, still right.
    madvise(reinterpret_cast<void*>(address), bytes, MADV_HUGEPAGE);
  }
  data_ = reinterpret_cast<uint8_t*>(address);
  size_ = bytes;
  return {};
}

bool Region::allocate_reserved(size_t bytes) {
  release();
  if (bytes == 0 || bytes > SIZE_MAX - kHuge) return false;
  const size_t size = (bytes + kHuge - 1) / kHuge * kHuge;
  constexpr int kSize = 21 << MAP_HUGE_SHIFT;  // log2 of 2 MiB
  void* mapping = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | kSize, -1, 0);
  if (mapping == MAP_FAILED) return false;
  mapping_ = mapping;
  mapped_ = size;
  data_ = static_cast<uint8_t*>(mapping);
  size_ = bytes;
  reserved_ = true;
  return true;
}

Status Region::present(size_t offset, size_t bytes) const {
  if (!reserved_ || bytes == 0) return {};
  const size_t begin = offset / kHuge * kHuge, end = (offset + bytes + kHuge - 1) / kHuge * kHuge;
  while (madvise(data_ + begin, end - begin, MADV_POPULATE_WRITE) != 0) {
    if (errno == EAGAIN || errno == EINTR) continue;
    if (errno == EINVAL) return {};  // before Linux 5.14: at the first touch then
    return refused(bytes, "reserved huge pages");
  }
  return {};
}

void Region::release() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
  mapping_ = nullptr;
  mapped_ = size_ = 0;
  data_ = nullptr;
  reserved_ = false;
}

int64_t reserved_huge_bytes() {
  const auto number = [](const char* name) {
    int64_t value = 0;
    std::ifstream(std::string("/sys/kernel/mm/hugepages/hugepages-2048kB/") + name) >> value;
    return value;
  };
  return std::max<int64_t>(0, number("free_hugepages") - number("resv_hugepages")) * static_cast<int64_t>(kHuge);
}

size_t huge_bytes(const void* data, size_t size) {
  std::ifstream file("/proc/self/smaps");
  const uintptr_t low = reinterpret_cast<uintptr_t>(data), high = low + size;
  size_t total = 0;
  bool ours = false;
  for (std::string line; std::getline(file, line);) {
    unsigned long begin = 0, end = 0;
    char name[32];
    unsigned long kilobytes = 0;
    if (std::sscanf(line.c_str(), "%lx-%lx ", &begin, &end) == 2) ours = begin < high && end > low;
    else if (ours && std::sscanf(line.c_str(), "%31[^:]: %lu kB", name, &kilobytes) == 2)
      for (const char* kind : {"AnonHugePages", "FilePmdMapped", "Private_Hugetlb"})
        if (std::strcmp(name, kind) == 0) total += kilobytes * 1024;
  }
  return std::min(total, size);
}

std::string format_bytes(double bytes) {
  char text[32];
  if (bytes >= 1e9) std::snprintf(text, sizeof text, "%.1f GB", bytes / 1e9);
  else if (bytes >= 1e6) std::snprintf(text, sizeof text, "%.1f MB", bytes / 1e6);
  else std::snprintf(text, sizeof text, "%.0f bytes", bytes);
  return text;
}

}  // namespace tandem
