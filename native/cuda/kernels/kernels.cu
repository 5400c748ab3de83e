// The module of the card: every kernel of the list under its name. scripts/build-cuda.mjs compiles it.
#include <string_view>

#include "cuda/kernels/list.h"

namespace tandem::cuda {

// Threads of a block at most, and blocks that a multiprocessor is to hold at least: by both a compiler shares out registers. Small tiles
// (shapes.h) are three blocks of 128.
static constexpr bool has_small_tiles(std::string_view name) { return name.size() > 12 && name.substr(name.size() - 12) == "_tiles_small"; }

#define TANDEM_CUDA_GLOBAL(name, Arguments, ...)                                                                                    \
  extern "C" __global__ void __launch_bounds__(has_small_tiles(#name) ? 128 : 256, has_small_tiles(#name) ? 3 : 1)                  \
      tandem_##name(const __grid_constant__ Arguments arguments) {                                                                  \
    __VA_ARGS__(arguments);                                                                                                         \
  }

TANDEM_CUDA_KERNELS(TANDEM_CUDA_GLOBAL)

}  // namespace tandem::cuda
