// Memory of one GPU that is asked for once, and given out in pieces before it is there: what is bound first says what it needs.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cuda/device.h"

namespace tandem::cuda {

class Arena {
 public:
  // Where the piece begins; a multiple of 256.
  size_t reserve(size_t bytes) {
    const size_t at = size_;
    size_ += (bytes + 255) & ~size_t{255};
    return at;
  }
  // OUT_OF_MEMORY with numbers. Nothing is reserved after this.
  Status allocate(Device& device, const char* what) { return size_ == 0 ? Status() : device.allocate(size_, what, memory_); }
  Address at(size_t offset) const { return memory_.get() + offset; }
  size_t size() const { return size_; }

 private:
  Memory memory_;
  size_t size_ = 0;
};

}  // namespace tandem::cuda
