// A libcuda.so.1 for tests: device memory is on the heap, kernels are functions of the host, each stream is a thread. It keeps
// the rules that are easily broken: bytes outside of an allocation lose the device, a capture whose streams were not joined is
// refused, and a graph's nodes run in any order that their edges allow. Linked with cuda/emulation/table.cc it also has Tandem's
// own kernels, over the emulation of the thread grid: whole models run.
#include "cuda/fake/fake.h"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "cuda/driver.h"
#include "cuda/emulation/table.h"

#define EXPORT extern "C" __attribute__((visibility("default")))

// Null where the library was linked without the kernels.
namespace tandem::cuda::emulation {
__attribute__((weak)) const Entry* find_entry(std::string_view name);
}

using namespace tandem::cuda;

namespace {

struct Kernel {
  FakeKernel function = nullptr;
  std::vector<size_t> sizes;
  const emulation::Entry* entry = nullptr;  // else: an emulated one
};

// One piece of work. `ready` false: it cannot begin yet.
struct Work {
  std::function<bool()> ready;
  std::function<void()> run;
};

struct Node {
  Work work;
  std::vector<size_t> after;
};

struct Capture {
  std::vector<Node> nodes;
  std::map<StreamHandle*, std::vector<size_t>> tips;  // what the next node of a stream comes after
  StreamHandle* origin = nullptr;
};

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

State& state() {
  static State& one = *new State;
  return one;
}
std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel>& all = *new std::map<std::string, Kernel>;
  return all;
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

struct Start {
  Start() { state().machine = parse(std::getenv("TANDEM_FAKE_CUDA")); }
} start;

// "symbol:n:result", as tandem_fake_fail, each time that it is another text. The mutex is held.
void expect_told() {
  static std::string& last = *new std::string;
  const char* const told = std::getenv("TANDEM_FAKE_CUDA_FAIL");
  if (told == nullptr || last == told) return;
  last = told;
  const size_t first = last.find(':'), second = last.find(':', first + 1);
  if (second != std::string::npos) state().failures[last.substr(0, first)] = {std::atoi(last.c_str() + first + 1), std::atoi(last.c_str() + second + 1)};
}

// What TANDEM_FAKE_CUDA_KERNEL says of a kernel: "tandem_rope:part". `part`: its last blocks do not run (of a single one: it does
// not); `hang`: it never ends.
enum class Fault { none, part, hang };
Fault fault_of(const char* kernel) {
  const char* const told = std::getenv("TANDEM_FAKE_CUDA_KERNEL");
  if (told == nullptr) return Fault::none;
  const std::string text = told;
  const size_t at = text.rfind(':');
  if (at == std::string::npos || text.substr(0, at) != kernel) return Fault::none;
  return text.substr(at + 1) == "hang" ? Fault::hang : Fault::part;
}

void rest() { std::this_thread::sleep_for(std::chrono::microseconds(20)); }

void lose(int code) {
  int none = 0;
  state().lost.compare_exchange_strong(none, code);
}

// What each call begins with: it is counted, and fails where it was told to.
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
#define ENTER(symbol)                                    \
  if (const Result code_ = enter(#symbol); code_ != 0) { \
    return code_;                                        \
  }

// A copy that answers well and is not done; small ones, of what kernels take for addresses, are.
constexpr Result kForgotten = -1;
constexpr size_t kForgettable = 8192;

bool within(const std::map<Address, size_t>& blocks, Address address, size_t bytes) {
  auto at = blocks.upper_bound(address);
  if (at == blocks.begin()) return false;
  --at;
  return address + bytes <= at->first + at->second;
}

// Bytes of the device, or pinned ones that it sees; else the device is lost, as a card would be.
bool reachable(Address address, size_t bytes) {
  State& s = state();
  std::lock_guard lock(s.mutex);
  if (within(s.memory, address, bytes) || within(s.pinned, address, bytes)) return true;
  lose(700);
  return false;
}

void move(Address to, Address from, size_t bytes) {
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
}

uint32_t* word(Address address) { return reinterpret_cast<uint32_t*>(address); }

}  // namespace

struct tandem::cuda::StreamHandle {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<Work> queue;
  bool closed = false;
  int pending = 0;
  std::shared_ptr<Capture> capture;
  std::thread thread{[this] { loop(); }};

  void loop() {
    for (;;) {
      Work work;
      {
        std::unique_lock lock(mutex);
        wake.wait(lock, [this] { return closed || !queue.empty(); });
        if (queue.empty()) return;
        work = std::move(queue.front());
        queue.pop_front();
      }
      while (!gone() && (state().stalled.load() || (work.ready && !work.ready()))) rest();
      if (!gone()) work.run();
      std::lock_guard lock(mutex);
      pending--;
    }
  }
  bool gone() {
    std::lock_guard lock(mutex);
    return closed || state().lost.load() != 0;
  }
  bool busy() {
    std::lock_guard lock(mutex);
    return pending > 0;
  }
  Result add(Work work) {
    if (capture) {
      const size_t index = capture->nodes.size();
      capture->nodes.push_back({std::move(work), capture->tips[this]});
      capture->tips[this] = {index};
      return 0;
    }
    std::lock_guard lock(mutex);
    queue.push_back(std::move(work));
    pending++;
    wake.notify_one();
    return 0;
  }
  void close() {
    {
      std::lock_guard lock(mutex);
      closed = true;
      wake.notify_one();
    }
    if (thread.joinable()) thread.join();
  }
};

struct tandem::cuda::EventHandle {
  std::shared_ptr<std::atomic<bool>> done = std::make_shared<std::atomic<bool>>(true);
  std::shared_ptr<Capture> capture;
  std::vector<size_t> after;
};
struct tandem::cuda::GraphHandle {
  std::vector<Node> nodes;
};
struct tandem::cuda::GraphExecHandle {
  std::shared_ptr<std::vector<Node>> nodes;
};
struct tandem::cuda::FunctionHandle {
  Kernel kernel;
  unsigned shared = 48 << 10;  // bytes of dynamic shared memory that a launch may ask for
};
struct tandem::cuda::ModuleHandle {
  std::map<std::string, std::unique_ptr<FunctionHandle>> functions;
};
struct tandem::cuda::ContextHandle {};

namespace {

// Made and not destroyed.
std::set<StreamHandle*>& streams() {
  static std::set<StreamHandle*>& all = *new std::set<StreamHandle*>;
  return all;
}

// Things of lost devices are never given back: here they are still known, and no leak.
std::set<const void*>& made() {
  static std::set<const void*>& all = *new std::set<const void*>;
  return all;
}

// Nodes in an order of chance among those that may begin.
void run_nodes(const std::vector<Node>& nodes, StreamHandle* stream) {
  static std::atomic<uint32_t> seed{1};
  std::mt19937 random(seed.fetch_add(1));
  std::vector<bool> done(nodes.size(), false);
  for (size_t left = nodes.size(); left > 0;) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
      bool may = !done[i];
      for (size_t k = 0; may && k < nodes[i].after.size(); k++) may = done[nodes[i].after[k]];
      if (may && (!nodes[i].work.ready || nodes[i].work.ready())) ready.push_back(i);
    }
    if (stream->gone()) return;
    if (ready.empty() || state().stalled.load()) {
      rest();
      continue;
    }
    const size_t chosen = ready[random() % ready.size()];
    nodes[chosen].work.run();
    done[chosen] = true;
    left--;
  }
}

Result make(StreamHandle* stream, std::function<void()> run, std::function<bool()> ready = {}) {
  return stream->add({std::move(ready), std::move(run)});
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
EXPORT void tandem_fake_kernel(const char* name, FakeKernel kernel, const size_t* sizes, size_t parameters) {
  kernels()[name] = {kernel, std::vector<size_t>(sizes, sizes + parameters), nullptr};
}
EXPORT int tandem_fake_calls(const char* symbol) {
  std::lock_guard lock(state().mutex);
  return state().calls[symbol];
}
EXPORT int tandem_fake_alive() { return state().alive.load(); }

EXPORT Result cuInit(unsigned) {
  ENTER(cuInit);
  return state().machine.gpus == 0 ? 100 : 0;
}
EXPORT Result cuDriverGetVersion(int* out) {
  *out = state().machine.version;
  return 0;
}
EXPORT Result cuGetErrorName(Result code, const char** out) {
  static const std::map<Result, const char*> names = {{2, "CUDA_ERROR_OUT_OF_MEMORY"}, {100, "CUDA_ERROR_NO_DEVICE"}, {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
                                                      {222, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"}, {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
                                                      {719, "CUDA_ERROR_LAUNCH_FAILED"}, {904, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"}};
  const auto found = names.find(code);
  if (found == names.end()) return 1;
  *out = found->second;
  return 0;
}
EXPORT Result cuGetErrorString(Result, const char** out) {
  *out = "of the fake driver";
  return 0;
}
EXPORT Result cuDeviceGetCount(int* out) {
  ENTER(cuDeviceGetCount);
  *out = state().machine.gpus;
  return 0;
}
EXPORT Result cuDeviceGet(DeviceNumber* out, int ordinal) {
  ENTER(cuDeviceGet);
  *out = ordinal;
  return ordinal < state().machine.gpus ? 0 : 101;
}
EXPORT Result cuDeviceGetName(char* out, int size, DeviceNumber) {
  ENTER(cuDeviceGetName);
  std::strncpy(out, state().machine.name.c_str(), static_cast<size_t>(size));
  return 0;
}
EXPORT Result cuDeviceGetAttribute(int* out, int which, DeviceNumber) {
  ENTER(cuDeviceGetAttribute);
  const Machine& m = state().machine;
  const std::map<int, int> values = {{13, 1000000}, {16, 100}, {36, 1000000}, {37, 4096}, {75, m.major}, {76, m.minor}, {97, m.shared()}};
  const auto found = values.find(which);
  if (found == values.end()) return 1;
  *out = found->second;
  return 0;
}
EXPORT Result cuDeviceTotalMem_v2(size_t* out, DeviceNumber) {
  ENTER(cuDeviceTotalMem_v2);
  *out = state().machine.memory;
  return 0;
}
EXPORT Result cuDeviceGetPCIBusId(char* out, int size, DeviceNumber device) {
  ENTER(cuDeviceGetPCIBusId);
  std::snprintf(out, static_cast<size_t>(size), "0000:%02x:00.0", device + 1);
  return 0;
}
EXPORT Result cuDevicePrimaryCtxRetain(ContextHandle** out, DeviceNumber) {
  ENTER(cuDevicePrimaryCtxRetain);
  static ContextHandle one;
  *out = &one;
  state().alive++;
  return 0;
}
EXPORT Result cuDevicePrimaryCtxRelease_v2(DeviceNumber) {
  state().alive--;
  return enter("cuDevicePrimaryCtxRelease_v2");
}
EXPORT Result cuCtxSetCurrent(ContextHandle*) {
  ENTER(cuCtxSetCurrent);
  return 0;
}
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
EXPORT Result cuStreamCreate(StreamHandle** out, unsigned) {
  ENTER(cuStreamCreate);
  *out = new StreamHandle;
  streams().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuStreamDestroy_v2(StreamHandle* stream) {
  ENTER(cuStreamDestroy_v2);
  stream->close();
  streams().erase(stream);
  delete stream;
  state().alive--;
  return 0;
}
EXPORT Result cuStreamQuery(StreamHandle* stream) {
  ENTER(cuStreamQuery);
  if (stream->capture) return 900;
  std::lock_guard lock(stream->mutex);
  return stream->pending == 0 ? 0 : 600;
}
EXPORT Result cuStreamWaitEvent(StreamHandle* stream, EventHandle* event, unsigned) {
  ENTER(cuStreamWaitEvent);
  if (event->capture) {
    if (stream->capture && stream->capture != event->capture) return 902;
    stream->capture = event->capture;
    std::vector<size_t>& tips = stream->capture->tips[stream];
    tips.insert(tips.end(), event->after.begin(), event->after.end());
    return 0;
  }
  if (stream->capture) return 905;
  return make(stream, [] {}, [done = event->done] { return done->load(); });
}
EXPORT Result cuStreamWriteValue32_v2(StreamHandle* stream, Address address, uint32_t value, unsigned) {
  ENTER(cuStreamWriteValue32_v2);
  return make(stream, [=] {
    if (reachable(address, 4)) __atomic_store_n(word(address), value, __ATOMIC_RELEASE);
  });
}
EXPORT Result cuStreamWaitValue32_v2(StreamHandle* stream, Address address, uint32_t value, unsigned flags) {
  ENTER(cuStreamWaitValue32_v2);
  if (flags != kWaitAtLeast) return 1;
  if (!reachable(address, 4)) return 700;
  return make(stream, [] {}, [=] { return static_cast<int32_t>(__atomic_load_n(word(address), __ATOMIC_ACQUIRE) - value) >= 0; });
}
EXPORT Result cuEventCreate(EventHandle** out, unsigned) {
  ENTER(cuEventCreate);
  *out = new EventHandle;
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuEventDestroy_v2(EventHandle* event) {
  ENTER(cuEventDestroy_v2);
  made().erase(event);
  delete event;
  state().alive--;
  return 0;
}
EXPORT Result cuEventRecord(EventHandle* event, StreamHandle* stream) {
  ENTER(cuEventRecord);
  event->capture = stream->capture;
  if (stream->capture) {
    event->after = stream->capture->tips[stream];
    return 0;
  }
  event->done = std::make_shared<std::atomic<bool>>(false);
  return make(stream, [done = event->done] { done->store(true); });
}
EXPORT Result cuModuleLoadData(ModuleHandle** out, const void*) {
  ENTER(cuModuleLoadData);
  if (state().machine.image != 0) return state().machine.image;
  *out = new ModuleHandle;
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuModuleUnload(ModuleHandle* module) {
  ENTER(cuModuleUnload);
  made().erase(module);
  delete module;
  state().alive--;
  return 0;
}
EXPORT Result cuModuleGetFunction(FunctionHandle** out, ModuleHandle* module, const char* name) {
  ENTER(cuModuleGetFunction);
  auto& function = module->functions[name];
  if (!function) {
    const auto found = kernels().find(name);
    const emulation::Entry* entry = found == kernels().end() && emulation::find_entry != nullptr ? emulation::find_entry(name) : nullptr;
    if (found != kernels().end()) function = std::make_unique<FunctionHandle>(FunctionHandle{found->second});
    else if (entry != nullptr) function = std::make_unique<FunctionHandle>(FunctionHandle{{nullptr, {entry->argument_bytes}, entry}});
    else return 500;
  }
  *out = function.get();
  return 0;
}
EXPORT Result cuFuncSetAttribute(FunctionHandle* function, int which, int value) {
  ENTER(cuFuncSetAttribute);
  if (which != kMaxDynamicSharedBytes || value > state().machine.shared()) return 1;
  function->shared = static_cast<unsigned>(value);
  return 0;
}
EXPORT Result cuLaunchKernel(FunctionHandle* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                             StreamHandle* stream, void** arguments, void**) {
  ENTER(cuLaunchKernel);
  if (gx * gy * gz == 0 || bx * by * bz == 0 || bx * by * bz > 1024 || shared > function->shared) return 1;
  // Parameters are read now, as the driver does it.
  auto values = std::make_shared<std::vector<std::vector<uint8_t>>>();
  for (size_t i = 0; i < function->kernel.sizes.size(); i++) {
    const uint8_t* from = static_cast<const uint8_t*>(arguments[i]);
    values->emplace_back(from, from + function->kernel.sizes[i]);
  }
  if (function->kernel.entry != nullptr) {
    if (gy > 65535 || gz > 65535 || by * bz != 1) return 1;
    const Fault fault = fault_of(function->kernel.entry->name);
    if (fault == Fault::hang) return make(stream, [] {}, [] { return false; });
    if (fault == Fault::part) gx /= 2;
    if (gx == 0) return 0;
    return make(stream, [=, entry = function->kernel.entry] {
      const std::string error = entry->run({gx, gy, gz}, bx, shared, (*values)[0].data(), emulation::Order::forward);
      if (error.empty()) return;
      std::fprintf(stderr, "%s: %s\n", entry->name, error.c_str());
      lose(719);
    });
  }
  return make(stream, [=, run = function->kernel.function] {
    const unsigned grid[3] = {gx, gy, gz}, block[3] = {bx, by, bz};
    std::vector<void*> pointers;
    for (auto& value : *values) pointers.push_back(value.data());
    run(grid, block, shared, pointers.data());
  });
}
EXPORT Result cuStreamBeginCapture_v2(StreamHandle* stream, int) {
  ENTER(cuStreamBeginCapture_v2);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->tips[stream];
  return 0;
}
EXPORT Result cuStreamEndCapture(StreamHandle* stream, GraphHandle** out) {
  const Result told = enter("cuStreamEndCapture");
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture || capture->origin != stream) return 903;
  // All that was captured has to come before the end of the stream that began.
  std::set<size_t> joined;
  std::vector<size_t> open = capture->tips[stream];
  while (!open.empty()) {
    const size_t at = open.back();
    open.pop_back();
    if (!joined.insert(at).second) continue;
    open.insert(open.end(), capture->nodes[at].after.begin(), capture->nodes[at].after.end());
  }
  for (auto& [member, tips] : capture->tips) member->capture = nullptr;
  if (told != 0) return told;  // the capture is over all the same
  if (joined.size() != capture->nodes.size()) return 904;
  *out = new GraphHandle{capture->nodes};
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuGraphDestroy(GraphHandle* graph) {
  made().erase(graph);
  delete graph;
  state().alive--;
  return enter("cuGraphDestroy");
}
EXPORT Result cuGraphInstantiateWithFlags(GraphExecHandle** out, GraphHandle* graph, unsigned long long) {
  ENTER(cuGraphInstantiateWithFlags);
  *out = new GraphExecHandle{std::make_shared<std::vector<Node>>(graph->nodes)};
  made().insert(*out);
  state().alive++;
  return 0;
}
EXPORT Result cuGraphLaunch(GraphExecHandle* graph, StreamHandle* stream) {
  ENTER(cuGraphLaunch);
  return make(stream, [nodes = graph->nodes, stream] { run_nodes(*nodes, stream); });
}
EXPORT Result cuGraphExecDestroy(GraphExecHandle* graph) {
  ENTER(cuGraphExecDestroy);
  made().erase(graph);
  delete graph;
  state().alive--;
  return 0;
}
