// What tests tell the fake driver (fake.h).
#include <cstdlib>

#include "cuda/fake/fake.h"
#include "cuda/fake/work.h"

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

EXPORT void tandem_fake_reset(const char* machine) {
  State& s = state();
  for (StreamHandle* stream : streams()) stream->close();  // what a lost device kept
  std::lock_guard lock(s.mutex);
  s.machine = parse(machine);
  s.failures.clear();
  s.calls.clear();
  s.lost = 0;
  s.alive = 0;
  for (const auto& [address, bytes] : s.memory) std::free(reinterpret_cast<void*>(address));
  s.memory.clear();
  s.taken = 0;
  s.stalled = false;
}
EXPORT void tandem_fake_fail(const char* symbol, int n, int code) {
  std::lock_guard lock(state().mutex);
  state().failures[symbol] = {n, code};
}
EXPORT void tandem_fake_stall(bool on) { state().stalled = on; }
EXPORT int tandem_fake_calls(const char* symbol) {
  std::lock_guard lock(state().mutex);
  return state().calls[symbol];
}
EXPORT int tandem_fake_alive() { return state().alive.load(); }
