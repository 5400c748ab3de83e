// The thread grid of a GPU on the host, so that kernels are tested on machines that have none.
//
// Every thread of a block is a fiber; blocks run one after the other. A fiber runs until it waits for others: at a barrier
// of the block or at a warp-wide exchange. The order in which fibers are resumed is a parameter: a kernel that lacks a
// barrier gives other numbers in another order, and one whose threads do not all arrive is told by name of the wait. Copies into
// shared memory that run beside the work are made when they are waited for; from their beginning on the place holds NaN.
// Not imitated: time, memory that is written by several blocks at once, warps that run ahead of one another inside an exchange.
//
// Everything happens on the calling thread; several threads may each run a launch of their own.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

#define __device__
#define __shared__ static thread_local
#define __forceinline__ inline

namespace tandem::cuda {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};
inline thread_local Dim3 gridDim, blockDim, blockIdx, threadIdx;

struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(8) uint2 {
  uint32_t x, y;
};

namespace emulation {

inline constexpr int kWarp = 32;
inline constexpr int kMaxThreads = 1024;
inline constexpr int kExchangeWords = 8;
inline constexpr size_t kStack = 64 << 10;

// In which order the fibers of a block take their turns. Forward and backward: a warp runs as far ahead of the others as it can,
// the first or the last one leading, so that what is written too early is read. Shuffled: one turn each, in any order.
enum class Order { forward, backward, shuffled };

// A copy into shared memory that was begun; from null: zeros.
struct AsyncCopy {
  void* to;
  const void* from;
  size_t bytes;
  int group;
};

struct Fiber {
  jmp_buf at;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  bool prepared = false, entered = false, done = true;
  const char* waits = nullptr;        // name of what it waits for; null: it can go on
  const uint64_t* generation = nullptr;
  uint64_t seen = 0;
  unsigned exchanges = 0;
  std::vector<AsyncCopy> copies;  // begun and not waited for, the oldest first
  int groups = 0;                 // committed so far
#if defined(__SANITIZE_THREAD__)
  void* tsan = nullptr;
#endif
};

struct Warp {
  uint64_t generation = 0;
  int arrived = 0;
  const char* kind = nullptr;
  uint32_t words[2][kWarp][kExchangeWords];  // by parity of the exchange: nobody can be two exchanges ahead
};

// One block at a time.
class Machine {
 public:
  static Machine& current() {
    static thread_local Machine machine;
    return machine;
  }

  // Empty, or what the kernel did wrong. `shared`: bytes of dynamic shared memory.
  std::string run(unsigned threads, const std::function<void()>& body, Order order, unsigned shared) {
    body_ = &body;
    threads_ = static_cast<int>(threads);
    error_.clear();
    if (shared != shared_bytes_) dynamic_shared_.reset(shared == 0 ? nullptr : new uint8_t[shared]);  // exactly as much: sanitizers see the end
    shared_bytes_ = shared;
    if (shared > 0) std::memset(dynamic_shared_.get(), 0xff, shared);
    arrived_ = 0;
    warps_.assign((threads + kWarp - 1) / kWarp, Warp());
    if (fibers_.size() < threads) fibers_.resize(threads);
    for (int i = 0; i < threads_; i++) prepare(fibers_[i]);
    std::vector<int> turns(threads);
    for (int i = 0; i < threads_; i++) turns[i] = order == Order::backward ? threads_ - 1 - i : i;
    uint64_t state = 88172645463325252u;
    int left = threads_;
    while (left > 0 && error_.empty()) {
      if (order == Order::shuffled) {
        for (int i = threads_ - 1; i > 0; i--) {
          state ^= state << 13, state ^= state >> 7, state ^= state << 17;
          std::swap(turns[i], turns[state % static_cast<uint64_t>(i + 1)]);
        }
      }
      bool moved = false;
      const int step = order == Order::shuffled ? threads_ : kWarp;
      for (int first = 0; first < threads_ && error_.empty(); first += step) {
        while (error_.empty() && turn(&turns[static_cast<size_t>(first)], step, left)) {
          moved = true;
          if (order == Order::shuffled) break;
        }
      }
      if (!moved) stuck();
    }
    for (int i = 0; i < threads_; i++) {
      if (!fibers_[i].done) fibers_[i].prepared = false;  // left in the middle: begins anew next time
    }
    return error_;
  }

  void fail(const std::string& what) {
    if (error_.empty()) error_ = what + "; " + place();
  }

  void barrier() {
    if (++arrived_ == threads_) {
      arrived_ = 0;
      generation_++;
      return;
    }
    wait("__syncthreads", &generation_);
  }

  // Gives `count` words to the warp, waits for the other lanes, and says where the words of all lie.
  const uint32_t (*exchange(const char* kind, const uint32_t* words, int count))[kExchangeWords] {
    const int lane = index_ % kWarp;
    Warp& warp = warps_[static_cast<size_t>(index_ / kWarp)];
    auto& slots = warp.words[fibers_[index_].exchanges++ & 1];
    std::memcpy(slots[lane], words, static_cast<size_t>(count) * 4);
    if (warp.arrived == 0) warp.kind = kind;
    else if (std::strcmp(warp.kind, kind) != 0) fail(std::string("lanes of a warp meet in the same operation; one is in ") + warp.kind + ", one in " + kind);
    if (++warp.arrived == kWarp) {
      warp.arrived = 0;
      warp.generation++;
    } else {
      wait(kind, &warp.generation);
    }
    return slots;
  }

  int lane() const { return index_ % kWarp; }

  void* dynamic_shared() {
    if (shared_bytes_ == 0) fail("a kernel with dynamic shared memory is launched with some");
    return dynamic_shared_.get();
  }

  void begin_copy(void* to, const void* from, size_t bytes) {
    Fiber& fiber = fibers_[index_];
    std::memset(to, 0xff, bytes);
    fiber.copies.push_back({to, from, bytes, fiber.groups});
  }
  void commit_copies() { fibers_[index_].groups++; }
  // All but the `left` youngest groups; what was not committed stays under way.
  void finish_copies(int left) {
    Fiber& fiber = fibers_[index_];
    size_t done = 0;
    for (; done < fiber.copies.size() && fiber.copies[done].group < fiber.groups - left; done++) {
      const AsyncCopy& copy = fiber.copies[done];
      if (copy.from == nullptr) std::memset(copy.to, 0, copy.bytes);
      else std::memcpy(copy.to, copy.from, copy.bytes);
    }
    fiber.copies.erase(fiber.copies.begin(), fiber.copies.begin() + static_cast<std::ptrdiff_t>(done));
  }

 private:
  std::string place() const {
    const auto text = [](const Dim3& d) { return "(" + std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z) + ")"; };
    return "block " + text(blockIdx) + ", thread " + std::to_string(index_);
  }

  // Gives each of these fibers a turn that can go on; false where none could.
  bool turn(const int* indices, int count, int& left) {
    bool moved = false;
    for (int k = 0; k < count && error_.empty(); k++) {
      Fiber& fiber = fibers_[static_cast<size_t>(indices[k])];
      if (fiber.done || (fiber.waits != nullptr && *fiber.generation == fiber.seen)) continue;
      fiber.waits = nullptr;
      moved = true;
      resume(indices[k]);
      if (fiber.done) left--;
    }
    return moved;
  }

  void stuck() {
    for (int i = 0; i < threads_; i++) {
      if (fibers_[i].done) continue;
      index_ = i;
      return fail(std::string("all threads arrive at a wait; some have ended or wait elsewhere while one is in ") + fibers_[i].waits);
    }
  }

  void wait(const char* kind, const uint64_t* generation) {
    Fiber& fiber = fibers_[index_];
    fiber.waits = kind;
    fiber.generation = generation;
    fiber.seen = *generation;
    leave(fiber);
  }

  static void enter() { current().life(); }

  // A fiber lives on from block to block.
  void life() {
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_size_);
#endif
    for (;;) {
      (*body_)();
      fibers_[index_].done = true;
      leave(fibers_[index_]);
    }
  }

  void prepare(Fiber& fiber) {
    fiber.done = false;
    fiber.waits = nullptr;
    fiber.exchanges = 0;
    fiber.copies.clear();
    fiber.groups = 0;
    if (fiber.prepared) return;
    if (!fiber.stack) fiber.stack = std::make_unique<char[]>(kStack);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, enter, 0);
    fiber.prepared = true;
    fiber.entered = false;
#if defined(__SANITIZE_THREAD__)
    if (fiber.tsan == nullptr) fiber.tsan = __tsan_create_fiber(0);
#endif
  }

  // swapcontext asks the kernel for the signal mask at every turn; only the first turn of a fiber goes by contexts.
  void resume(int index) {
    Fiber& fiber = fibers_[index];
    index_ = index;
    threadIdx = {static_cast<unsigned>(index), 0, 0};
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, fiber.stack.get(), kStack);
#endif
#if defined(__SANITIZE_THREAD__)
    scheduler_tsan_ = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(fiber.tsan, 0);
#endif
    if (_setjmp(scheduler_) == 0) {
      if (fiber.entered) _longjmp(fiber.at, 1);
      fiber.entered = true;
      setcontext(&fiber.context);
    }
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, nullptr, nullptr);
#endif
  }

  void leave(Fiber& fiber) {
#if defined(__SANITIZE_ADDRESS__)
    void* fake = nullptr;
    __sanitizer_start_switch_fiber(&fake, scheduler_stack_, scheduler_size_);
#endif
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(scheduler_tsan_, 0);
#endif
    if (_setjmp(fiber.at) == 0) _longjmp(scheduler_, 1);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake, &scheduler_stack_, &scheduler_size_);
#endif
  }

  const std::function<void()>* body_ = nullptr;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  jmp_buf scheduler_;
  uint64_t generation_ = 0;
  int threads_ = 0, arrived_ = 0, index_ = 0;
  std::unique_ptr<uint8_t[]> dynamic_shared_;
  unsigned shared_bytes_ = 0;
  std::string error_;
#if defined(__SANITIZE_ADDRESS__)
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_size_ = 0;
#endif
#if defined(__SANITIZE_THREAD__)
  void* scheduler_tsan_ = nullptr;
#endif
};

// Runs body once per thread of the grid. Empty, or what the kernel did wrong; then the rest of the grid has not run.
// `shared`: bytes of dynamic shared memory a block.
inline std::string launch(Dim3 grid, unsigned threads, const std::function<void()>& body, Order order = Order::forward, unsigned shared = 0) {
  if (threads == 0 || threads > kMaxThreads || threads % kWarp != 0) return "blocks have whole warps, up to 1024 threads; given " + std::to_string(threads);
  gridDim = grid;
  blockDim = {threads, 1, 1};
  for (unsigned z = 0; z < grid.z; z++) {
    for (unsigned y = 0; y < grid.y; y++) {
      for (unsigned x = 0; x < grid.x; x++) {
        blockIdx = {x, y, z};
        std::string error = Machine::current().run(threads, body, order, shared);
        if (!error.empty()) return error;
      }
    }
  }
  return {};
}

template <typename T>
static inline T exchanged(const char* kind, T value, int from) {
  static_assert(sizeof(T) % 4 == 0);
  uint32_t words[sizeof(T) / 4];
  std::memcpy(words, &value, sizeof value);
  const auto slots = Machine::current().exchange(kind, words, sizeof(T) / 4);
  std::memcpy(&value, slots[from & 31], sizeof value);
  return value;
}

}  // namespace emulation

static inline void __syncthreads() { emulation::Machine::current().barrier(); }

static inline void __syncwarp(uint32_t = 0xffffffffu) { emulation::exchanged("__syncwarp", 0u, 0); }

template <typename T>
static inline T __shfl_xor_sync(uint32_t, T value, int mask) {
  return emulation::exchanged("__shfl_xor_sync", value, emulation::Machine::current().lane() ^ mask);
}

template <typename T>
static inline T __shfl_sync(uint32_t, T value, int lane) {
  return emulation::exchanged("__shfl_sync", value, lane);
}

// Which lanes have the same value.
static inline uint32_t __match_any_sync(uint32_t, int32_t value) {
  const uint32_t own = static_cast<uint32_t>(value);
  const auto words = emulation::Machine::current().exchange("__match_any_sync", &own, 1);
  uint32_t same = 0;
  for (int lane = 0; lane < emulation::kWarp; lane++) same |= static_cast<uint32_t>(words[lane][0] == own) << lane;
  return same;
}

static inline int __popc(uint32_t bits) { return __builtin_popcount(bits); }

template <typename T>
static inline T atomicAdd(T* at, T value) {
  const T before = *at;
  *at += value;
  return before;
}

}  // namespace tandem::cuda
