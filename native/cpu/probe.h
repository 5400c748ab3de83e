// What this machine can do at most, measured: the ceilings that benchmarks are judged by. Never called by a pass.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "core/status.h"

namespace tandem {

struct Bandwidth {
  int threads = 0;              // that read
  double bytes_per_second = 0;  // of the fastest round: neighbours only slow it down
  struct Node {
    int id = 0;                 // of the system
    int threads = 0;
    double bytes_per_second = 0;
  };
  std::vector<Node> nodes;      // each alone, its threads reading its memory; empty where there is one
};

// Reads `bytes` of huge pages front to back with a team of `threads` (0 = as many as a model takes), several times, each
// thread from its own node. `bytes` should be several times the last-level cache. Takes as long as it takes, on the calling
// thread.
Status measure_read_bandwidth(int threads, size_t bytes, Bandwidth& out);

struct Peak {
  std::string name;  // of cpu/kernels/peak.inl.h: avx2_int8, avx2_f32, avx512_int8, avx512_f32, avx512_bf16, amx_int8, amx_bf16
  int threads = 0;
  double operations_per_second = 0;  // a product and a sum are two; of the fastest round
};

// The arithmetic of every instruction set that runs here, operands in registers, on `threads` threads at once. About 50 ms each.
Status measure_peaks(int threads, std::vector<Peak>& out);

}  // namespace tandem
