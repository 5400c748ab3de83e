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
  int threads = 1;           // including the caller
  std::vector<int> node_of;  // per thread, ascending: the NUMA node it belongs to; empty: all to node 0
  int nodes = 1;             // some may have no thread
};

// The threads of a team by node: those of node n are [first[n], first[n + 1]).
struct NodeThreads {
  std::vector<int> first;
  std::vector<int> node_of;
  int nodes() const { return static_cast<int>(first.size()) - 1; }
  int threads() const { return first.back(); }
};

// Items for a team, in pieces of at most `grain`: each thread first walks its own static range, then takes pieces that
// others of its node have not reached, then those of other nodes. Which thread gets which piece varies from run to run:
// results must not depend on it.
class WorkRange {
 public:
  // `team` outlives the range.
  explicit WorkRange(const NodeThreads& team);
  // Before the run (or by one thread between two barriers). Items [0, count); pieces start at multiples of `grain`.
  void reset(int64_t count, int64_t grain);
  // The same where items belong to nodes: bounds[n] <= item < bounds[n + 1] are those of node n, bounds[0] = 0. No piece
  // crosses a bound.
  void reset_by_node(const int64_t* bounds, int64_t grain);
  // The next piece for this thread; false when nothing is left.
  bool next(int thread, int64_t& begin, int64_t& end);

 private:
  struct alignas(64) Lane {
    std::atomic<int64_t> at{0};
    int64_t end = 0;
  };
  void share(int64_t begin, int64_t end, size_t first, size_t lanes);
  const NodeThreads& team_;
  std::vector<Lane> lanes_;  // one a thread, then one a node, for the items of nodes without threads
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

  const NodeThreads& team() const { return team_; }
  int nodes() const { return team_.nodes(); }

  // Lets thread t run on the processors cpus[t] alone, the caller's (`owner`, a live thread, t = 0) included. Callable from
  // any thread.
  void bind(std::thread::native_handle_type owner, const std::vector<std::vector<int>>& cpus);

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
    walk(work, body);
  }

  // The same over items that belong to nodes, bounds as of WorkRange::reset_by_node; no piece crosses a bound.
  template <typename Body> void parallel_for_nodes(const int64_t* bounds, int64_t grain, Body&& body) {
    WorkRange& work = *ranges_[kRanges];
    work.reset_by_node(bounds, grain);
    walk(work, body);
  }

  // Work ranges for tasks with several phases: reset before `run`, walked inside it. index in [0, kRanges).
  WorkRange& range(int index) { return *ranges_[index]; }

 private:
  struct Shared;
  void run_raw(void (*call)(void*, int), void* context);
  template <typename Body> void walk(WorkRange& work, Body&& body) {
    run([&](int thread) {
      int64_t begin, end;
      while (work.next(thread, begin, end)) body(begin, end, thread);
    });
  }

  int threads_;
  NodeThreads team_;
  std::unique_ptr<Shared> shared_;
  std::vector<std::unique_ptr<WorkRange>> ranges_;  // kRanges for tasks, one more for parallel_for
};

}  // namespace tandem
