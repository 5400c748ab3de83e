// How fast bytes move to a card and on it, measured: what decides from when on it pays to send experts there. A fifth of a second a card.
#pragma once

#include "cuda/gpu_info.h"

namespace tandem::cuda {

// Bytes a second.
struct LinkRates {
  double copy = 0;      // on the card, read and written
  double pinned = 0;    // to it, from pinned memory
  double pageable = 0;  // from memory that is not
};

// Refuses what `describe_gpu` refuses. OUT_OF_MEMORY with numbers; NATIVE_FAILED where the card does not come to an end.
Status measure_links(int ordinal, const KernelFile& kernels, LinkRates& out);

}  // namespace tandem::cuda
