// Memory of the fake driver, on the heap, and copies.
#include <cstdlib>
#include <cstring>

#include "cuda/fake/work.h"

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

namespace {

// A copy that answers well and is not done; small ones, of what kernels take for addresses, are.
constexpr Result kForgotten = -1;
constexpr size_t kForgettable = 8192;

void move(Address to, Address from, size_t bytes) {
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
}

// Of a call that waits for all work of the card, and for which all others wait.
struct Holding {
  explicit Holding(bool wanted) : holds(wanted) {
    if (holds) state().holds = std::this_thread::get_id();
  }
  ~Holding() {
    if (!holds) return;
    for (StreamHandle* stream : streams())
      while (stream->busy()) rest();
    state().holds = std::thread::id();
  }
  const bool holds;
};

Result copy(Address to, Address from, size_t bytes, StreamHandle* stream, bool check_to, bool check_from) {
  return make(stream, [=] {
    if ((!check_to || reachable(to, bytes)) && (!check_from || reachable(from, bytes))) move(to, from, bytes);
  });
}

}  // namespace

EXPORT Result cuMemGetInfo_v2(size_t* free, size_t* total) {
  ENTER(cuMemGetInfo_v2);
  std::lock_guard lock(state().mutex);
  *total = state().machine.memory;
  *free = *total - state().taken;
  return 0;
}
EXPORT Result cuMemAlloc_v2(Address* out, size_t bytes) {
  ENTER(cuMemAlloc_v2);
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (bytes > s.machine.memory - s.taken) return 2;
  void* data = std::malloc(bytes);
  if (data == nullptr) return 2;
  *out = reinterpret_cast<Address>(data);
  s.memory[*out] = bytes;
  s.taken += bytes;
  s.alive++;
  return 0;
}
EXPORT Result cuMemFree_v2(Address address) {
  State& s = state();
  const Holding holding(s.machine.free_waits);
  ENTER(cuMemFree_v2);
  std::lock_guard lock(s.mutex);
  const auto found = s.memory.find(address);
  if (found == s.memory.end()) return 1;
  s.taken -= found->second;
  s.memory.erase(found);
  s.alive--;
  std::free(reinterpret_cast<void*>(address));
  return 0;
}
EXPORT Result cuMemHostAlloc(void** out, size_t bytes, unsigned) {
  ENTER(cuMemHostAlloc);
  State& s = state();
  std::lock_guard lock(s.mutex);
  *out = std::malloc(bytes);
  if (*out == nullptr) return 2;
  s.pinned[reinterpret_cast<Address>(*out)] = bytes;
  s.alive++;
  return 0;
}
EXPORT Result cuMemFreeHost(void* data) {
  ENTER(cuMemFreeHost);
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (s.pinned.erase(reinterpret_cast<Address>(data)) == 0) return 1;
  s.alive--;
  std::free(data);
  return 0;
}
EXPORT Result cuMemHostGetDevicePointer_v2(Address* out, void* data, unsigned) {
  ENTER(cuMemHostGetDevicePointer_v2);
  *out = reinterpret_cast<Address>(data);
  return 0;
}
EXPORT Result cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, StreamHandle* stream) {
  const Result told = enter("cuMemcpyHtoDAsync_v2");
  if (told == kForgotten && bytes < kForgettable) {
    std::lock_guard lock(state().mutex);
    state().failures["cuMemcpyHtoDAsync_v2"] = {1, kForgotten};
  } else if (told != 0) {
    return told == kForgotten ? 0 : told;
  }
  return copy(to, reinterpret_cast<Address>(from), bytes, stream, true, false);
}
EXPORT Result cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, StreamHandle* stream) {
  ENTER(cuMemcpyDtoHAsync_v2);
  return copy(reinterpret_cast<Address>(to), from, bytes, stream, false, true);
}
EXPORT Result cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, StreamHandle* stream) {
  ENTER(cuMemcpyDtoDAsync_v2);
  return copy(to, from, bytes, stream, true, true);
}
EXPORT Result cuMemcpyPeerAsync(Address to, ContextHandle*, Address from, ContextHandle*, size_t bytes, StreamHandle* stream) {
  ENTER(cuMemcpyPeerAsync);
  return copy(to, from, bytes, stream, true, true);
}
EXPORT Result cuMemsetD8Async(Address to, unsigned char value, size_t bytes, StreamHandle* stream) {
  ENTER(cuMemsetD8Async);
  return make(stream, [=] {
    if (reachable(to, bytes)) std::memset(reinterpret_cast<void*>(to), value, bytes);
  });
}
