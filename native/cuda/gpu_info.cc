#include "cuda/gpu_info.h"

namespace tandem::cuda {

namespace {

// Dense bf16 operations of a multiprocessor a cycle with sums in f32: as the cards are sold, the lesser where workstation and
// consumer cards of a capability differ. Source: NVIDIA's architecture papers.
double operations_per_cycle(int major, int minor) {
  if (major == 8) return minor == 0 ? 2048 : 512;
  if (major == 9) return 4096;
  if (major == 10) return 8192;
  return 512;
}

std::string refusal(const Driver& driver, const GpuInfo& info, const KernelFile& kernels) {
  const std::string capability = std::to_string(info.major) + "." + std::to_string(info.minor);
  if (info.major < kLeastMajor)
    return "compute capability " + capability + ", at least " + std::to_string(kLeastMajor) + ".0 is needed (older cards have no bf16 matrix instructions)";
  if (kernels.path.empty()) return "its kernels are not installed: they are the package tandem-cuda-linux-x64";
  // Binaries run with any driver of their major version; what they are compiled from, PTX, with none that is older.
  if (kernels.version / 1000 > driver.version / 1000)
    return "the driver serves CUDA " + version_name(driver.version) + ", the kernels need " + version_name(kernels.version / 1000 * 1000) + " or later: update the driver";
  return "";
}

Status free_memory(const Driver& driver, GpuInfo& info) {
  DeviceNumber device = 0;
  ContextHandle* context = nullptr;
  TANDEM_TRY(driver.check(driver.device_get(&device, info.ordinal), "find a GPU"));
  TANDEM_TRY(driver.check(driver.context_retain(&context, device), "make a context"));
  size_t free = 0, total = 0;
  Status status = driver.check(driver.context_use(context), "use a context");
  if (status.ok()) status = driver.check(driver.memory_info(&free, &total), "say how much memory is free");
  driver.context_use(nullptr);
  driver.context_release(device);
  if (status.ok()) info.free = static_cast<int64_t>(free);
  return status;
}

}  // namespace

Status describe_gpu(const Driver& driver, int ordinal, const KernelFile& kernels, GpuInfo& out) {
  DeviceNumber device = 0;
  TANDEM_TRY(driver.check(driver.device_get(&device, ordinal), "find a GPU"));
  Status broken;
  const auto ask = [&](Attribute which) {
    int value = 0;
    const Status status = driver.check(driver.device_attribute(&value, static_cast<int>(which), device), "describe a GPU");
    if (broken.ok()) broken = status;
    return value;
  };
  out = GpuInfo();
  out.ordinal = ordinal;
  char text[256] = {};
  TANDEM_TRY(driver.check(driver.device_name(text, sizeof text - 1, device), "name a GPU"));
  out.name = text;
  char bus[32] = {};
  TANDEM_TRY(driver.check(driver.device_bus(bus, sizeof bus - 1, device), "say where a GPU is"));
  out.bus = bus;
  size_t memory = 0;
  TANDEM_TRY(driver.check(driver.device_memory(&memory, device), "say how much memory a GPU has"));
  out.memory = static_cast<int64_t>(memory);
  out.major = ask(Attribute::capability_major);
  out.minor = ask(Attribute::capability_minor);
  out.multiprocessors = ask(Attribute::multiprocessors);
  out.shared_memory = ask(Attribute::shared_memory_per_block);
  const double memory_clock = ask(Attribute::memory_clock_khz) * 1e3, clock = ask(Attribute::clock_khz) * 1e3;
  out.bandwidth = memory_clock * 2 * ask(Attribute::bus_width) / 8;  // two transfers a cycle
  out.bf16 = clock * out.multiprocessors * operations_per_cycle(out.major, out.minor);
  TANDEM_TRY(broken);
  out.refused = refusal(driver, out, kernels);
  return {};
}

Gpus list_gpus(const KernelFile& kernels, bool free) {
  Gpus found;
  const Driver* driver = nullptr;
  const Status loaded = load_driver(driver);
  if (driver == nullptr) {
    found.problem = loaded.message();
    return found;
  }
  found.version = driver->version;
  int count = 0;
  Status status = driver->check(driver->device_count(&count), "count the GPUs");
  for (int ordinal = 0; status.ok() && ordinal < count; ordinal++) {
    GpuInfo info;
    status = describe_gpu(*driver, ordinal, kernels, info);
    if (!status.ok()) break;
    if (free) {
      const Status asked = free_memory(*driver, info);
      if (!asked.ok() && info.refused.empty()) info.refused = asked.message();
    }
    found.list.push_back(std::move(info));
  }
  found.problem = status.message();
  return found;
}

}  // namespace tandem::cuda
