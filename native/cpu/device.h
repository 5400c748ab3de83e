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

// The pool of a model. Threads are bound to the processors of their NUMA node where there are several, never to one core: on
// a machine shared with others a thread that lost its core goes on at once on the one that its team mate left waiting for it
// (docs/decisions/009-threads-and-nodes.md has the figures).
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
  CpuTeam(TeamPlan plan, std::thread::native_handle_type owner);
  // cpus(node): where the threads of a node may run.
  template <typename Cpus> void bind(Cpus&& cpus);
  TeamPlan plan_;
  std::unique_ptr<ThreadPool> pool_;
  std::thread::native_handle_type owner_;
};

}  // namespace tandem
