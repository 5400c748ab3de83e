// Which threads a team has, on which node each of them works, and where it may run. Pure: a function of the topology.
#pragma once

#include <string_view>
#include <vector>

#include "core/status.h"
#include "cpu/topology.h"

namespace tandem {

struct TeamPlan {
  std::vector<int> node_of;            // per thread (thread 0 is the caller): its node, ascending, in [0, nodes)
  std::vector<int> system_node;        // per node: its number in the system, where its memory belongs
  std::vector<std::vector<int>> cpus;  // per node: all processors its threads may use
  std::vector<int> allowed;            // all processors of the process
  std::vector<int> memory_nodes;       // the system's nodes that have threads, each once
  int threads() const { return static_cast<int>(node_of.size()); }
  int nodes() const { return static_cast<int>(system_node.size()); }
};

struct TeamWishes {
  int threads = 0;             // 0 = Topology::automatic; at most Topology::usable of them are given
  int nodes = 0;               // 0 = those of the system that have threads; else so many, virtual ones if need be
  bool oversubscribe = false;  // more threads than cores, for tests
};

constexpr int kMaxNodes = 16;

TeamPlan plan_team(const Topology& topology, const TeamWishes& wishes);

// What the environment wishes: TANDEM_NUMA = number of nodes, TANDEM_OVERSUBSCRIBE = 1. `numa` and `oversubscribe` are the
// values of those variables, empty where they are not set.
Status read_wishes(int threads, std::string_view numa, std::string_view oversubscribe, TeamWishes& out);

}  // namespace tandem
