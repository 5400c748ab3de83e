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
  void release();
  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;
  size_t mapped_ = 0;
  uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

// "12.3 GB", for messages.
std::string format_bytes(double bytes);

}  // namespace tandem
