#include "cpu/team_plan.h"

#include <algorithm>
#include <charconv>
#include <string>

namespace tandem {

TeamPlan plan_team(const Topology& topology, const TeamWishes& wishes) {
  TeamPlan plan;
  int threads = wishes.threads > 0 ? wishes.threads : topology.automatic;
  if (!wishes.oversubscribe) threads = std::min(threads, topology.usable);

  // Every node gets its share of the threads: cores are laid side by side, and thread boundaries cut them evenly.
  //     node 0 [c c c c c c c c)  node 1 [c c c c c c c c)     7 threads: 3 and 4
  int64_t all = 0, before = 0;
  for (const NumaNode& node : topology.nodes) {
    all += static_cast<int64_t>(node.cores.size());
    plan.allowed.insert(plan.allowed.end(), node.cpus.begin(), node.cpus.end());
  }
  for (const NumaNode& node : topology.nodes) {
    const int64_t after = before + static_cast<int64_t>(node.cores.size());
    const int64_t share = threads * after / all - threads * before / all;
    before = after;
    if (share == 0) continue;
    plan.node_of.insert(plan.node_of.end(), static_cast<size_t>(share), plan.nodes());
    plan.system_node.push_back(node.id);
    plan.cpus.push_back(node.cpus);
  }
  plan.memory_nodes = plan.system_node;
  // Firmware may call every cache a node: more than kMaxNodes are joined, as virtual ones.
  const int nodes = wishes.nodes > 0 ? wishes.nodes : std::min(plan.nodes(), kMaxNodes);
  if (nodes == plan.nodes()) return plan;

  // Virtual nodes: the threads in their order, cut evenly. A node's memory is where its first thread is.
  const TeamPlan real = plan;
  plan.system_node.clear();
  plan.cpus.clear();
  for (int node = 0; node < nodes; node++) {
    const int first = std::min(node * threads / nodes, threads - 1), last = std::max((node + 1) * threads / nodes - 1, first);
    plan.system_node.push_back(real.system_node[static_cast<size_t>(real.node_of[static_cast<size_t>(first)])]);
    plan.cpus.emplace_back();
    for (int r = real.node_of[static_cast<size_t>(first)]; r <= real.node_of[static_cast<size_t>(last)]; r++)
      plan.cpus.back().insert(plan.cpus.back().end(), real.cpus[static_cast<size_t>(r)].begin(), real.cpus[static_cast<size_t>(r)].end());
    for (int t = node * threads / nodes; t < (node + 1) * threads / nodes; t++) plan.node_of[static_cast<size_t>(t)] = node;
  }
  return plan;
}

Status read_wishes(int threads, std::string_view numa, std::string_view oversubscribe, TeamWishes& out) {
  out.threads = threads;
  if (!numa.empty()) {
    const auto [end, error] = std::from_chars(numa.data(), numa.data() + numa.size(), out.nodes);
    if (error != std::errc() || end != numa.data() + numa.size() || out.nodes < 1 || out.nodes > kMaxNodes)
      return Status(Code::request_invalid, "[native] TANDEM_NUMA is a number of nodes, 1 to " + std::to_string(kMaxNodes) + "; given " + std::string(numa) +
                                               "; leave it unset for the machine's own");
  }
  if (!oversubscribe.empty() && oversubscribe != "0" && oversubscribe != "1")
    return Status(Code::request_invalid, "[native] TANDEM_OVERSUBSCRIBE is 0 or 1; given " + std::string(oversubscribe) + "; leave it unset outside of tests");
  out.oversubscribe = oversubscribe == "1";
  return {};
}

}  // namespace tandem
