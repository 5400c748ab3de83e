#include "cuda/driver.h"

#include <dlfcn.h>

#include <cstdlib>
#include <map>
#include <mutex>

namespace tandem::cuda {

namespace {

struct Opened {
  Status status;
  Driver driver;
  bool present = false;
};

Status fill(void* library, const std::string& path, Driver& driver) {
  const char* missing = nullptr;
#define CALL(member, symbol, parameters)                                                 \
  driver.member = reinterpret_cast<decltype(driver.member)>(dlsym(library, #symbol));    \
  if (driver.member == nullptr && missing == nullptr) missing = #symbol;
  TANDEM_CUDA_CALLS(CALL)
#undef CALL
  if (driver.driver_version != nullptr) driver.driver_version(&driver.version);  // works before cuInit; 0 where it fails
  if (driver.version < kLeastVersion || missing != nullptr)
    return Status(Code::native_failed, "[native] a GPU needs a driver for CUDA " + version_name(kLeastVersion) + " or later; " + path + " serves CUDA " +
                                           version_name(driver.version) + (missing == nullptr ? "" : std::string(" and has no ") + missing) +
                                           "; update the NVIDIA driver");
  return driver.check(driver.init(0), "start");
}

void open(const std::string& path, Opened& out) {
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    const char* why = dlerror();
    // No such file is a machine without GPU. A file that is there and does not load is told.
    const std::string text = why == nullptr ? "" : why;
    if (text.rfind(path, 0) == 0 && text.find("No such file") != std::string::npos) return;
    out.status = Status(Code::native_failed, "[native] the NVIDIA driver's library can be loaded; " + text + "; reinstall the driver");
    return;
  }
  out.present = true;
  out.status = fill(library, path, out.driver);
}

}  // namespace

std::string version_name(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string Driver::describe(Result code) const {
  const char *name = nullptr, *text = nullptr;
  if (error_name != nullptr) error_name(code, &name);
  if (error_text != nullptr) error_text(code, &text);
  return (name == nullptr ? "error " + std::to_string(code) : std::string(name)) + (text == nullptr ? "" : " (" + std::string(text) + ")");
}

Status Driver::check(Result code, const char* what) const {
  if (code == result::kSuccess) return {};
  const std::string said = std::string("[native] the NVIDIA driver does what it is asked to (") + what + "); it said " + describe(code);
  if (code == result::kOutOfMemory) return Status(Code::out_of_memory, said + "; place less on the GPU");
  if (code == result::kNoDevice) return Status(Code::native_failed, said + "; look at nvidia-smi and CUDA_VISIBLE_DEVICES");
  if (code == result::kStubLibrary) return Status(Code::native_failed, said + "; this libcuda.so.1 is for linking only: take its folder out of LD_LIBRARY_PATH");
  if (code == result::kUnavailable) return Status(Code::native_failed, said + "; another process has the GPU for itself: look at nvidia-smi (processes, compute mode)");
  if (code == result::kNotReadyYet) return Status(Code::native_failed, said + "; machines with NVSwitch need nvidia-fabricmanager running, in the driver's version");
  if (code == result::kDriverMismatch) return Status(Code::native_failed, said + "; the driver was updated under a running system: restart the machine");
  return Status(Code::native_failed, said + "; see dmesg for what the kernel module says");
}

Status load_driver(const Driver*& out) {
  // Never destroyed: threads of a pass may outlive static destructors.
  static std::mutex& mutex = *new std::mutex;
  static std::map<std::string, Opened>& opened = *new std::map<std::string, Opened>;
  const char* named = std::getenv("TANDEM_CUDA_LIBRARY");
  const std::string path = named == nullptr || *named == 0 ? "libcuda.so.1" : named;
  std::lock_guard lock(mutex);
  const auto [entry, fresh] = opened.try_emplace(path);
  if (fresh) open(path, entry->second);
  out = entry->second.present && entry->second.status.ok() ? &entry->second.driver : nullptr;
  return entry->second.status;
}

}  // namespace tandem::cuda
