// A libcuda.so.1 for tests: device memory is on the heap, kernels are functions of the host, each stream is a thread. It keeps
// the rules that are easily broken: bytes outside of an allocation lose the device, a capture whose streams were not joined is
// refused, and a graph's nodes run in any order that their edges allow. Linked with cuda/emulation/table.cc it also has Tandem's
// own kernels, over the emulation of the thread grid: whole models run.
//
// Here is what tests tell it, beside the driver API that it serves. The library is loaded like a real one; a test finds these by
// dlsym. Nothing of this is part of the addon.
#pragma once

#include <cstddef>

extern "C" {

// A kernel on the host: grid, block, dynamic shared bytes, a pointer to each parameter.
using FakeKernel = void (*)(const unsigned grid[3], const unsigned block[3], unsigned shared, void** arguments);

// All anew, as `machine` says: "version=13000;gpus=1;name=Fake;capability=9.0;memory=1000000000;image=0", each with this default.
// `image`: what cuModuleLoadData answers; "free=waits": giving memory back waits for all work of the card, and all other calls for it.
// The library starts with what TANDEM_FAKE_CUDA says; TANDEM_FAKE_CUDA_FAIL is read at every
// call: "cuLaunchKernel:3:719" is tandem_fake_fail by those who have no dlsym. TANDEM_FAKE_CUDA_KERNEL, read at every launch, spoils an
// emulated kernel: "tandem_rope:part" runs the first half of its blocks, "tandem_rope:hang" never ends. Kernels stay.
void tandem_fake_reset(const char* machine);
// The n-th next call of this symbol answers so, once; results that lose a device go on being answered by all calls. Of copies to a
// GPU −1: it, or the next one of 8 KiB at least, answers well, and nothing is copied.
void tandem_fake_fail(const char* symbol, int n, int result);
// Streams begin no further work, as on a card that hangs.
void tandem_fake_stall(bool on);
// `sizes`: bytes of each parameter.
void tandem_fake_kernel(const char* name, FakeKernel kernel, const size_t* sizes, size_t parameters);
int tandem_fake_calls(const char* symbol);
// Things made and not given back: memory, streams, events, graphs, modules, contexts.
int tandem_fake_alive();
}
