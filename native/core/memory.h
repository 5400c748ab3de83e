// Anonymous memory straight from the kernel: zeroed, page-aligned, touched lazily, given back whole.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/status.h"

namespace tandem {

class Region {
 public:
  Region() = default;
  Region(Region&& other) noexcept { *this = static_cast<Region&&>(other); }
  Region& operator=(Region&& other) noexcept;
  ~Region() { release(); }

  // `what` names the purpose in the error. With `huge`, aligned to 2 MiB and advised to use huge pages: a random read of a
  // weight then costs no page walk. Zero bytes are allowed (data() is null).
  Status allocate(size_t bytes, bool huge, const char* what);
  // The same out of the pages that the administrator reserved for such use; false where there are not enough.
  bool allocate_reserved(size_t bytes);
  // Makes bytes [offset, offset + bytes) of a region from `allocate_reserved` present, so that a refusal (of a control group) is
  // an error here and no signal at the first touch. Elsewhere nothing.
  Status present(size_t offset, size_t bytes) const;
  void release();
  bool reserved() const { return reserved_; }
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool reserved_ = false;
};

// Bytes of 2 MiB pages that are reserved (vm.nr_hugepages) and that nobody uses or has claimed.
int64_t reserved_huge_bytes();

// How much of [data, data + size) the system holds in huge pages, anonymous or of a file. Reads /proc: for reports only.
size_t huge_bytes(const void* data, size_t size);

// "12.3 GB", for messages.
std::string format_bytes(double bytes);

}  // namespace tandem
