#include "cuda/mailbox.h"

#include <string>
#include <thread>

namespace tandem::cuda {

namespace {

using Clock = std::chrono::steady_clock;

// A hand-over takes some ten microseconds: so long a core is kept. Then others may have it, then it sleeps.
constexpr auto kSpin = std::chrono::microseconds(200);
constexpr auto kYield = std::chrono::milliseconds(5);
constexpr auto kSleep = std::chrono::microseconds(50);
constexpr int kSpinsBetweenClocks = 64;

void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

void Mailbox::begin() {
  for (uint32_t lane = 0; lane < kLanes; lane++) {
    __atomic_store_n(word(posted_offset(lane)), 0u, __ATOMIC_RELEASE);
    __atomic_store_n(word(done_offset(lane)), 0u, __ATOMIC_RELEASE);
  }
  std::lock_guard lock(mutex_);
  why_ = {};
  aborted_.store(false, std::memory_order_release);
}

Status Mailbox::take(uint32_t n, const Watch& watch) {
  const uint32_t* const posted = word(posted_offset(n));
  const auto start = Clock::now();
  for (;;) {
    for (int i = 0; i < kSpinsBetweenClocks; i++) {
      if (aborted_.load(std::memory_order_acquire)) return status();
      const uint32_t seen = __atomic_load_n(posted, __ATOMIC_ACQUIRE);
      if (seen == n) return {};
      if (seen > n)
        return Status(Code::native_failed, "[native] a GPU posts every section of a pass in turn; section " + std::to_string(seen) + " came where " +
                                               std::to_string(n) + " was due; report this with the output of tandem explain");
      relax();
    }
    const auto waited = Clock::now() - start;
    if (waited < kSpin) continue;
    if (watch.alive) TANDEM_TRY(watch.alive());
    if (waited > watch.limit)
      return Status(Code::native_failed, "[native] a GPU goes on while a pass runs; it handed nothing over for " + std::to_string(watch.limit.count()) +
                                             " ms (section " + std::to_string(n) + "); look at nvidia-smi and dmesg");
    if (waited < kYield) std::this_thread::yield();
    else std::this_thread::sleep_for(kSleep);
  }
}

void Mailbox::done(uint32_t n) {
  uint32_t* const at = word(done_offset(n));
  uint32_t before = __atomic_load_n(at, __ATOMIC_RELAXED);
  // What was released stays released.
  while (before < n && !__atomic_compare_exchange_n(at, &before, n, false, __ATOMIC_RELEASE, __ATOMIC_RELAXED)) {
  }
}

void Mailbox::abort(Status why) {
  {
    std::lock_guard lock(mutex_);
    if (aborted_.load(std::memory_order_relaxed)) return;
    why_ = std::move(why);
    aborted_.store(true, std::memory_order_release);
  }
  for (uint32_t lane = 0; lane < kLanes; lane++) __atomic_store_n(word(done_offset(lane)), kReleased, __ATOMIC_RELEASE);
}

Status Mailbox::status() const {
  std::lock_guard lock(mutex_);
  return why_;
}

}  // namespace tandem::cuda
