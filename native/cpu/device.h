// The CPU as a device: its kernels, and the thread pool of a model.
#pragma once

#include <memory>
#include <string_view>
#include <thread>

#include "cpu/pool.h"

namespace tandem {

// Registers every kernel of every ISA this binary was built with. Once per process; further calls do nothing.
void ensure_kernels();

// A pool that knows its neighbours: threads are pinned, one to a physical core, while it is the only one of the process and
// the control group sets no quota; as soon as a second one lives, all run free.
class CpuTeam {
 public:
  // `threads`: 0 = one per usable physical core; more than those are never taken. `owner`: the thread that calls the pool.
  CpuTeam(int threads, std::thread::native_handle_type owner);
  ~CpuTeam();
  CpuTeam(const CpuTeam&) = delete;
  CpuTeam& operator=(const CpuTeam&) = delete;
  ThreadPool& pool() { return *pool_; }

 private:
  std::unique_ptr<ThreadPool> pool_;
  std::thread::native_handle_type owner_;
};

}  // namespace tandem
