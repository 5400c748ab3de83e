#include "cpu/pool.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <exception>

namespace tandem {

namespace {

void futex_wait(std::atomic<uint32_t>& word, uint32_t expected) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake_all(std::atomic<uint32_t>& word) {
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&word), FUTEX_WAKE_PRIVATE, INT32_MAX, nullptr, nullptr, 0);
}

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Pauses in a microsecond: the instruction takes 10 to 150 cycles, depending on the processor's generation.
int pauses_per_microsecond() {
  static const int value = [] {
    const auto start = std::chrono::steady_clock::now();
    constexpr int kSample = 2000;
    for (int i = 0; i < kSample; i++) pause();
    const double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count();
    return std::clamp(static_cast<int>(kSample / std::max(us, 1.0)), 2, 500);
  }();
  return value;
}

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// A park costs about 50 us until the thread runs again, so that is the longest spin worth its while. A thread whose waits
// are longer than that spins less the next time: the machine is idle or shared, and either wants its core. The judge is the
// moment of the change, not of waking up: a thread that parked just before it would else park at every step from then on.
constexpr int kMaxSpinMicroseconds = 50;
constexpr int kMinSpinMicroseconds = 2;

// A word that threads wait on until it changes.
struct alignas(64) Signal {
  std::atomic<uint32_t> word{0};
  std::atomic<uint32_t> parked{0};
  std::atomic<int64_t> changed{0};  // when, in nanoseconds, if somebody was parked

  // Returns once the word is no longer `seen`. `spin` is this thread's own budget in microseconds.
  void wait_change(uint32_t seen, int& spin) {
    const int limit = spin * pauses_per_microsecond();
    for (int i = 0; i < limit; i++) {
      if (word.load(std::memory_order_acquire) != seen) {
        spin = std::min(spin * 2, kMaxSpinMicroseconds);
        return;
      }
      pause();
    }
    const int64_t began = nanoseconds() - int64_t{1000} * spin;
    // The waker changes the word and then reads `parked`; we raise `parked` and then the kernel reads the word. Both in
    // one total order: either it sees us, or the kernel sees the change and does not sleep.
    parked.fetch_add(1, std::memory_order_seq_cst);
    while (word.load(std::memory_order_seq_cst) == seen) futex_wait(word, seen);
    parked.fetch_sub(1, std::memory_order_relaxed);
    const bool brief = changed.load(std::memory_order_relaxed) - began <= int64_t{1000} * kMaxSpinMicroseconds;
    spin = brief ? std::min(spin * 2, kMaxSpinMicroseconds) : std::max(spin / 2, kMinSpinMicroseconds);
  }

  void change() {
    if (parked.load(std::memory_order_relaxed) != 0) changed.store(nanoseconds(), std::memory_order_relaxed);
    word.fetch_add(1, std::memory_order_seq_cst);
    if (parked.load(std::memory_order_seq_cst) != 0) futex_wake_all(word);
  }
};

void set_affinity(pthread_t thread, const std::vector<int>& cpus) {
  // Sized for the largest id, so that machines with more than 1024 processors work.
  const int most = *std::max_element(cpus.begin(), cpus.end());
  cpu_set_t* set = CPU_ALLOC(static_cast<size_t>(most) + 1);
  if (set == nullptr) return;
  const size_t size = CPU_ALLOC_SIZE(static_cast<size_t>(most) + 1);
  CPU_ZERO_S(size, set);
  for (int cpu : cpus) CPU_SET_S(static_cast<size_t>(cpu), size, set);
  pthread_setaffinity_np(thread, size, set);  // a refusal leaves the thread where it may run: still right, only slower
  CPU_FREE(set);
}

}  // namespace

WorkRange::WorkRange(const NodeThreads& team) : team_(team), lanes_(static_cast<size_t>(team.threads() + team.nodes())) {}

// Items [begin, end) to lanes [first, first + lanes), whole pieces to each.
void WorkRange::share(int64_t begin, int64_t end, size_t first, size_t lanes) {
  const int64_t pieces = (end - begin + grain_ - 1) / grain_, count = static_cast<int64_t>(lanes);
  for (int64_t i = 0; i < count; i++) {
    Lane& lane = lanes_[first + static_cast<size_t>(i)];
    lane.at.store(begin + pieces * i / count * grain_, std::memory_order_relaxed);
    lane.end = std::min(begin + pieces * (i + 1) / count * grain_, end);
  }
}

void WorkRange::reset(int64_t count, int64_t grain) {
  grain_ = std::max<int64_t>(grain, 1);
  const size_t threads = static_cast<size_t>(team_.threads());
  share(0, std::max<int64_t>(count, 0), 0, threads);
  for (size_t lane = threads; lane < lanes_.size(); lane++) share(0, 0, lane, 1);
}

void WorkRange::reset_by_node(const int64_t* bounds, int64_t grain) {
  grain_ = std::max<int64_t>(grain, 1);
  const size_t threads = static_cast<size_t>(team_.threads());
  for (size_t node = 0; node + threads < lanes_.size(); node++) {
    const size_t first = static_cast<size_t>(team_.first[node]), count = static_cast<size_t>(team_.first[node + 1]) - first;
    const bool orphan = count == 0;
    share(bounds[node], bounds[node + 1], orphan ? threads + node : first, orphan ? 1 : count);
    if (!orphan) share(0, 0, threads + node, 1);
  }
}

bool WorkRange::next(int thread, int64_t& begin, int64_t& end) {
  const int threads = team_.threads(), node = team_.node_of[static_cast<size_t>(thread)];
  const int first = team_.first[static_cast<size_t>(node)], last = team_.first[static_cast<size_t>(node) + 1], own = last - first;
  const auto take = [&](int index) {
    Lane& lane = lanes_[static_cast<size_t>(index)];
    if (lane.at.load(std::memory_order_relaxed) >= lane.end) return false;
    begin = lane.at.fetch_add(grain_, std::memory_order_relaxed);
    if (begin >= lane.end) return false;
    end = std::min(begin + grain_, lane.end);
    return true;
  };
  for (int k = 0; k < own; k++)
    if (take(first + (thread - first + k) % own)) return true;
  for (int k = 0; k < threads - own; k++)
    if (take((last + k) % threads)) return true;
  if (team_.nodes() == 1) return false;
  for (int k = 0; k < team_.nodes(); k++)
    if (take(threads + k)) return true;
  return false;
}

struct ThreadPool::Shared {
  Signal start;        // changed once per run (and to stop)
  Signal done;         // changed when the last worker has finished
  Signal joined;       // changed when a barrier is complete
  alignas(64) std::atomic<int> running{0};
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) void (*call)(void*, int) = nullptr;  // written before `start` changes
  void* context = nullptr;
  bool stop = false;
  // Spin budgets, one line a thread: [start or done, joined].
  struct alignas(64) Spin {
    int wait = kMaxSpinMicroseconds;
    int barrier = kMaxSpinMicroseconds;
  };
  std::vector<Spin> spins;
  std::vector<std::thread> workers;
};

namespace {
// Index of the current thread in the pool whose task it runs.
thread_local int current_thread = 0;
}  // namespace

ThreadPool::ThreadPool(const PoolOptions& options) : threads_(1), shared_(std::make_unique<Shared>()) {
  const int wanted = std::max(options.threads, 1);
  pauses_per_microsecond();
  shared_->spins.resize(static_cast<size_t>(wanted));
  shared_->workers.reserve(static_cast<size_t>(wanted));
  for (int thread = 1; thread < wanted; thread++) {
    try {
      shared_->workers.emplace_back([shared = shared_.get(), thread] {
        pthread_setname_np(pthread_self(), "tandem-pool");
        current_thread = thread;
        uint32_t seen = 0;
        for (;;) {
          shared->start.wait_change(seen, shared->spins[static_cast<size_t>(thread)].wait);
          seen++;
          if (shared->stop) return;
          shared->call(shared->context, thread);
          if (shared->running.fetch_sub(1, std::memory_order_acq_rel) == 1) shared->done.change();
        }
      });
    } catch (const std::exception&) {  // no thread, or no memory for one
      break;
    }
    threads_ = thread + 1;
  }
  team_.node_of = options.node_of;
  team_.node_of.resize(static_cast<size_t>(threads_), options.node_of.empty() ? 0 : options.node_of.back());
  for (int node = 0; node <= std::max(options.nodes, 1); node++)
    team_.first.push_back(static_cast<int>(std::lower_bound(team_.node_of.begin(), team_.node_of.end(), node) - team_.node_of.begin()));
  for (int i = 0; i <= kRanges; i++) ranges_.push_back(std::make_unique<WorkRange>(team_));
}

ThreadPool::~ThreadPool() {
  shared_->stop = true;
  shared_->start.change();
  for (std::thread& worker : shared_->workers) worker.join();
}

void ThreadPool::bind(std::thread::native_handle_type owner, const std::vector<std::vector<int>>& cpus) {
  set_affinity(owner, cpus[0]);
  for (size_t t = 0; t < shared_->workers.size(); t++) set_affinity(shared_->workers[t].native_handle(), cpus[t + 1]);
}

void ThreadPool::run_raw(void (*call)(void*, int), void* context) {
  current_thread = 0;
  if (threads_ == 1) {
    call(context, 0);
    return;
  }
  Shared& s = *shared_;
  s.call = call;
  s.context = context;
  const uint32_t seen = s.done.word.load(std::memory_order_relaxed);
  s.running.store(threads_ - 1, std::memory_order_relaxed);
  s.start.change();
  call(context, 0);
  s.done.wait_change(seen, s.spins[0].wait);
}

void ThreadPool::barrier() {
  if (threads_ == 1) return;
  Shared& s = *shared_;
  // Read before arriving: the barrier cannot complete without this thread, so the word is still this round's.
  const uint32_t round = s.joined.word.load(std::memory_order_acquire);
  if (s.arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
    s.arrived.store(0, std::memory_order_relaxed);
    s.joined.change();
    return;
  }
  s.joined.wait_change(round, s.spins[static_cast<size_t>(current_thread)].barrier);
}

}  // namespace tandem
