#include "cpu/device.h"

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/topology.h"

namespace tandem {

void register_cpu_kernels();  // generated: calls the register functions of all kernel files

namespace {

struct Teams {
  std::mutex mutex;
  std::vector<CpuTeam*> alive;
};
Teams& teams() {
  static Teams& instance = *new Teams;  // never destroyed: threads outlive static destructors at process.exit
  return instance;
}

}  // namespace

void ensure_kernels() {
  static std::once_flag once;
  std::call_once(once, register_cpu_kernels);
}

Status CpuTeam::create(int threads, std::thread::native_handle_type owner, std::unique_ptr<CpuTeam>& out) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string_view(value != nullptr ? value : "");
  };
  TeamWishes wishes;
  TANDEM_TRY(read_wishes(threads, variable("TANDEM_NUMA"), variable("TANDEM_OVERSUBSCRIBE"), wishes));
  const Topology topology = read_topology();
  out.reset(new CpuTeam(plan_team(topology, wishes), topology.quota <= 0, owner));
  return {};
}

CpuTeam::CpuTeam(TeamPlan plan, bool own_cores, std::thread::native_handle_type owner)
    : plan_(std::move(plan)), own_cores_(own_cores && !plan_.cores.empty()), owner_(owner) {
  PoolOptions options;
  options.threads = plan_.threads();
  options.node_of = plan_.node_of;
  options.nodes = plan_.nodes();
  pool_ = std::make_unique<ThreadPool>(options);
  std::lock_guard lock(teams().mutex);
  std::vector<CpuTeam*>& alive = teams().alive;
  alive.push_back(this);
  for (CpuTeam* team : alive) team->bind(alive.size() == 1);
}

CpuTeam::~CpuTeam() {
  std::lock_guard lock(teams().mutex);
  std::vector<CpuTeam*>& alive = teams().alive;
  alive.erase(std::find(alive.begin(), alive.end(), this));
  // The owner may go on to other work, anywhere.
  pool_->bind(owner_, std::vector<std::vector<int>>(static_cast<size_t>(pool_->threads()), plan_.allowed));
  pool_.reset();  // under the lock: nobody binds threads that have ended
  if (alive.size() == 1) alive.front()->bind(true);
}

void CpuTeam::bind(bool alone) {
  std::vector<std::vector<int>> cpus;
  for (int t = 0; t < pool_->threads(); t++) {
    const size_t thread = static_cast<size_t>(t);
    if (alone && own_cores_) cpus.push_back({plan_.cores[thread]});
    else cpus.push_back(plan_.cpus[static_cast<size_t>(plan_.node_of[thread])]);
  }
  pool_->bind(owner_, cpus);
}

}  // namespace tandem
