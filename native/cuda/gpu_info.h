// The GPUs of this machine, and which of them can be used. Looks, and changes nothing.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"
#include "cuda/driver.h"

namespace tandem::cuda {

// The kernels, compiled ahead of time: a file of the optional package, which is not always there.
struct KernelFile {
  std::string path;  // "": the package is not installed
  int version = 0;   // CUDA that compiled it, 13000 = 13.0; 0: not known
};

struct GpuInfo {
  int ordinal = 0;
  std::string name, bus;
  int major = 0, minor = 0;  // compute capability
  int64_t memory = 0;        // bytes
  int64_t free = -1;         // bytes; -1: not asked
  int multiprocessors = 0;
  int64_t shared_memory = 0;  // bytes a block may have
  // By clocks and widths that the driver tells, not measured: bytes, and dense bf16 operations (a product and a sum are two), a second.
  double bandwidth = 0, bf16 = 0;
  std::string refused;  // why it is not used; "" where it can be
};

// Cards below have no matrix instructions for bf16.
constexpr int kLeastMajor = 8;

struct Gpus {
  int version = 0;      // CUDA that the driver serves; 0: no driver
  std::string problem;  // why the driver cannot be used; "" where it can, or where there is none
  std::vector<GpuInfo> list;
};

// `free`: also how much memory is free, for which a context is made on each GPU (some hundred megabytes, a quarter of a second).
Gpus list_gpus(const KernelFile& kernels, bool free);

// One GPU without what is free.
Status describe_gpu(const Driver& driver, int ordinal, const KernelFile& kernels, GpuInfo& out);

}  // namespace tandem::cuda
