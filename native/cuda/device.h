// One GPU in use: memory, streams, events, kernels and graphs, each result of the driver checked.
//
// An error that the driver cannot recover from (a wild address, a lost bus) makes the device `lost`: every later call fails at
// once with what was lost first, nothing asks the driver again, and freeing does nothing. Calls may come from any thread; a
// stream belongs to one thread at a time.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/status.h"
#include "cuda/driver.h"
#include "cuda/gpu_info.h"

namespace tandem::cuda {

class Device;

// What a handle of the driver is given back with; moves, does not copy.
template <typename Handle> class Owned {
 public:
  Owned() = default;
  Owned(Device* device, Handle handle, Result (*Driver::*free)(Handle)) : device_(device), handle_(handle), free_(free) {}
  Owned(Owned&& other) noexcept { *this = std::move(other); }
  Owned& operator=(Owned&& other) noexcept {
    release();
    device_ = other.device_;
    handle_ = other.handle_;
    free_ = other.free_;
    other.device_ = nullptr;
    other.handle_ = Handle();
    return *this;
  }
  ~Owned() { release(); }
  Handle get() const { return handle_; }
  Device* device() const { return device_; }
  explicit operator bool() const { return device_ != nullptr; }
  void release();

 private:
  Device* device_ = nullptr;
  Handle handle_ = Handle();
  Result (*Driver::*free_)(Handle) = nullptr;
};

using Memory = Owned<Address>;  // on the device
using Event = Owned<EventHandle*>;
using GraphExec = Owned<GraphExecHandle*>;

// Memory of the machine that the GPU reads and writes at `address`, pinned. Zeroed.
class Pinned {
 public:
  uint8_t* data() const { return static_cast<uint8_t*>(memory_.get()); }
  size_t size() const { return size_; }
  Address address() const { return address_; }

 private:
  friend class Device;
  Owned<void*> memory_;
  size_t size_ = 0;
  Address address_ = 0;
};

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

// How long streams may take to come to rest after what failed or was given up: what they were given goes on to its end, and a prompt's
// pass may take many seconds.
inline constexpr std::chrono::milliseconds kSettle{60000};

// Work in order. Everything returns before it is done; `query` and `finish` say how far it is.
class Stream {
 public:
  // Host memory is pinned, or the copy is not one beside the work.
  Status copy_in(Address to, const void* from, size_t bytes);
  Status copy_out(void* to, Address from, size_t bytes);
  Status copy_within(Address to, Address from, size_t bytes);
  Status copy_peer(Address to, const Device& target, Address from, size_t bytes);
  Status fill(Address to, uint8_t value, size_t bytes);
  // `arguments`: a pointer to each parameter; shared: bytes of dynamic shared memory.
  Status launch(FunctionHandle* function, Grid grid, Grid block, unsigned shared, void** arguments);
  Status record(const Event& event);
  // What follows begins after what was recorded; of another stream, also of another device.
  Status wait(const Event& event);
  // Words that the CPU sees, and waits for: written after all before it is done, `wait` until (int32)(word - value) >= 0.
  Status write_value(Address word, uint32_t value);
  Status wait_value(Address word, uint32_t value);
  // Work between is not done but kept: streams that wait for this one's events join in, and must be waited for before the end.
  Status begin_capture();
  Status end_capture(GraphExec& out);
  Status launch(const GraphExec& graph);
  // Whether all is done.
  Status query(bool& done);
  // Waits with back-off, never inside the driver: `stop` may end it at any time with a Status; none: forever.
  Status finish(const std::function<Status()>& stop = {});
  // The same of what was given alone, outside of passes: what takes longer than a minute hangs (TANDEM_CUDA_LIMIT: other seconds), and its
  // device counts as lost, since nobody can end it. `what` names it.
  Status finish_alone(const std::string& what);

  Device& device() const { return *handle_.device(); }
  StreamHandle* handle() const { return handle_.get(); }
  explicit operator bool() const { return static_cast<bool>(handle_); }

 private:
  friend class Device;
  const Driver& driver() const;
  Status check(Result code, const char* what) const;
  Owned<StreamHandle*> handle_;
};

class Device {
 public:
  // Refuses what `describe_gpu` refuses. Outlives all that it hands out.
  static Status open(int ordinal, const KernelFile& kernels, std::unique_ptr<Device>& out);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const GpuInfo& info() const { return info_; }
  // `what` names the purpose in the error, which says how much was asked for and how much is free.
  Status allocate(size_t bytes, const char* what, Memory& out);
  Status pin(size_t bytes, const char* what, Pinned& out);
  Status free_memory(size_t& bytes);
  Status stream(Stream& out);
  Status event(Event& out);
  // A kernel of the file by name; looked up once. `shared`: bytes of dynamic shared memory that its blocks will ask for; refused where the card
  // has less than that (info().shared_memory).
  Status function(const std::string& name, FunctionHandle*& out, unsigned shared = 0);

  bool lost() const { return lost_.load(std::memory_order_acquire); }
  // Why; of a device that is lost.
  Status loss() const;
  // It counts as lost from now on: it hangs, and nobody knows what it still writes.
  void give_up(const Status& why);
  const Driver& driver() const { return *driver_; }
  ContextHandle* context() const { return context_; }

  // For Stream and Owned: makes the device current on this thread, unless it is lost.
  Status enter();
  Status check(Result code, const char* what);

 private:
  Device(const Driver* driver, GpuInfo info) : driver_(driver), info_(std::move(info)) {}
  Status load(const KernelFile& kernels);

  const Driver* driver_;
  GpuInfo info_;
  DeviceNumber number_ = 0;
  ContextHandle* context_ = nullptr;
  ModuleHandle* module_ = nullptr;
  std::mutex mutex_;
  struct Function {
    FunctionHandle* handle = nullptr;
    unsigned shared = 0;  // what it may have so far
  };
  std::map<std::string, Function> functions_;
  std::atomic<bool> lost_{false};
  mutable std::mutex lost_mutex_;
  std::string loss_;
};

template <typename Handle> void Owned<Handle>::release() {
  if (device_ != nullptr && device_->enter().ok()) (void)device_->check((device_->driver().*free_)(handle_), "give back");
  device_ = nullptr;
}

}  // namespace tandem::cuda
