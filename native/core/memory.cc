#include "core/memory.h"

#include <sys/mman.h>

#include <cstdio>
#include <utility>

namespace tandem {

Region& Region::operator=(Region&& other) noexcept {
  if (this == &other) return *this;
  release();
  mapping_ = std::exchange(other.mapping_, nullptr);
  mapped_ = std::exchange(other.mapped_, 0);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  return *this;
}

Status Region::allocate(size_t bytes, bool huge, const char* what) {
  release();
  if (bytes == 0) return {};
  constexpr size_t kHuge = size_t{2} << 20;
  const size_t slack = huge ? kHuge : 0;
  const auto refused = [&] {
    return Status(Code::out_of_memory, "[native] memory for " + std::string(what) + " was refused; " + format_bytes(static_cast<double>(bytes)) +
                                           " asked; use a smaller model, fewer KV pages or fewer rows");
  };
  if (bytes > SIZE_MAX - slack) return refused();
  void* mapping = mmap(nullptr, bytes + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) return refused();
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

void Region::release() {
  if (mapping_ != nullptr) munmap(mapping_, mapped_);
  mapping_ = nullptr;
  mapped_ = size_ = 0;
  data_ = nullptr;
}

std::string format_bytes(double bytes) {
  char text[32];
  if (bytes >= 1e9) std::snprintf(text, sizeof text, "%.1f GB", bytes / 1e9);
  else if (bytes >= 1e6) std::snprintf(text, sizeof text, "%.1f MB", bytes / 1e6);
  else std::snprintf(text, sizeof text, "%.0f bytes", bytes);
  return text;
}

}  // namespace tandem
