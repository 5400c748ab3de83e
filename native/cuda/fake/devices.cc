// Cards and contexts of the fake driver, and what its errors are called.
#include <cstdio>
#include <cstring>

#include "cuda/fake/state.h"

using namespace tandem::cuda;
using namespace tandem::cuda::fake;

struct tandem::cuda::ContextHandle {};

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
