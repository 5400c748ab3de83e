// The topology of machines that are not here, from folders with copies of their /proc and /sys; teams planned for them.
#include "cpu/topology.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include "core/memory.h"
#include "cpu/node_memory.h"
#include "cpu/team_plan.h"
#include "test/harness.h"

namespace tandem {

namespace {

// A machine as /proc and /sys tell it. Processor p and p + cores() are siblings where there are two threads a core.
struct Machine {
  explicit Machine(int nodes, int cores_of_node, int threads_of_core = 1) {
    char name[] = "/tmp/tandem-topology-XXXXXX";
    root = mkdtemp(name);
    const int cores = nodes * cores_of_node;
    const std::string system = "/sys/devices/system/";
    write(system + "cpu/online", "0-" + std::to_string(cores * threads_of_core - 1));
    write(system + "node/online", nodes > 1 ? "0-" + std::to_string(nodes - 1) : "0");
    for (int node = 0; node < nodes; node++) {
      std::string list;
      for (int thread = 0; thread < threads_of_core; thread++) {
        const int first = thread * cores + node * cores_of_node;
        list += (thread > 0 ? "," : "") + std::to_string(first) + "-" + std::to_string(first + cores_of_node - 1);
      }
      write(system + "node/node" + std::to_string(node) + "/cpulist", list);
    }
    for (int cpu = 0; cpu < cores * threads_of_core; cpu++) {
      const int core = cpu % cores;
      write(system + "cpu/cpu" + std::to_string(cpu) + "/topology/thread_siblings_list",
            threads_of_core > 1 ? std::to_string(core) + "," + std::to_string(core + cores) : std::to_string(core));
    }
  }
  ~Machine() { std::filesystem::remove_all(root); }
  Machine(const Machine&) = delete;
  Machine& operator=(const Machine&) = delete;
  void write(const std::string& path, const std::string& text) const {
    const std::filesystem::path file = root + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text << "\n";
  }
  Topology read() const { return read_topology(root); }
  std::string root;
};

TeamPlan plan(const Topology& topology, int threads, int nodes = 0, bool oversubscribe = false) { return plan_team(topology, {threads, nodes, oversubscribe}); }

}  // namespace

TEST(topology_of_this_machine_is_plausible) {
  const Topology t = read_topology();
  EXPECT(t.logical >= t.physical && t.physical >= 1);
  EXPECT(t.usable >= 1 && t.usable <= t.physical && t.automatic >= 1 && t.automatic <= t.usable);
  EXPECT(!t.nodes.empty());
  for (const NumaNode& node : t.nodes) EXPECT(!node.cores.empty() && node.cores.size() <= node.cpus.size());
  const Memory m = read_memory();
  EXPECT(m.total > 0 && m.available > 0 && m.available <= m.total);
}

TEST(topology_of_two_sockets_with_siblings) {
  const Machine machine(2, 16, 2);
  const Topology t = machine.read();
  EXPECT(t.logical == 64 && t.physical == 32 && t.usable == 32 && t.automatic == 31);
  EXPECT(t.nodes.size() == 2 && t.nodes[1].id == 1 && t.nodes[1].cpus.size() == 32 && t.nodes[1].cores.size() == 16 && t.nodes[1].cores[0] == 16);
  const TeamPlan all = plan(t, 0);
  EXPECT(all.threads() == 31 && all.nodes() == 2 && all.allowed.size() == 64);
  EXPECT(all.node_of[14] == 0 && all.node_of[15] == 1 && all.cpus[1].size() == 32);
  for (int threads = 1; threads <= 40; threads++) {
    const TeamPlan some = plan(t, threads);
    EXPECT(some.threads() == std::min(threads, 32) && some.nodes() == (threads > 1 ? 2 : 1));
    for (int node = 0; node < some.nodes(); node++) {
      const auto count = std::count(some.node_of.begin(), some.node_of.end(), node);
      EXPECT(count >= some.threads() / 2 && count <= 16 && some.memory_nodes.size() == static_cast<size_t>(some.nodes()));
      EXPECT(some.cpus[static_cast<size_t>(node)] == t.nodes[static_cast<size_t>(some.system_node[static_cast<size_t>(node)])].cpus);
    }
  }
}

TEST(topology_knows_limits) {
  const Machine machine(2, 8, 2);
  machine.write("/proc/self/status", "Name:\tnode\nCpus_allowed:\tff\nCpus_allowed_list:\t9-11,24-27");
  Topology t = machine.read();  // 24 is the sibling of 8, 25-27 those of 9-11
  EXPECT(t.logical == 32 && t.physical == 16 && t.usable == 4 && t.automatic == 4);
  EXPECT(t.nodes.size() == 1 && t.nodes[0].id == 1 && (t.nodes[0].cores == std::vector<int>{9, 10, 11, 24}));
  machine.write("/proc/self/cgroup", "0::/box/inner");
  machine.write("/sys/fs/cgroup/box/cpu.max", "250000 100000");
  machine.write("/sys/fs/cgroup/box/inner/cpu.max", "max 100000");
  t = machine.read();
  EXPECT(t.quota == 2.5 && t.usable == 2);
  EXPECT(plan(t, 9).threads() == 2 && plan(t, 9, 0, true).threads() == 9);
  machine.write("/sys/fs/cgroup/box/cpu.max", "50000 100000");
  EXPECT(machine.read().usable == 1);
}

// Limits of all groups on the way up count; page cache that is given up is left, in whichever list it lies.
TEST(memory_knows_limits) {
  const Machine machine(1, 2);
  constexpr int64_t kGiB = int64_t{1} << 30;
  const auto bytes = [](int64_t gib) { return std::to_string(gib * kGiB); };
  machine.write("/proc/meminfo", "MemTotal: " + std::to_string(64 << 20) + " kB\nMemAvailable: " + std::to_string(60 << 20) + " kB");
  Memory m = read_memory(machine.root);
  EXPECT(m.total == 64 * kGiB && m.available == 60 * kGiB);
  machine.write("/proc/self/cgroup", "0::/box/inner");
  machine.write("/sys/fs/cgroup/box/inner/memory.max", bytes(32));
  machine.write("/sys/fs/cgroup/box/inner/memory.current", bytes(30));
  machine.write("/sys/fs/cgroup/box/inner/memory.stat", "anon " + bytes(2) + "\ninactive_file " + bytes(10) + "\nactive_file " + bytes(18));
  m = read_memory(machine.root);
  EXPECT(m.total == 32 * kGiB && m.available == 30 * kGiB);
  machine.write("/sys/fs/cgroup/box/memory.max", bytes(40));  // larger, and nearly full of others
  machine.write("/sys/fs/cgroup/box/memory.current", bytes(39));
  m = read_memory(machine.root);
  EXPECT(m.total == 32 * kGiB && m.available == kGiB);
  const Machine first(1, 2);
  first.write("/proc/meminfo", "MemTotal: " + std::to_string(64 << 20) + " kB\nMemAvailable: " + std::to_string(60 << 20) + " kB");
  first.write("/proc/self/cgroup", "4:memory:/box");
  first.write("/sys/fs/cgroup/memory/box/memory.limit_in_bytes", bytes(8));
  first.write("/sys/fs/cgroup/memory/box/memory.usage_in_bytes", bytes(7));
  first.write("/sys/fs/cgroup/memory/box/memory.stat", "active_file 1\ntotal_inactive_file " + bytes(1) + "\ntotal_active_file " + bytes(2));
  first.write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712");
  first.write("/sys/fs/cgroup/memory/memory.usage_in_bytes", bytes(63));
  m = read_memory(first.root);
  EXPECT(m.total == 8 * kGiB && m.available == 4 * kGiB);
}

TEST(topology_of_few_cores_leaves_none) {
  EXPECT(Machine(1, 2).read().automatic == 2);
  EXPECT(Machine(1, 7).read().automatic == 7);
  EXPECT(Machine(1, 8).read().automatic == 7);
}

TEST(topology_survives_an_empty_folder) {
  const Machine machine(1, 1);
  std::filesystem::remove_all(machine.root + "/sys");
  const Topology t = machine.read();
  EXPECT(t.usable >= 1 && t.nodes.size() == 1 && t.nodes[0].cores.size() == static_cast<size_t>(t.physical));
}

TEST(team_has_virtual_nodes) {
  const Machine small(1, 2), large(2, 4);
  const Topology one = small.read(), two = large.read();
  TeamPlan p = plan(one, 2, 2);
  EXPECT((p.node_of == std::vector<int>{0, 1}) && (p.system_node == std::vector<int>{0, 0}));
  p = plan(one, 1, 2);  // a node without threads: its rows are walked by the others
  EXPECT(p.nodes() == 2 && (p.node_of == std::vector<int>{1}));
  p = plan(one, 7, 3, true);
  EXPECT((p.node_of == std::vector<int>{0, 0, 1, 1, 2, 2, 2}));
  p = plan(two, 8, 1);
  EXPECT(p.nodes() == 1 && p.node_of == std::vector<int>(8, 0) && p.cpus[0].size() == 8);
  p = plan(two, 8, 4);
  EXPECT((p.node_of == std::vector<int>{0, 0, 1, 1, 2, 2, 3, 3}) && (p.system_node == std::vector<int>{0, 0, 1, 1}) && p.memory_nodes.size() == 2);
  p = plan(Machine(24, 2).read(), 48);  // more than tables of nodes hold
  EXPECT(p.threads() == 48 && p.nodes() == kMaxNodes && p.memory_nodes.size() == 24 && p.node_of.back() == kMaxNodes - 1);
}

// Rows of a node are whole multiples, in proportion to its threads, and all of them; or there is no split.
TEST(team_splits_rows) {
  const TeamPlan two = plan(Machine(2, 4).read(), 7);  // 3 and 4 threads
  EXPECT((split_rows(7 * 64, two) == std::vector<int64_t>{0, 3 * 64, 7 * 64}));
  EXPECT((split_rows(130, two) == std::vector<int64_t>{0, 0, 130}) && split_rows(127, two).empty());
  EXPECT(split_rows(4096, plan(Machine(1, 4).read(), 4)).empty());
  for (int nodes : {2, 3, 16}) {
    const TeamPlan p = plan(Machine(1, 2).read(), 2, nodes);
    for (int64_t rows : {0, 1, 64, 128, 192, 1000, 1408, 10944, 102400}) {
      const std::vector<int64_t> bounds = split_rows(rows, p);
      EXPECT(bounds.empty() == (rows < 64 * nodes));
      if (bounds.empty()) continue;
      EXPECT(bounds.size() == static_cast<size_t>(nodes) + 1 && bounds.front() == 0 && bounds.back() == rows);
      for (size_t i = 1; i + 1 < bounds.size(); i++) EXPECT(bounds[i] % 64 == 0 && bounds[i] > bounds[i - 1]);
    }
  }
}

// The policy is a wish: whatever the machine has, memory is there and holds what was written.
TEST(node_memory_is_memory) {
  Region region;
  EXPECT_OK(region.allocate(1 << 20, false, "a test"));
  const TeamPlan real = plan(read_topology(), 0);
  place_on_node(region.data() + 100, 300000, real.system_node[0]);
  place_on_all(region.data() + 400000, 600000, plan(Machine(2, 4).read(), 8));  // names a node that may not be here
  std::memset(region.data(), 7, region.size());
  for (size_t i = 0; i < region.size(); i += 4096) EXPECT(region.data()[i] == 7);
}

TEST(team_wishes_are_checked) {
  TeamWishes wishes;
  EXPECT_OK(read_wishes(3, "2", "1", wishes));
  EXPECT(wishes.threads == 3 && wishes.nodes == 2 && wishes.oversubscribe);
  TeamWishes none;
  EXPECT_OK(read_wishes(0, "", "", none));
  EXPECT(none.nodes == 0 && !none.oversubscribe);
  for (const char* numa : {"0", "17", "two", "2x", "-1", " "}) EXPECT(read_wishes(0, numa, "", none).code() == Code::request_invalid);
  EXPECT(read_wishes(0, "", "yes", none).code() == Code::request_invalid);
}

}  // namespace tandem
