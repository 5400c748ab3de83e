// A fork-join pool of threads that spin briefly and then sleep.
//
// The caller is thread 0. `run` starts a task on all threads and returns when all are done; `barrier` joins them inside a
// task. Both spin for some tens of microseconds at most and then park, so that a shared machine slows a pass down in
// proportion instead of stopping it. Calls of `run` and `parallel_for` must come from one thread at a time, never nested.
// Tasks must not throw.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace tandem {

struct PoolOptions {
  int threads = 1;        // including the caller
  std::vector<int> cpus;  // thread t runs on processor cpus[t] once `pin` was called; empty: never pinned
};

// Items [0, count) for a team, in pieces [i * grain, min((i + 1) * grain, count)): each thread first walks the pieces of its
// own static range, then takes pieces that others have not reached. Which thread gets which piece varies from run to run:
// results must not depend on it.
class WorkRange {
 public:
  explicit WorkRange(int threads);
  // Before the run (or by one thread between two barriers).
  void reset(int64_t count, int64_t grain);
  // The next piece for this thread; false when nothing is left.
  bool next(int thread, int64_t& begin, int64_t& end);

 private:
  struct alignas(64) Lane {
    std::atomic<int64_t> at{0};
    int64_t end = 0;
  };
  std::vector<Lane> lanes_;  // counted in pieces
  int64_t count_ = 0;
  int64_t grain_ = 1;
};

class ThreadPool {
 public:
  static constexpr int kRanges = 8;

  // Takes fewer threads than asked for where the system refuses more; `threads` tells.
  explicit ThreadPool(const PoolOptions& options);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  // Binds the threads to their processors, the caller's (`owner`, a live thread) included; or lets all of them go again.
  // Callable from any thread. Does nothing without `cpus`.
  void pin(std::thread::native_handle_type owner, bool on);

  // task(thread) on every thread, thread in [0, threads).
  template <typename Task> void run(Task&& task) {
    using Plain = std::remove_reference_t<Task>;
    run_raw([](void* context, int thread) { (*static_cast<Plain*>(context))(thread); },
            const_cast<void*>(static_cast<const void*>(&task)));
  }

  // Inside a task: returns once every thread of the team has called it. Writes before are seen by all after.
  void barrier();

  // body(begin, end, thread) over [0, count) in pieces of at most `grain` items; small counts run on the caller alone.
  template <typename Body> void parallel_for(int64_t count, int64_t grain, Body&& body) {
    if (count <= 0) return;
    if (grain < 1) grain = 1;
    if (threads_ == 1 || count <= grain) {
      body(int64_t{0}, count, 0);
      return;
    }
    WorkRange& work = *ranges_[kRanges];
    work.reset(count, grain);
    run([&](int thread) {
      int64_t begin, end;
      while (work.next(thread, begin, end)) body(begin, end, thread);
    });
  }

  // Work ranges for tasks with several phases: reset before `run`, walked inside it. index in [0, kRanges).
  WorkRange& range(int index) { return *ranges_[index]; }

 private:
  struct Shared;
  void run_raw(void (*call)(void*, int), void* context);

  int threads_;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<WorkRange>> ranges_;  // kRanges for tasks, one more for parallel_for
};

}  // namespace tandem
