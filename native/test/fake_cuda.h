// The fake driver in a test: set up before, given back after. One at a time.
#pragma once

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "cuda/device.h"
#include "cuda/fake/fake.h"
#include "test/harness.h"

namespace tandem::test {

class FakeCuda {
 public:
  explicit FakeCuda(const char* machine = "") {
    setenv("TANDEM_CUDA_LIBRARY", TANDEM_FAKE_CUDA_LIBRARY, 1);
    library_ = dlopen(TANDEM_FAKE_CUDA_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    find(reset, "tandem_fake_reset");
    find(fail, "tandem_fake_fail");
    find(stall, "tandem_fake_stall");
    find(kernel, "tandem_fake_kernel");
    find(calls, "tandem_fake_calls");
    find(alive, "tandem_fake_alive");
    reset(machine);
    char name[] = "/tmp/tandem-kernels-XXXXXX";
    const int file = mkstemp(name);
    if (file >= 0) std::fclose(fdopen(file, "w"));
    kernels.path = name;
    kernels.version = 13000;
  }
  ~FakeCuda() {
    reset("");
    std::remove(kernels.path.c_str());
    unsetenv("TANDEM_CUDA_LIBRARY");
  }

  decltype(&tandem_fake_reset) reset = nullptr;
  decltype(&tandem_fake_fail) fail = nullptr;
  decltype(&tandem_fake_stall) stall = nullptr;
  decltype(&tandem_fake_kernel) kernel = nullptr;
  decltype(&tandem_fake_calls) calls = nullptr;
  decltype(&tandem_fake_alive) alive = nullptr;
  cuda::KernelFile kernels;

 private:
  template <typename F> void find(F& function, const char* name) {
    function = reinterpret_cast<F>(library_ == nullptr ? nullptr : dlsym(library_, name));
    if (function == nullptr) {
      std::printf("no %s in %s\n", name, TANDEM_FAKE_CUDA_LIBRARY);
      std::abort();
    }
  }
  void* library_ = nullptr;
};

inline bool mentions(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace tandem::test
