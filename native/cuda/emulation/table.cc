#include "cuda/emulation/table.h"

#include "cuda/kernels/list.h"

namespace tandem::cuda::emulation {

template <typename Arguments, void (*kernel)(const Arguments&)>
static std::string run_entry(Dim3 grid, unsigned threads, unsigned shared, const void* arguments, Order order) {
  const Arguments copy = *static_cast<const Arguments*>(arguments);
  return launch(grid, threads, [&] { kernel(copy); }, order, shared);
}

#define TANDEM_CUDA_ENTRY(name, Arguments, ...) {"tandem_" #name, sizeof(Arguments), run_entry<Arguments, __VA_ARGS__>},
static constexpr Entry kEntries[] = {TANDEM_CUDA_KERNELS(TANDEM_CUDA_ENTRY)};

const Entry* find_entry(std::string_view name) {
  for (const Entry& entry : kEntries) {
    if (name == entry.name) return &entry;
  }
  return nullptr;
}

}  // namespace tandem::cuda::emulation
