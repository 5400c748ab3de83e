#include "cpu/device.h"

#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/isa.h"
#include "cpu/topology.h"

namespace tandem {

void register_cpu_kernels(Isa isa);  // generated: calls the register functions of all kernel files of a build

void ensure_kernels() {
  static std::once_flag once;
  // Of builds that run here: their register functions are made of their instructions, too.
  std::call_once(once, [] {
    for (Isa isa : {Isa::scalar, Isa::avx2, Isa::avx512, Isa::amx})
      if (runs_build(isa)) register_cpu_kernels(isa);
  });
}

Status CpuTeam::create(int threads, std::thread::native_handle_type owner, std::unique_ptr<CpuTeam>& out) {
  const auto variable = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string_view(value != nullptr ? value : "");
  };
  TeamWishes wishes;
  TANDEM_TRY(read_wishes(threads, variable("TANDEM_NUMA"), variable("TANDEM_OVERSUBSCRIBE"), wishes));
  out.reset(new CpuTeam(plan_team(read_topology(), wishes), owner));
  return {};
}

CpuTeam::CpuTeam(TeamPlan plan, std::thread::native_handle_type owner) : plan_(std::move(plan)), owner_(owner) {
  PoolOptions options;
  options.threads = plan_.threads();
  options.node_of = plan_.node_of;
  options.nodes = plan_.nodes();
  pool_ = std::make_unique<ThreadPool>(options);
  bind([this](int node) { return plan_.cpus[static_cast<size_t>(node)]; });
}

CpuTeam::~CpuTeam() {
  bind([this](int) { return plan_.allowed; });  // the owner may go on to other work
}

template <typename Cpus> void CpuTeam::bind(Cpus&& cpus) {
  if (plan_.memory_nodes.size() < 2) return;
  std::vector<std::vector<int>> of_thread;
  for (int node : pool_->team().node_of) of_thread.push_back(cpus(node));
  pool_->bind(owner_, of_thread);
}

}  // namespace tandem
