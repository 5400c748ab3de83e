#include "cuda/device.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <utility>

#include "core/memory.h"
#include "core/model_file.h"

namespace tandem::cuda {

namespace {

// Errors after which a context answers nothing else any more.
bool is_loss(Result code) {
  switch (code) {
    case result::kDeinitialized:
    case result::kInvalidContext:
    case result::kEccUncorrectable:
    case result::kNvlinkUncorrectable:
    case result::kContained:
    case result::kIllegalAddress:
    case result::kLaunchTimeout:
    case result::kContextIsDestroyed:
    case result::kAssert:
    case result::kTensorMemoryLeak:
    case result::kExternalDevice:
    case result::kUnknown:
      return true;
    default:
      return code >= result::kHardwareStackError && code <= result::kLaunchFailed;
  }
}

Status read_file(const std::string& path, std::vector<uint8_t>& out) {
  ModelFile file;
  TANDEM_TRY(file.open(path));
  out.resize(file.size() + 1);  // text (PTX) ends with a zero
  return file.read(0, file.size(), out.data());
}

}  // namespace

Status Device::open(int ordinal, const KernelFile& kernels, std::unique_ptr<Device>& out) {
  const Driver* driver = nullptr;
  TANDEM_TRY(load_driver(driver));
  const std::string name = "cuda:" + std::to_string(ordinal);
  if (driver == nullptr) return Status(Code::native_failed, "[native] " + name + " needs an NVIDIA driver; this machine has none; place it on cpu");
  int count = 0;
  TANDEM_TRY(driver->check(driver->device_count(&count), "count the GPUs"));
  if (ordinal < 0 || ordinal >= count)
    return Status(Code::native_failed, "[native] " + name + " is a GPU of this machine; it has " + std::to_string(count) + "; place it on one of them, or on cpu");
  GpuInfo info;
  TANDEM_TRY(describe_gpu(*driver, ordinal, kernels, info));
  if (!info.refused.empty()) return Status(Code::native_failed, "[native] " + name + " can be used; " + info.name + ": " + info.refused + "; or place it on cpu");
  std::unique_ptr<Device> device(new Device(driver, std::move(info)));
  TANDEM_TRY(driver->check(driver->device_get(&device->number_, ordinal), "find a GPU"));
  TANDEM_TRY(driver->check(driver->context_retain(&device->context_, device->number_), "make a context"));
  TANDEM_TRY(device->load(kernels));
  out = std::move(device);
  return {};
}

Status Device::load(const KernelFile& kernels) {
  std::vector<uint8_t> image;
  TANDEM_TRY(read_file(kernels.path, image));
  TANDEM_TRY(enter());
  const Result code = driver_->module_load(&module_, image.data());
  switch (code) {
    case result::kInvalidImage:
    case result::kNoBinaryForGpu:
    case result::kInvalidPtx:
    case result::kJitCompilerNotFound:
    case result::kUnsupportedPtx:
    case result::kJitDisabled: {
      const std::string built = kernels.version == 0 ? "" : " compiled with CUDA " + version_name(kernels.version);
      return Status(Code::native_failed, "[native] the kernels" + built + " run on this GPU; " + info_.name + " (compute capability " + std::to_string(info_.major) + "." +
                                             std::to_string(info_.minor) + ") with a driver for CUDA " + version_name(driver_->version) + " refuses them: " +
                                             driver_->describe(code) + "; update the NVIDIA driver, or install the package of this version again");
    }
    default:
      return check(code, "load the kernels");
  }
}

Device::~Device() {
  if (context_ == nullptr) return;
  if (enter().ok() && module_ != nullptr) driver_->module_unload(module_);
  driver_->context_use(nullptr);
  driver_->context_release(number_);
}

Status Device::loss() const {
  std::lock_guard lock(lost_mutex_);
  return Status(Code::native_failed, loss_);
}

void Device::give_up(const Status& why) {
  std::lock_guard lock(lost_mutex_);
  if (loss_.empty()) loss_ = why.message();
  lost_.store(true, std::memory_order_release);
}

Status Device::enter() {
  if (lost()) return loss();
  return check(driver_->context_use(context_), "use a context");
}

Status Device::check(Result code, const char* what) {
  if (code == result::kSuccess) return {};
  if (is_loss(code)) {
    std::lock_guard lock(lost_mutex_);
    if (loss_.empty())
      loss_ = "[native] cuda:" + std::to_string(info_.ordinal) + " goes on answering; " + info_.name + " was lost (" + what + "): " + driver_->describe(code) +
              "; load the model again, see dmesg for Xid, or place it on cpu";
    lost_.store(true, std::memory_order_release);
  }
  return lost() ? loss() : driver_->check(code, what);
}

Status Device::free_memory(size_t& bytes) {
  TANDEM_TRY(enter());
  size_t total = 0;
  return check(driver_->memory_info(&bytes, &total), "say how much memory is free");
}

Status Device::allocate(size_t bytes, const char* what, Memory& out) {
  out.release();
  TANDEM_TRY(enter());
  Address address = 0;
  const Result code = driver_->memory_allocate(&address, bytes == 0 ? 1 : bytes);
  if (code == result::kOutOfMemory) {
    size_t free = 0;
    TANDEM_TRY(free_memory(free));
    return Status(Code::out_of_memory, std::string("[native] ") + what + " fit into the memory of cuda:" + std::to_string(info_.ordinal) + "; " +
                                           format_bytes(static_cast<double>(bytes)) + " are needed, " + format_bytes(static_cast<double>(free)) + " of " +
                                           format_bytes(static_cast<double>(info_.memory)) + " are free; place less on it, or take a shorter context");
  }
  TANDEM_TRY(check(code, "give memory"));
  out = Memory(this, address, &Driver::memory_free);
  return {};
}

Status Device::pin(size_t bytes, const char* what, Pinned& out) {
  out.memory_.release();
  TANDEM_TRY(enter());
  void* data = nullptr;
  const Result code = driver_->host_allocate(&data, bytes == 0 ? 1 : bytes, kHostPortable | kHostMapped);
  if (code == result::kOutOfMemory)
    return Status(Code::out_of_memory, std::string("[native] ") + what + " can be pinned; " + format_bytes(static_cast<double>(bytes)) +
                                           " were refused; raise ulimit -l, or leave the machine more memory");
  TANDEM_TRY(check(code, "pin memory"));
  out.memory_ = Owned<void*>(this, data, &Driver::host_free);
  out.size_ = bytes;
  std::memset(data, 0, bytes);
  return check(driver_->host_address(&out.address_, data, 0), "map pinned memory");
}

Status Device::stream(Stream& out) {
  TANDEM_TRY(enter());
  StreamHandle* handle = nullptr;
  TANDEM_TRY(check(driver_->stream_create(&handle, kStreamNonBlocking), "make a stream"));
  out.handle_ = Owned<StreamHandle*>(this, handle, &Driver::stream_destroy);
  return {};
}

Status Device::event(Event& out) {
  TANDEM_TRY(enter());
  EventHandle* handle = nullptr;
  TANDEM_TRY(check(driver_->event_create(&handle, kEventDisableTiming), "make an event"));
  out = Event(this, handle, &Driver::event_destroy);
  return {};
}

Status Device::function(const std::string& name, FunctionHandle*& out, unsigned shared) {
  std::lock_guard lock(mutex_);
  Function& function = functions_[name];
  if (function.handle == nullptr) {
    TANDEM_TRY(enter());
    const Result code = driver_->module_function(&function.handle, module_, name.c_str());
    if (code == result::kNotFound)
      return Status(Code::native_failed, "[native] the kernels are of this version; they have no " + name + "; install tandem-cuda-linux-x64 in the version of tandem");
    TANDEM_TRY(check(code, "find a kernel"));
  }
  out = function.handle;
  if (shared <= function.shared) return {};
  if (shared > info_.shared_memory)
    return Status(Code::native_failed, "[native] blocks of " + name + " fit into the shared memory of cuda:" + std::to_string(info_.ordinal) + "; they take " + std::to_string(shared) +
                                           " bytes, " + info_.name + " gives " + std::to_string(info_.shared_memory) + "; place the step on cpu");
  TANDEM_TRY(enter());
  TANDEM_TRY(check(driver_->function_attribute(function.handle, kMaxDynamicSharedBytes, static_cast<int>(shared)), "give a kernel shared memory"));
  function.shared = shared;
  return {};
}

const Driver& Stream::driver() const { return device().driver(); }
Status Stream::check(Result code, const char* what) const { return device().check(code, what); }

#define TANDEM_ENTER() TANDEM_TRY(device().enter())

Status Stream::copy_in(Address to, const void* from, size_t bytes) {
  TANDEM_ENTER();
  return check(driver().copy_in(to, from, bytes, handle_.get()), "copy to a GPU");
}

Status Stream::copy_out(void* to, Address from, size_t bytes) {
  TANDEM_ENTER();
  return check(driver().copy_out(to, from, bytes, handle_.get()), "copy from a GPU");
}

Status Stream::copy_within(Address to, Address from, size_t bytes) {
  TANDEM_ENTER();
  return check(driver().copy_within(to, from, bytes, handle_.get()), "copy on a GPU");
}

Status Stream::copy_peer(Address to, const Device& target, Address from, size_t bytes) {
  TANDEM_ENTER();
  return check(driver().copy_peer(to, target.context(), from, device().context(), bytes, handle_.get()), "copy between GPUs");
}

Status Stream::fill(Address to, uint8_t value, size_t bytes) {
  TANDEM_ENTER();
  return check(driver().fill(to, value, bytes, handle_.get()), "fill memory");
}

Status Stream::launch(FunctionHandle* function, Grid grid, Grid block, unsigned shared, void** arguments) {
  TANDEM_ENTER();
  return check(driver().launch(function, grid.x, grid.y, grid.z, block.x, block.y, block.z, shared, handle_.get(), arguments, nullptr), "launch a kernel");
}

Status Stream::record(const Event& event) {
  TANDEM_ENTER();
  return check(driver().event_record(event.get(), handle_.get()), "record an event");
}

Status Stream::wait(const Event& event) {
  TANDEM_ENTER();
  return check(driver().stream_wait_event(handle_.get(), event.get(), 0), "wait for an event");
}

Status Stream::write_value(Address word, uint32_t value) {
  TANDEM_ENTER();
  return check(driver().stream_write_value(handle_.get(), word, value, 0), "write a word");
}

Status Stream::wait_value(Address word, uint32_t value) {
  TANDEM_ENTER();
  return check(driver().stream_wait_value(handle_.get(), word, value, kWaitAtLeast), "wait for a word");
}

Status Stream::begin_capture() {
  TANDEM_ENTER();
  return check(driver().capture_begin(handle_.get(), kCaptureThreadLocal), "capture a graph");
}

Status Stream::end_capture(GraphExec& out) {
  TANDEM_ENTER();
  GraphHandle* graph = nullptr;
  TANDEM_TRY(check(driver().capture_end(handle_.get(), &graph), "end a graph"));
  GraphExecHandle* executable = nullptr;
  const Status status = check(driver().graph_instantiate(&executable, graph, 0), "make a graph ready");
  driver().graph_destroy(graph);
  TANDEM_TRY(status);
  out = GraphExec(&device(), executable, &Driver::graph_exec_destroy);
  return {};
}

Status Stream::launch(const GraphExec& graph) {
  TANDEM_ENTER();
  return check(driver().graph_launch(graph.get(), handle_.get()), "launch a graph");
}

Status Stream::query(bool& done) {
  TANDEM_ENTER();
  const Result code = driver().stream_query(handle_.get());
  done = code == result::kSuccess;
  return code == result::kNotReady ? Status() : check(code, "do its work");
}

Status Stream::finish(const std::function<Status()>& stop) {
  for (int round = 0;; round++) {
    bool done = false;
    TANDEM_TRY(query(done));
    if (done) return {};
    if (stop) TANDEM_TRY(stop());
    if (round > 1000) std::this_thread::sleep_for(std::chrono::microseconds(20));
    else std::this_thread::yield();
  }
}

Status Stream::finish_alone(const std::string& what) {
  const char* const said = std::getenv("TANDEM_CUDA_LIMIT");
  const double seconds = said == nullptr ? 0 : std::atof(said);
  const auto limit = seconds > 0 ? std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000)) : kSettle;
  const auto end = std::chrono::steady_clock::now() + limit;
  bool late = false;
  const Status status = finish([&]() -> Status {
    late = std::chrono::steady_clock::now() >= end;
    if (!late) return {};
    char words[32];
    std::snprintf(words, sizeof words, "%g s", static_cast<double>(limit.count()) / 1000);
    return Status(Code::native_failed, "[native] what a GPU is given alone ends within " + std::string(words) + "; " + what + " did not; restart the process before this GPU is used again");
  });
  if (late && !status.ok()) device().give_up(status);
  return status;
}

}  // namespace tandem::cuda
