// The machine as this process may use it: processors, NUMA nodes, limits of its control group. Read from /proc and /sys.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// A NUMA node with processors this process may use.
struct NumaNode {
  int id = 0;                 // of the system
  std::vector<int> cpus;      // processors of the affinity mask, ascending
  std::vector<int> cores;     // the first of them of each physical core, ascending
};

struct Topology {
  int logical = 1;            // processors online
  int physical = 1;           // cores online
  std::vector<NumaNode> nodes;  // by id, at least one
  double quota = 0;           // processors the control group grants (cpu.max); 0 = no limit
  int usable = 1;             // threads worth having: min(cores in the mask, quota)
  // Threads of a team when nobody says how many: all usable cores where they are few, one less from kPlenty on, so that
  // the event loop (tokenizer, HTTP, sampling parameters) does not take its time from a worker that all others wait for.
  int automatic = 1;
  static constexpr int kPlenty = 8;
};

// Read anew at every call: affinity and limits may change. `root` replaces "/": a folder with copies of the files (tests);
// the affinity mask is then that of its proc/self/status, or all processors.
Topology read_topology(const std::string& root = "");

struct Memory {
  int64_t total = 0;          // bytes: of the machine or of the control group, whichever is less
  int64_t available = 0;      // bytes that can be taken without swapping, limit of the control group included
};
// `root` as of read_topology.
Memory read_memory(const std::string& root = "");

}  // namespace tandem
