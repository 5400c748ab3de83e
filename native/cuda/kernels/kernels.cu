// The module of the card: every kernel of the list under its name. scripts/build-cuda.mjs compiles it.
#include <string_view>

#include "cuda/kernels/list.h"

namespace tandem::cuda {

// Threads of a block at most, and blocks that a multiprocessor is to hold at least: by both a compiler shares out registers. Small tiles
// (shapes.h) are three blocks of 128; two of products of few rows hide the latency of memory behind each other.
static constexpr bool has_small_tiles(std::string_view name) { return name.ends_with("_tiles_small"); }
static constexpr bool has_few_rows(std::string_view name) { return name.ends_with("_m1") || name.ends_with("_m8") || (name.starts_with("experts_") && name.ends_with("_rows")); }
static constexpr int blocks_at_once(std::string_view name) { return has_small_tiles(name) ? 3 : has_few_rows(name) ? 2 : 1; }

#define TANDEM_CUDA_GLOBAL(name, Arguments, ...)                                                                                    \
  extern "C" __global__ void __launch_bounds__(has_small_tiles(#name) ? 128 : 256, blocks_at_once(#name))                           \
      tandem_##name(const __grid_constant__ Arguments arguments) {                                                                  \
    __VA_ARGS__(arguments);                                                                                                         \
  }

TANDEM_CUDA_KERNELS(TANDEM_CUDA_GLOBAL)

}  // namespace tandem::cuda
