// The kernels by their names on the card, over the emulation: what tests, and a stand-in for the driver, launch.
#pragma once

#include <string>
#include <string_view>

#include "cuda/emulation/emulation.h"
#include "cuda/kernels/arguments.h"

namespace tandem::cuda::emulation {

struct Entry {
  const char* name;  // tandem_linear_q4_k_m1
  size_t argument_bytes;
  // `shared`: bytes of dynamic shared memory; `arguments`: its argument struct. Empty, or what the kernel did wrong.
  std::string (*run)(Dim3 grid, unsigned threads, unsigned shared, const void* arguments, Order order);
};

// Null where no kernel has that name.
const Entry* find_entry(std::string_view name);

}  // namespace tandem::cuda::emulation
