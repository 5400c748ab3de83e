#include "cpu/topology.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>

namespace tandem {

namespace {

std::string read_line(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

bool read_number(const std::string& path, int64_t& out) {
  const std::string text = read_line(path);
  return std::from_chars(text.data(), text.data() + text.size(), out).ec == std::errc();
}

// "0-3,8" -> 0 1 2 3 8
std::vector<int> parse_list(const std::string& text) {
  std::vector<int> ids;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    int first = 0, last = 0;
    const char* end = part.data() + part.size();
    auto [at, error] = std::from_chars(part.data(), end, first);
    if (error != std::errc()) continue;
    last = first;
    if (at < end && *at == '-') std::from_chars(at + 1, end, last);
    for (int id = first; id <= last && id - first < 65536; id++) ids.push_back(id);
  }
  return ids;
}

std::vector<int> affinity(const std::string& root, const std::vector<int>& online) {
  if (!root.empty()) {
    std::ifstream status(root + "/proc/self/status");
    const std::string key = "Cpus_allowed_list:";
    for (std::string line; std::getline(status, line);)
      if (line.rfind(key, 0) == 0) return parse_list(line.substr(line.find_first_not_of(" \t", key.size())));
    return online;
  }
  const int most = online.empty() ? 1024 : std::max(1024, online.back() + 1);
  std::vector<int> ids;
  cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(most));
  if (set == nullptr) return online;
  const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(most));
  if (sched_getaffinity(0, size, set) == 0) {
    for (int id = 0; id < most; id++)
      if (CPU_ISSET_S(static_cast<size_t>(id), size, set)) ids.push_back(id);
  }
  CPU_FREE(set);
  return ids.empty() ? online : ids;
}

// Folders of this process's control group and its parents, innermost first, for a controller ("" = the unified v2).
std::vector<std::string> cgroup_folders(const std::string& base, const std::string& controller) {
  std::ifstream file(base + "/proc/self/cgroup");
  std::string path;
  for (std::string line; std::getline(file, line);) {  // hierarchy:controllers:path
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    std::stringstream names(line.substr(first + 1, second - first - 1));
    bool ours = controller.empty() && second == first + 1;
    for (std::string name; std::getline(names, name, ',');) ours = ours || (!controller.empty() && name == controller);
    if (ours) path = line.substr(second + 1);
  }
  const std::string root = base + (controller.empty() ? "/sys/fs/cgroup" : "/sys/fs/cgroup/" + controller);
  std::vector<std::string> folders;
  while (!path.empty() && path != "/") {
    folders.push_back(root + path);
    path = path.substr(0, path.rfind('/'));
  }
  folders.push_back(root);
  return folders;
}

double cpu_quota(const std::string& root) {
  double least = 0;
  const auto take = [&least](double quota) {
    if (quota > 0 && (least == 0 || quota < least)) least = quota;
  };
  for (const std::string& folder : cgroup_folders(root, "")) {
    std::stringstream line(read_line(folder + "/cpu.max"));  // "max 100000" or "150000 100000"
    double quota = 0, period = 0;
    if (line >> quota >> period && period > 0) take(quota / period);
  }
  for (const std::string& folder : cgroup_folders(root, "cpu")) {
    int64_t quota = 0, period = 0;
    if (read_number(folder + "/cpu.cfs_quota_us", quota) && read_number(folder + "/cpu.cfs_period_us", period) && quota > 0 && period > 0)
      take(static_cast<double>(quota) / static_cast<double>(period));
  }
  return least;
}

// Page cache counts as available, as in the system's MemAvailable: a file that was read twice lies in the active list, and is
// given up all the same.
int64_t page_cache(const std::string& path, const std::string& prefix) {
  std::ifstream file(path);
  std::string name;
  int64_t bytes = 0;
  for (int64_t value; file >> name >> value;)
    if (name == prefix + "inactive_file" || name == prefix + "active_file") bytes += value;
  return bytes;
}

}  // namespace

Topology read_topology(const std::string& root) {
  Topology t;
  const std::string system = root + "/sys/devices/system/";
  std::vector<int> online = parse_list(read_line(system + "cpu/online"));
  if (online.empty()) {
    const long count = sysconf(_SC_NPROCESSORS_ONLN);
    for (int id = 0; id < std::max(count, 1L); id++) online.push_back(id);
  }
  t.logical = static_cast<int>(online.size());

  std::map<int, int> node_of;
  for (int node : parse_list(read_line(system + "node/online")))
    for (int id : parse_list(read_line(system + "node/node" + std::to_string(node) + "/cpulist"))) node_of[id] = node;

  // A core is known by its lowest sibling; where /sys says nothing every processor is a core.
  const auto core_of = [&system](int id) {
    const std::vector<int> siblings = parse_list(read_line(system + "cpu/cpu" + std::to_string(id) + "/topology/thread_siblings_list"));
    return siblings.empty() ? id : siblings.front();
  };
  std::set<int> all, taken;
  for (int id : online) all.insert(core_of(id));
  t.physical = static_cast<int>(all.size());
  std::map<int, NumaNode> nodes;
  int cores = 0;
  for (int id : affinity(root, online)) {
    NumaNode& node = nodes[node_of[id]];
    node.cpus.push_back(id);
    if (!taken.insert(core_of(id)).second) continue;
    node.cores.push_back(id);
    cores++;
  }
  for (auto& [id, node] : nodes) {
    if (node.cores.empty()) continue;  // its processors are siblings of another node's: no machine known, and no threads for it
    node.id = id;
    t.nodes.push_back(std::move(node));
  }
  if (t.nodes.empty()) t.nodes.push_back({0, {0}, {0}});

  t.quota = cpu_quota(root);
  t.usable = std::max(cores, 1);
  if (t.quota > 0) t.usable = std::clamp(static_cast<int>(std::floor(t.quota)), 1, t.usable);
  t.automatic = t.usable >= Topology::kPlenty ? t.usable - 1 : t.usable;
  return t;
}

Memory read_memory(const std::string& root) {
  Memory m;
  std::ifstream info(root + "/proc/meminfo");
  for (std::string line; std::getline(info, line);) {
    int64_t kib = 0;
    std::string key, unit;
    std::stringstream(line) >> key >> kib >> unit;
    if (key == "MemTotal:") m.total = kib * 1024;
    if (key == "MemAvailable:") m.available = kib * 1024;
  }
  // Of every group on the way up: others in a larger one may leave less than the own limit.
  const int64_t machine = m.total;
  const auto limit = [&m, machine](int64_t most, int64_t used, int64_t reclaimable) {
    if (most <= 0 || most >= machine) return;
    m.total = std::min(m.total, most);
    m.available = std::min(m.available, std::max<int64_t>(0, most - std::max<int64_t>(0, used - reclaimable)));
  };
  int64_t most = 0, used = 0;
  for (const std::string& folder : cgroup_folders(root, "")) {
    if (read_number(folder + "/memory.max", most) && read_number(folder + "/memory.current", used))
      limit(most, used, page_cache(folder + "/memory.stat", ""));
  }
  for (const std::string& folder : cgroup_folders(root, "memory")) {
    if (read_number(folder + "/memory.limit_in_bytes", most) && read_number(folder + "/memory.usage_in_bytes", used))
      limit(most, used, page_cache(folder + "/memory.stat", "total_"));
  }
  return m;
}

}  // namespace tandem
