#include "cuda/fake/state.h"

#include <chrono>
#include <cstdlib>
#include <sstream>

namespace tandem::cuda::fake {

State& state() {
  static State& one = *new State;
  return one;
}

Machine parse(const char* text) {
  Machine machine;
  std::stringstream list(text == nullptr ? "" : text);
  for (std::string entry; std::getline(list, entry, ';');) {
    const size_t at = entry.find('=');
    const std::string key = entry.substr(0, at), value = at == std::string::npos ? "" : entry.substr(at + 1);
    if (key == "version") machine.version = std::atoi(value.c_str());
    if (key == "gpus") machine.gpus = std::atoi(value.c_str());
    if (key == "name") machine.name = value;
    if (key == "memory") machine.memory = std::strtoull(value.c_str(), nullptr, 10);
    if (key == "free") machine.free_waits = value == "waits";
    if (key == "image") machine.image = std::atoi(value.c_str());
    if (key == "capability") {
      machine.major = std::atoi(value.c_str());
      machine.minor = std::atoi(value.substr(value.find('.') + 1).c_str());
    }
  }
  return machine;
}

static struct Start {
  Start() { state().machine = parse(std::getenv("TANDEM_FAKE_CUDA")); }
} start;

// "symbol:n:result", as tandem_fake_fail, each time that it is another text. The mutex is held.
static void expect_told() {
  static std::string& last = *new std::string;
  const char* const told = std::getenv("TANDEM_FAKE_CUDA_FAIL");
  if (told == nullptr || last == told) return;
  last = told;
  const size_t first = last.find(':'), second = last.find(':', first + 1);
  if (second != std::string::npos) state().failures[last.substr(0, first)] = {std::atoi(last.c_str() + first + 1), std::atoi(last.c_str() + second + 1)};
}

void rest() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

void lose(int code) {
  int none = 0;
  state().lost.compare_exchange_strong(none, code);
}

Result enter(const char* symbol) {
  State& s = state();
  for (std::thread::id holder; (holder = s.holds.load()) != std::thread::id() && holder != std::this_thread::get_id();) rest();
  std::lock_guard lock(s.mutex);
  expect_told();
  s.calls[symbol]++;
  if (const int lost = s.lost.load()) return lost;
  const auto told = s.failures.find(symbol);
  if (told == s.failures.end() || --told->second.first > 0) return 0;
  const int code = told->second.second;
  s.failures.erase(told);
  if (code >= 700 && code < 800) lose(code);
  return code;
}

static bool within(const std::map<Address, size_t>& blocks, Address address, size_t bytes) {
  auto at = blocks.upper_bound(address);
  if (at == blocks.begin()) return false;
  --at;
  return address + bytes <= at->first + at->second;
}

bool reachable(Address address, size_t bytes) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (within(s.memory, address, bytes) || within(s.pinned, address, bytes)) return true;
  lose(700);
  return false;
}

std::set<const void*>& made() {
  static std::set<const void*>& all = *new std::set<const void*>;
  return all;
}

}  // namespace tandem::cuda::fake
