// The module of the card: every kernel of the list under its name. scripts/build-cuda.mjs compiles it.
#include "cuda/kernels/list.h"

#define TANDEM_CUDA_GLOBAL(name, Arguments, ...)                                                                            \
  extern "C" __global__ void __launch_bounds__(256) tandem_##name(const __grid_constant__ ::tandem::cuda::Arguments arguments) { \
    ::tandem::cuda::__VA_ARGS__(arguments);                                                                                 \
  }

namespace tandem::cuda {
TANDEM_CUDA_KERNELS(TANDEM_CUDA_GLOBAL)
}
