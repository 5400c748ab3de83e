// What the fake driver knows: the machine that it plays, what it was told to do wrong, what was made and what was lost. Its calls are in
// devices.cc, memory.cc, streams.cc, graphs.cc and kernels.cc.
#pragma once

#include <atomic>
#include <cstddef>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>

#include "cuda/driver.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

namespace tandem::cuda::fake {

struct Machine {
  int version = 13000, gpus = 1, major = 9, minor = 0, image = 0;
  size_t memory = 1000000000;
  bool free_waits = false;
  std::string name = "Fake";
  // Bytes a block may have, as cards of the capability give them.
  int shared() const { return major == 9 || major == 10 ? 232448 : major == 8 && minor == 0 ? 166912 : 101376; }
};

struct State {
  std::mutex mutex;
  Machine machine;
  std::map<std::string, std::pair<int, int>> failures;  // symbol → calls left, result
  std::map<std::string, int> calls;
  std::map<Address, size_t> memory;
  std::map<Address, size_t> pinned;
  size_t taken = 0;
  std::atomic<int> alive{0};
  std::atomic<int> lost{0};
  std::atomic<bool> stalled{false};
  std::atomic<std::thread::id> holds{};  // this thread's call holds up all others
};
State& state();

// A machine as fake.h has it in words.
Machine parse(const char* text);

// What each call begins with: it is counted, and fails where it was told to.
Result enter(const char* symbol);
#define ENTER(symbol)                                    \
  if (const Result code_ = enter(#symbol); code_ != 0) { \
    return code_;                                        \
  }

void lose(int code);

// A moment, for those who wait.
void rest();

// Bytes of the device, or pinned ones that it sees; else the device is lost, as a card would be.
bool reachable(Address address, size_t bytes);

// Things of lost devices are never given back: here they are still known, and no leak.
std::set<const void*>& made();

}  // namespace tandem::cuda::fake
