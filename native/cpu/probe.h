// What this machine can do at most, measured: the ceilings that benchmarks are judged by. Never called by a pass.
#pragma once

#include <cstddef>

#include "core/status.h"

namespace tandem {

struct Bandwidth {
  int threads = 0;              // that read
  double bytes_per_second = 0;  // of the fastest round: neighbours only slow it down
};

// Reads `bytes` of huge pages front to back with a team of `threads` (0 = one per usable core), several times. `bytes`
// should be several times the last-level cache. Takes as long as it takes, on the calling thread.
Status measure_read_bandwidth(int threads, size_t bytes, Bandwidth& out);

}  // namespace tandem
