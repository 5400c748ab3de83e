// The CPU as a device: its kernels, and the thread pool of a model.
#pragma once

#include <memory>
#include <string_view>
#include <thread>

#include "core/status.h"
#include "cpu/pool.h"
#include "cpu/team_plan.h"

namespace tandem {

// Registers every kernel of every ISA this binary was built with. Once per process; further calls do nothing.
void ensure_kernels();

// A pool that knows its neighbours: each thread is bound to a core while the pool is the only one of the process and the
// control group sets no quota; as soon as a second one lives, all move freely within their NUMA node.
class CpuTeam {
 public:
  // `threads`: 0 = automatic (Topology::automatic); never more than there are usable cores. TANDEM_NUMA and
  // TANDEM_OVERSUBSCRIBE are read from the environment. `owner`: the thread that calls the pool.
  static Status create(int threads, std::thread::native_handle_type owner, std::unique_ptr<CpuTeam>& out);
  ~CpuTeam();
  CpuTeam(const CpuTeam&) = delete;
  CpuTeam& operator=(const CpuTeam&) = delete;
  ThreadPool& pool() { return *pool_; }
  const TeamPlan& plan() const { return plan_; }

 private:
  CpuTeam(TeamPlan plan, bool own_cores, std::thread::native_handle_type owner);
  void bind(bool alone);
  TeamPlan plan_;
  bool own_cores_;  // threads may be bound to cores
  std::unique_ptr<ThreadPool> pool_;
  std::thread::native_handle_type owner_;
};

}  // namespace tandem
