// Kernels of the fake driver: functions of a test, or Tandem's own over the emulation of the thread grid.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "cuda/emulation/table.h"
#include "cuda/fake/fake.h"
#include "cuda/fake/work.h"

// Null where the library was linked without the kernels.
namespace tandem::cuda::emulation {
__attribute__((weak)) const Entry* find_entry(std::string_view name);
}

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

namespace {

struct Kernel {
  FakeKernel function = nullptr;
  std::vector<size_t> sizes;
  const emulation::Entry* entry = nullptr;  // else: an emulated one
};

std::map<std::string, Kernel>& kernels() {
  static std::map<std::string, Kernel>& all = *new std::map<std::string, Kernel>;
  return all;
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

}  // namespace

struct tandem::cuda::FunctionHandle {
  Kernel kernel;
  unsigned shared = 48 << 10;  // bytes of dynamic shared memory that a launch may ask for
};
struct tandem::cuda::ModuleHandle {
  std::map<std::string, std::unique_ptr<FunctionHandle>> functions;
};

EXPORT void tandem_fake_kernel(const char* name, FakeKernel kernel, const size_t* sizes, size_t parameters) {
  kernels()[name] = {kernel, std::vector<size_t>(sizes, sizes + parameters), nullptr};
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
