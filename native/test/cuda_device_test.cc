#include <unistd.h>

#include <cstring>
#include <thread>

#include "test/fake_cuda.h"

namespace tandem::cuda {

using test::FakeCuda;
using test::mentions;

// A file that is there and can be opened as a library of one's own: drivers are kept by path.
static std::string link_driver(const char* name) {
  const std::string path = std::string("/tmp/tandem-") + name + "-" + std::to_string(getpid()) + ".so";
  std::remove(path.c_str());
  EXPECT(symlink(TANDEM_FAKE_CUDA_LIBRARY, path.c_str()) == 0);
  return path;
}

TEST(cuda_machine_without_driver_has_no_gpu) {
  setenv("TANDEM_CUDA_LIBRARY", "/nowhere/libcuda.so.1", 1);
  const Driver* driver = nullptr;
  EXPECT_OK(load_driver(driver));
  EXPECT(driver == nullptr);
  const Gpus found = list_gpus({}, true);
  EXPECT(found.list.empty() && found.problem.empty() && found.version == 0);
  std::unique_ptr<Device> device;
  const Status status = Device::open(0, {}, device);
  EXPECT(status.code() == Code::native_failed && mentions(status.message(), "this machine has none; place it on cpu"));
  unsetenv("TANDEM_CUDA_LIBRARY");
}

TEST(cuda_library_that_is_no_driver_is_told) {
  setenv("TANDEM_CUDA_LIBRARY", "/etc/hostname", 1);
  const Gpus found = list_gpus({}, false);
  EXPECT(found.list.empty() && mentions(found.problem, "/etc/hostname"));
  unsetenv("TANDEM_CUDA_LIBRARY");
}

TEST(cuda_old_driver_is_refused_with_both_versions) {
  FakeCuda fake("version=11040");
  const std::string path = link_driver("old");
  setenv("TANDEM_CUDA_LIBRARY", path.c_str(), 1);
  const Gpus found = list_gpus(fake.kernels, false);
  EXPECT(found.list.empty() && mentions(found.problem, "CUDA 12.0 or later") && mentions(found.problem, "serves CUDA 11.4"));
  std::remove(path.c_str());
}

TEST(cuda_driver_without_gpu_is_a_problem_and_no_error) {
  FakeCuda fake("gpus=0");
  const std::string path = link_driver("none");
  setenv("TANDEM_CUDA_LIBRARY", path.c_str(), 1);
  EXPECT(mentions(list_gpus(fake.kernels, false).problem, "CUDA_ERROR_NO_DEVICE"));
  std::remove(path.c_str());
}

TEST(cuda_gpus_are_described) {
  FakeCuda fake("gpus=2;name=Some Card;capability=8.9;memory=24000000000");
  const Gpus found = list_gpus(fake.kernels, true);
  EXPECT(found.problem.empty() && found.version == 13000 && found.list.size() == 2);
  const GpuInfo& second = found.list.at(1);
  EXPECT(second.name == "Some Card" && second.bus == "0000:02:00.0" && second.major == 8 && second.minor == 9);
  EXPECT(second.memory == 24000000000 && second.free == 24000000000 && second.refused.empty());
  EXPECT(second.bandwidth == 1e9 * 2 * 512 && second.bf16 == 1e9 * 100 * 512);
  EXPECT(list_gpus(fake.kernels, false).list.at(0).free == -1);
  EXPECT(fake.alive() == 0);
}

TEST(cuda_refusals_say_why) {
  FakeCuda fake("capability=7.5");
  EXPECT(mentions(list_gpus(fake.kernels, false).list.at(0).refused, "compute capability 7.5, at least 8.0"));
  fake.reset("");
  EXPECT(mentions(list_gpus({}, false).list.at(0).refused, "package tandem-cuda-linux-x64"));
  KernelFile newer = fake.kernels;
  newer.version = 14020;
  EXPECT(mentions(list_gpus(newer, false).list.at(0).refused, "serves CUDA 13.0, the kernels need 14.0 or later"));
  std::unique_ptr<Device> device;
  EXPECT(mentions(Device::open(0, newer, device).message(), "or place it on cpu"));
  fake.reset("gpus=2");
  EXPECT(mentions(Device::open(2, fake.kernels, device).message(), "it has 2"));
  fake.reset("image=222");
  KernelFile unknown = fake.kernels;
  unknown.version = 0;
  const Status ptx = Device::open(0, unknown, device);
  EXPECT(mentions(ptx.message(), "CUDA_ERROR_UNSUPPORTED_PTX_VERSION") && mentions(ptx.message(), "a driver for CUDA 13.0"));
  fake.reset("");
  KernelFile missing = fake.kernels;
  missing.path = "/nowhere/kernels.fatbin";
  EXPECT(Device::open(0, missing, device).code() == Code::file_not_found);
  EXPECT(device == nullptr && fake.alive() == 0);
}

TEST(cuda_memory_and_copies) {
  FakeCuda fake("memory=3000000");
  {
    std::unique_ptr<Device> device;
    EXPECT_OK(Device::open(0, fake.kernels, device));
    Memory a, b, too_much;
    Pinned host;
    Stream stream;
    EXPECT_OK(device->allocate(1024, "weights", a));
    EXPECT_OK(device->allocate(1024, "weights", b));
    EXPECT_OK(device->pin(2048, "buffers", host));
    EXPECT_OK(device->stream(stream));
    for (int i = 0; i < 1024; i++) host.data()[i] = static_cast<uint8_t>(i * 7);
    EXPECT_OK(stream.copy_in(a.get(), host.data(), 1024));
    EXPECT_OK(stream.copy_within(b.get(), a.get(), 1024));
    EXPECT_OK(stream.fill(b.get(), 9, 16));
    EXPECT_OK(stream.copy_out(host.data() + 1024, b.get(), 1024));
    EXPECT_OK(stream.finish());
    EXPECT(host.data()[1024] == 9 && std::memcmp(host.data() + 16, host.data() + 1040, 1008) == 0);
    const Status status = device->allocate(5000000, "the weights", too_much);
    EXPECT(status.code() == Code::out_of_memory && mentions(status.message(), "the weights fit into the memory of cuda:0; 5.0 MB are needed, 3.0 MB of 3.0 MB are free"));
    EXPECT(!device->lost());
  }
  EXPECT(fake.alive() == 0);
}

TEST(cuda_a_lost_device_fails_cleanly) {
  FakeCuda fake;
  {
    std::unique_ptr<Device> device;
    EXPECT_OK(Device::open(0, fake.kernels, device));
    Memory memory;
    Stream stream;
    Event event;
    Pinned host;
    EXPECT_OK(device->allocate(64, "weights", memory));
    EXPECT_OK(device->pin(256, "buffers", host));
    EXPECT_OK(device->stream(stream));
    EXPECT_OK(device->event(event));
    EXPECT_OK(stream.copy_out(host.data(), memory.get(), 256));  // past its end
    const Status status = stream.finish();
    EXPECT(status.code() == Code::native_failed && mentions(status.message(), "CUDA_ERROR_ILLEGAL_ADDRESS") && mentions(status.message(), "cuda:0"));
    EXPECT(device->lost());
    const int asked = fake.calls("cuMemAlloc_v2");
    Memory more;
    EXPECT(device->allocate(64, "weights", more).message() == status.message());
    EXPECT(stream.record(event).message() == status.message());
    EXPECT(fake.calls("cuMemAlloc_v2") == asked);
  }
}

TEST(cuda_shared_memory_is_asked_for) {
  FakeCuda fake("capability=8.9");
  static unsigned given = 0;
  const size_t none = 0;
  fake.kernel("large", [](const unsigned*, const unsigned*, unsigned shared, void**) { given = shared; }, &none, 0);
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  Stream stream;
  EXPECT_OK(device->stream(stream));
  FunctionHandle* function = nullptr;
  EXPECT_OK(device->function("large", function));
  EXPECT(!stream.launch(function, {}, {}, 50000, nullptr).ok());
  EXPECT_OK(device->function("large", function, 90000));
  EXPECT_OK(device->function("large", function, 60000));  // takes nothing back
  EXPECT_OK(stream.launch(function, {}, {}, 90000, nullptr));
  EXPECT_OK(stream.finish());
  EXPECT(given == 90000 && fake.calls("cuFuncSetAttribute") == 1);
  EXPECT(mentions(device->function("large", function, 110000).message(), "they take 110000 bytes, Fake gives 101376"));
  EXPECT(!device->lost());
}

// Every call that may fail is made to: no crash, no hang, an error with what the driver said.
TEST(cuda_every_call_may_fail) {
  const char* symbols[] = {"cuDeviceGet", "cuDeviceGetName", "cuDeviceGetAttribute", "cuDeviceGetCount", "cuDevicePrimaryCtxRetain", "cuCtxSetCurrent",
                           "cuModuleLoadData", "cuModuleGetFunction", "cuMemAlloc_v2", "cuMemHostAlloc", "cuMemHostGetDevicePointer_v2", "cuStreamCreate",
                           "cuEventCreate", "cuStreamBeginCapture_v2", "cuLaunchKernel", "cuEventRecord", "cuStreamWaitEvent", "cuStreamEndCapture",
                           "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuStreamQuery", "cuFuncSetAttribute"};
  FakeCuda fake;
  const size_t none = 0;
  fake.kernel("nothing", [](const unsigned*, const unsigned*, unsigned, void**) {}, &none, 0);
  const auto work = [&]() -> Status {
    std::unique_ptr<Device> device;
    TANDEM_TRY(Device::open(0, fake.kernels, device));
    FunctionHandle* function = nullptr;
    Memory memory;
    Pinned host;
    Stream stream;
    Event event;
    GraphExec graph;
    TANDEM_TRY(device->function("nothing", function, 1024));
    TANDEM_TRY(device->allocate(64, "weights", memory));
    TANDEM_TRY(device->pin(64, "buffers", host));
    TANDEM_TRY(device->stream(stream));
    TANDEM_TRY(device->event(event));
    TANDEM_TRY(stream.begin_capture());
    TANDEM_TRY(stream.launch(function, {}, {}, 0, nullptr));
    TANDEM_TRY(stream.record(event));
    TANDEM_TRY(stream.wait(event));
    TANDEM_TRY(stream.end_capture(graph));
    TANDEM_TRY(stream.launch(graph));
    return stream.finish();
  };
  EXPECT_OK(work());
  EXPECT(fake.alive() == 0);
  for (const char* symbol : symbols)
    for (const int code : {1, 719}) {
      fake.reset("");
      fake.fail(symbol, 1, code);
      const Status status = work();
      EXPECT(!status.ok() && mentions(status.message(), code == 719 ? "CUDA_ERROR_LAUNCH_FAILED" : "error 1"));
    }
}

TEST(cuda_graphs_run_what_was_captured) {
  FakeCuda fake;
  const size_t sizes[] = {8, 4};
  fake.kernel("add_to", [](const unsigned*, const unsigned*, unsigned, void** p) { **static_cast<int**>(p[0]) += *static_cast<int*>(p[1]); }, sizes, 2);
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  FunctionHandle *function = nullptr, *unknown = nullptr;
  EXPECT_OK(device->function("add_to", function));
  EXPECT(mentions(device->function("tandem_nothing", unknown).message(), "they have no tandem_nothing"));
  Memory memory;
  EXPECT_OK(device->allocate(4, "sum", memory));
  Pinned host;
  EXPECT_OK(device->pin(4, "sum", host));
  Stream first, second;
  Event fork, join;
  EXPECT_OK(device->stream(first));
  EXPECT_OK(device->stream(second));
  EXPECT_OK(device->event(fork));
  EXPECT_OK(device->event(join));
  EXPECT_OK(first.fill(memory.get(), 0, 4));
  EXPECT_OK(first.finish());
  Address address = memory.get();
  int value = 3;
  void* arguments[] = {&address, &value};
  GraphExec graph;
  const auto capture = [&](bool joined) -> Status {
    TANDEM_TRY(first.begin_capture());
    TANDEM_TRY(first.launch(function, {}, {}, 0, arguments));
    TANDEM_TRY(first.record(fork));
    TANDEM_TRY(second.wait(fork));
    TANDEM_TRY(second.launch(function, {}, {}, 0, arguments));
    TANDEM_TRY(second.record(join));
    if (joined) TANDEM_TRY(first.wait(join));
    return first.end_capture(graph);
  };
  EXPECT(mentions(capture(false).message(), "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"));
  EXPECT_OK(capture(true));
  value = 100;  // parameters were taken when it was captured
  for (int i = 0; i < 5; i++) EXPECT_OK(first.launch(graph));
  EXPECT_OK(first.copy_out(host.data(), memory.get(), 4));
  EXPECT_OK(first.finish());
  int sum = 0;
  std::memcpy(&sum, host.data(), 4);
  EXPECT(sum == 5 * 2 * 3);
}

TEST(cuda_a_stalled_stream_can_be_left) {
  FakeCuda fake;
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  Pinned word;
  EXPECT_OK(device->pin(4, "flag", word));
  Stream stream;
  EXPECT_OK(device->stream(stream));
  EXPECT_OK(stream.wait_value(word.address(), 1));
  int asked = 0;
  const Status status = stream.finish([&] { return ++asked > 100 ? Status(Code::aborted, "enough") : Status(); });
  EXPECT(status.code() == Code::aborted);
  __atomic_store_n(reinterpret_cast<uint32_t*>(word.data()), 1u, __ATOMIC_RELEASE);
  EXPECT_OK(stream.finish());
  fake.stall(true);
  EXPECT_OK(stream.fill(word.address(), 0, 4));
  asked = 0;
  EXPECT(stream.finish([&] { return ++asked > 100 ? Status(Code::aborted, "enough") : Status(); }).code() == Code::aborted);
}

}  // namespace tandem::cuda
