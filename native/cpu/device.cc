#include "cpu/device.h"

#include <algorithm>
#include <mutex>
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

CpuTeam::CpuTeam(int threads, std::thread::native_handle_type owner) : owner_(owner) {
  const Topology topology = read_topology();
  PoolOptions options;
  options.threads = threads > 0 ? std::min(threads, topology.usable) : topology.usable;
  if (topology.quota <= 0) options.cpus = topology.cores;
  pool_ = std::make_unique<ThreadPool>(options);
  std::lock_guard lock(teams().mutex);
  std::vector<CpuTeam*>& alive = teams().alive;
  alive.push_back(this);
  for (CpuTeam* team : alive) team->pool_->pin(team->owner_, alive.size() == 1);
}

CpuTeam::~CpuTeam() {
  std::lock_guard lock(teams().mutex);
  std::vector<CpuTeam*>& alive = teams().alive;
  alive.erase(std::find(alive.begin(), alive.end(), this));
  pool_->pin(owner_, false);  // the owner may go on to other work
  pool_.reset();  // under the lock: nobody pins threads that have ended
  if (alive.size() == 1) alive.front()->pool_->pin(alive.front()->owner_, true);
}

}  // namespace tandem
