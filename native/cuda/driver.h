// NVIDIA's driver API, opened at run time: nothing of CUDA is linked and no header of it is needed, so that one addon loads on
// machines with and without a GPU. The declarations here are our own, of the few types and calls that are used.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "core/status.h"

namespace tandem::cuda {

using Result = int;
using DeviceNumber = int;
using Address = uint64_t;  // of device memory
struct ContextHandle;
struct ModuleHandle;
struct FunctionHandle;
struct StreamHandle;
struct EventHandle;
struct GraphHandle;
struct GraphExecHandle;

// Results that are looked at; the driver names all others.
namespace result {
constexpr Result kSuccess = 0, kOutOfMemory = 2, kDeinitialized = 4, kStubLibrary = 34, kUnavailable = 46, kNoDevice = 100, kInvalidImage = 200, kInvalidContext = 201,
                 kNoBinaryForGpu = 209, kEccUncorrectable = 214, kInvalidPtx = 218, kNvlinkUncorrectable = 220, kJitCompilerNotFound = 221,
                 kUnsupportedPtx = 222, kJitDisabled = 223, kContained = 226, kNotFound = 500, kNotReady = 600, kIllegalAddress = 700,
                 kLaunchTimeout = 702, kContextIsDestroyed = 709, kAssert = 710, kHardwareStackError = 714, kLaunchFailed = 719,
                 kTensorMemoryLeak = 721, kNotReadyYet = 802, kDriverMismatch = 803, kExternalDevice = 911, kUnknown = 999;
}  // namespace result

// The numbers of CUdevice_attribute.
enum class Attribute : int {
  clock_khz = 13,
  multiprocessors = 16,
  memory_clock_khz = 36,
  bus_width = 37,
  capability_major = 75,
  capability_minor = 76,
  shared_memory_per_block = 97,  // the most that a kernel may ask for
};

constexpr unsigned kStreamNonBlocking = 1, kEventDisableTiming = 2;
constexpr unsigned kHostPortable = 1, kHostMapped = 2;
constexpr int kCaptureThreadLocal = 1;
constexpr unsigned kWaitAtLeast = 0;       // (int32_t)(*address - value) >= 0
constexpr int kMaxDynamicSharedBytes = 8;  // CUfunction_attribute

// Each: member, symbol of the library (the version of the call that this declaration fits), parameters.
#define TANDEM_CUDA_CALLS(CALL)                                                                                                    \
  CALL(init, cuInit, (unsigned))                                                                                                   \
  CALL(driver_version, cuDriverGetVersion, (int*))                                                                                 \
  CALL(error_name, cuGetErrorName, (Result, const char**))                                                                         \
  CALL(error_text, cuGetErrorString, (Result, const char**))                                                                       \
  CALL(device_count, cuDeviceGetCount, (int*))                                                                                     \
  CALL(device_get, cuDeviceGet, (DeviceNumber*, int))                                                                              \
  CALL(device_name, cuDeviceGetName, (char*, int, DeviceNumber))                                                                   \
  CALL(device_attribute, cuDeviceGetAttribute, (int*, int, DeviceNumber))                                                          \
  CALL(device_memory, cuDeviceTotalMem_v2, (size_t*, DeviceNumber))                                                                \
  CALL(device_bus, cuDeviceGetPCIBusId, (char*, int, DeviceNumber))                                                                \
  CALL(context_retain, cuDevicePrimaryCtxRetain, (ContextHandle**, DeviceNumber))                                                  \
  CALL(context_release, cuDevicePrimaryCtxRelease_v2, (DeviceNumber))                                                              \
  CALL(context_use, cuCtxSetCurrent, (ContextHandle*))                                                                             \
  CALL(memory_info, cuMemGetInfo_v2, (size_t*, size_t*))                                                                           \
  CALL(memory_allocate, cuMemAlloc_v2, (Address*, size_t))                                                                         \
  CALL(memory_free, cuMemFree_v2, (Address))                                                                                       \
  CALL(host_allocate, cuMemHostAlloc, (void**, size_t, unsigned))                                                                  \
  CALL(host_free, cuMemFreeHost, (void*))                                                                                          \
  CALL(host_address, cuMemHostGetDevicePointer_v2, (Address*, void*, unsigned))                                                    \
  CALL(copy_in, cuMemcpyHtoDAsync_v2, (Address, const void*, size_t, StreamHandle*))                                               \
  CALL(copy_out, cuMemcpyDtoHAsync_v2, (void*, Address, size_t, StreamHandle*))                                                    \
  CALL(copy_within, cuMemcpyDtoDAsync_v2, (Address, Address, size_t, StreamHandle*))                                               \
  CALL(copy_peer, cuMemcpyPeerAsync, (Address, ContextHandle*, Address, ContextHandle*, size_t, StreamHandle*))                    \
  CALL(fill, cuMemsetD8Async, (Address, unsigned char, size_t, StreamHandle*))                                                     \
  CALL(stream_create, cuStreamCreate, (StreamHandle**, unsigned))                                                                  \
  CALL(stream_destroy, cuStreamDestroy_v2, (StreamHandle*))                                                                        \
  CALL(stream_query, cuStreamQuery, (StreamHandle*))                                                                               \
  CALL(stream_wait_event, cuStreamWaitEvent, (StreamHandle*, EventHandle*, unsigned))                                              \
  CALL(stream_write_value, cuStreamWriteValue32_v2, (StreamHandle*, Address, uint32_t, unsigned))                                  \
  CALL(stream_wait_value, cuStreamWaitValue32_v2, (StreamHandle*, Address, uint32_t, unsigned))                                    \
  CALL(event_create, cuEventCreate, (EventHandle**, unsigned))                                                                     \
  CALL(event_destroy, cuEventDestroy_v2, (EventHandle*))                                                                           \
  CALL(event_record, cuEventRecord, (EventHandle*, StreamHandle*))                                                                 \
  CALL(module_load, cuModuleLoadData, (ModuleHandle**, const void*))                                                               \
  CALL(module_unload, cuModuleUnload, (ModuleHandle*))                                                                             \
  CALL(module_function, cuModuleGetFunction, (FunctionHandle**, ModuleHandle*, const char*))                                       \
  CALL(function_attribute, cuFuncSetAttribute, (FunctionHandle*, int, int))                                                        \
  CALL(launch, cuLaunchKernel,                                                                                                     \
       (FunctionHandle*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, StreamHandle*, void**, void**))     \
  CALL(capture_begin, cuStreamBeginCapture_v2, (StreamHandle*, int))                                                               \
  CALL(capture_end, cuStreamEndCapture, (StreamHandle*, GraphHandle**))                                                            \
  CALL(graph_destroy, cuGraphDestroy, (GraphHandle*))                                                                              \
  CALL(graph_instantiate, cuGraphInstantiateWithFlags, (GraphExecHandle**, GraphHandle*, unsigned long long))                      \
  CALL(graph_launch, cuGraphLaunch, (GraphExecHandle*, StreamHandle*))                                                             \
  CALL(graph_exec_destroy, cuGraphExecDestroy, (GraphExecHandle*))

// The least driver: the first whose stream memory operations need no module parameter and work in graphs.
constexpr int kLeastVersion = 12000;

struct Driver {
#define CALL(member, symbol, parameters) Result(*member) parameters = nullptr;
  TANDEM_CUDA_CALLS(CALL)
#undef CALL
  int version = 0;  // CUDA that it serves: 13000 = 13.0

  // `what` was asked of the driver; out of memory keeps its code, all else is native_failed.
  Status check(Result result, const char* what) const;
  // "CUDA_ERROR_LAUNCH_FAILED (unspecified launch failure)".
  std::string describe(Result result) const;
};

// "12.4" of 12040.
std::string version_name(int version);

// The driver of this process, opened once and never closed. TANDEM_CUDA_LIBRARY names another file than libcuda.so.1 (tests).
// `out` is null, and the Status ok, where the machine has none. Not ok: it is there and cannot be used.
Status load_driver(const Driver*& out);

}  // namespace tandem::cuda
