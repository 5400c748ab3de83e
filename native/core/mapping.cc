#include "core/mapping.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#include <utility>

namespace tandem {

namespace {

// What the handler may look at: no locks, no memory of its own. A slot is free at begin 0 and being filled at begin 1.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
  std::atomic<bool> lost{false};
};
constexpr size_t kSlots = 4096;  // files mapped at once; the largest public checkpoints have some 200
Slot slots[kSlots];
std::atomic<size_t> used{0};     // no slot from here on was ever taken
struct sigaction previous;

// Async-signal-safe: atomics, one system call, errno restored.
bool replace_by_zeros(uintptr_t address) {
  const size_t count = used.load(std::memory_order_acquire);
  for (size_t i = 0; i < count; i++) {
    const uintptr_t begin = slots[i].begin.load(std::memory_order_acquire);
    const uintptr_t end = slots[i].end.load(std::memory_order_acquire);
    if (begin <= 1 || address < begin || address >= end) continue;
    slots[i].lost.store(true, std::memory_order_release);
    // Whole, so that a pass over a file that is gone faults once and not at every page.
    const int saved = errno;
    const long result = syscall(SYS_mmap, begin, end - begin, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    errno = saved;
    return static_cast<uintptr_t>(result) == begin;
  }
  return false;
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const bool fault = info->si_code > 0;  // raised by the kernel, not by kill()
  if (fault && replace_by_zeros(reinterpret_cast<uintptr_t>(info->si_addr))) return;
  if ((previous.sa_flags & SA_SIGINFO) != 0) {
    previous.sa_sigaction(signal, info, context);
  } else if (previous.sa_handler == SIG_IGN && !fault) {
    return;
  } else if (previous.sa_handler == SIG_DFL || previous.sa_handler == SIG_IGN) {
    // As if we were not here: the instruction faults again and ends the process; a sent signal is sent again.
    struct sigaction standard = {};
    standard.sa_handler = SIG_DFL;
    sigaction(signal, &standard, nullptr);
    if (!fault) raise(signal);
  } else {
    previous.sa_handler(signal);
  }
}

void install_handler() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = on_bus_error;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, nullptr, &previous);
    sigaction(SIGBUS, &action, nullptr);
  });
}

}  // namespace

Mapping& Mapping::operator=(Mapping&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  slot_ = other.slot_;
  return *this;
}

bool Mapping::map(int descriptor, size_t size) {
  release();
  install_handler();
  size_t slot = 0;
  for (uintptr_t free = 0; slot < kSlots && !slots[slot].begin.compare_exchange_strong(free, 1); free = 0) slot++;
  if (slot == kSlots) {
    errno = EMFILE;
    return false;
  }
  void* mapping = mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  if (mapping == MAP_FAILED) {
    slots[slot].begin.store(0);
    return false;
  }
  madvise(mapping, size, MADV_HUGEPAGE);
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const uintptr_t begin = reinterpret_cast<uintptr_t>(mapping);
  slots[slot].lost.store(false);
  slots[slot].end.store(begin + (size + page - 1) / page * page);
  slots[slot].begin.store(begin, std::memory_order_release);
  for (size_t count = used.load(); count <= slot && !used.compare_exchange_weak(count, slot + 1);) continue;
  data_ = static_cast<const uint8_t*>(mapping);
  size_ = size;
  slot_ = slot;
  return true;
}

void Mapping::release() {
  if (data_ == nullptr) return;
  slots[slot_].begin.store(0, std::memory_order_release);
  munmap(const_cast<uint8_t*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

bool Mapping::lost() const { return data_ != nullptr && slots[slot_].lost.load(std::memory_order_acquire); }

bool Mapping::populate(size_t begin, size_t end) const {
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif
  const size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  begin = begin / page * page;
  for (;;) {
    if (madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_POPULATE_READ) == 0) return true;
    if (errno != EAGAIN && errno != EINTR) return false;
  }
}

}  // namespace tandem
