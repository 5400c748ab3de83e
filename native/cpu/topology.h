// The machine as this process may use it: processors, NUMA nodes, limits of its control group. Read from /proc and /sys.
#pragma once

#include <cstdint>
#include <vector>

namespace tandem {

struct Topology {
  int logical = 1;            // processors online
  int physical = 1;           // cores online
  int nodes = 1;              // NUMA nodes with processors
  std::vector<int> cores;     // one processor id per physical core in the affinity mask, by node then id
  double quota = 0;           // processors the control group grants (cpu.max); 0 = no limit
  int usable = 1;             // threads worth having: min(cores in the mask, quota)
};

// Read anew at every call: affinity and limits may change.
Topology read_topology();

struct Memory {
  int64_t total = 0;          // bytes: of the machine or of the control group, whichever is less
  int64_t available = 0;      // bytes that can be taken without swapping, limit of the control group included
};
Memory read_memory();

}  // namespace tandem
