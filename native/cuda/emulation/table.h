// The kernels by their names on the card, over the emulation: what a stand-in for the driver launches.
#pragma once

#include <string>
#include <string_view>

#include "cuda/emulation/emulation.h"
#include "cuda/kernels/list.h"
#include "cuda/kernels/shapes.h"

namespace tandem::cuda::emulation {

struct Entry {
  const char* name;  // tandem_linear_q4_k_m1
  size_t argument_bytes;
  // `arguments`: its argument struct. Empty, or what the kernel did wrong.
  std::string (*run)(Dim3 grid, unsigned threads, const void* arguments, Order order);
};

template <typename Arguments, void (*kernel)(const Arguments&)>
static std::string run_entry(Dim3 grid, unsigned threads, const void* arguments, Order order) {
  const Arguments copy = *static_cast<const Arguments*>(arguments);
  return launch(grid, threads, [&] { kernel(copy); }, order);
}

#define TANDEM_CUDA_ENTRY(name, Arguments, ...) {"tandem_" #name, sizeof(Arguments), run_entry<Arguments, __VA_ARGS__>},
static constexpr Entry kEntries[] = {TANDEM_CUDA_KERNELS(TANDEM_CUDA_ENTRY)};
#undef TANDEM_CUDA_ENTRY

static inline const Entry* find_entry(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

}  // namespace tandem::cuda::emulation
