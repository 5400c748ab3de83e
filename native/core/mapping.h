// A file mapped for reading whose loss is an error, not a signal.
//
// Touching a mapped page that the file no longer has (it was cut short), or that the disk cannot give, raises SIGBUS. A handler
// recognises addresses of these mappings, puts zeros in the place of the whole mapping and marks it lost; the thread goes on and
// whoever runs the pass asks `lost`. Faults elsewhere go to the handler that was there before.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

class Mapping {
 public:
  Mapping() = default;
  Mapping(Mapping&& other) noexcept { *this = static_cast<Mapping&&>(other); }
  Mapping& operator=(Mapping&& other) noexcept;
  ~Mapping() { release(); }

  // Maps bytes [0, size) of the file, size > 0. False with errno when the system refuses. Huge pages where the file system has them.
  bool map(int descriptor, size_t size);
  void release();
  const uint8_t* data() const { return data_; }
  size_t size() const { return size_; }
  // True once a page could not be read; the mapping reads as zeros from then on. Any thread.
  bool lost() const;

  // Pages of bytes [begin, end) are read from the file now, not at their first use. False when that failed or was refused.
  bool populate(size_t begin, size_t end) const;

 private:
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  size_t slot_ = 0;  // in the table of the signal handler
};

}  // namespace tandem
