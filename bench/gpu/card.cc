// What a card does, a part at a time: `gpu_card PART KERNELS VERSION [small] [only=TEXT]`. JSON on stdout, lines for people on stderr.
// A part is a process of its own, and its pieces (pieces.h) cost one another nothing. `small`: sizes for the fake driver
// (TANDEM_CUDA_LIBRARY), over which all parts run and whose times mean nothing.
#include <cstdlib>
#include <cstring>

#include "cuda/kernels/list.h"
#include "measure.h"
#include "pieces.h"

namespace tandem::bench {

using namespace cuda;

namespace {

// CUfunction_attribute.
constexpr int kMostThreads = 0, kSharedBytes = 1, kLocalBytes = 3, kRegisters = 4, kBinaryVersion = 6;

struct Named {
  const char* name;
};
constexpr Named kKernels[] = {
#define NAME(name, ...) {"tandem_" #name},
    TANDEM_CUDA_KERNELS(NAME)
#undef NAME
};

}  // namespace

// Every kernel of this version is in the file, and what the card says of it: registers, memory that is no register, whether 256
// threads fit, and from which code it was made (90: of the card's own kind; 80 on a younger card: compiled by the driver).
Status describe(Device& device, Fields& found) {
  using Ask = Result (*)(int*, int, FunctionHandle*);
  const auto ask = reinterpret_cast<Ask>(driver_call("cuFuncGetAttribute"));
  std::vector<std::string> absent, kernels;
  int local = 0, tight = 0, binary = 0;
  const double start = now();
  for (const Named& kernel : kKernels) {
    FunctionHandle* function = nullptr;
    const Status status = device.function(kernel.name, function);
    if (device.lost()) return status;
    if (!status.ok()) {
      absent.push_back(quoted(kernel.name));
      continue;
    }
    int values[8] = {};
    if (ask != nullptr)
      for (const int which : {kMostThreads, kSharedBytes, kLocalBytes, kRegisters, kBinaryVersion}) ask(&values[which], which, function);
    local += values[kLocalBytes] > 0;
    tight += values[kMostThreads] > 0 && values[kMostThreads] < 256;
    binary = values[kBinaryVersion];
    kernels.push_back(object({{"name", quoted(kernel.name)}, {"registers", number(values[kRegisters])}, {"shared", number(values[kSharedBytes])},
                              {"local", number(values[kLocalBytes])}, {"threads", number(values[kMostThreads])}}));
  }
  const double seconds = now() - start;
  const GpuInfo& info = device.info();
  say("%s, compute capability %d.%d, %.1f GiB, driver for CUDA %s", info.name.c_str(), info.major, info.minor, static_cast<double>(info.memory) / (1 << 30),
      version_name(device.driver().version).c_str());
  say("kernels in the file   %zu of %zu, found in %.2f s; %d with memory that is no register, %d that do not fit 256 threads; code for %d.%d", kernels.size(),
      std::size(kKernels), seconds, local, tight, binary / 10, binary % 10);
  found = {{"card", quoted(info.name)},
           {"capability", quoted(std::to_string(info.major) + "." + std::to_string(info.minor))},
           {"memoryBytes", number(static_cast<double>(info.memory))},
           {"multiprocessors", number(info.multiprocessors)},
           {"sharedBytes", number(static_cast<double>(info.shared_memory))},
           {"cuda", quoted(version_name(device.driver().version))},
           {"bandwidthByClocks", number(info.bandwidth)},
           {"bf16ByClocks", number(info.bf16)},
           {"codeFor", number(binary)},
           {"missing", array(absent)},
           {"kernels", array(kernels)}};
  return absent.empty() ? Status() : Status(Code::native_failed, "[bench] every kernel is in the file; " + std::to_string(absent.size()) + " are not");
}

static Status run(const std::string& part, const KernelFile& kernels, bool small, const std::string& only, Pieces& pieces) {
  std::unique_ptr<Device> device;
  TANDEM_TRY(open_card(kernels, device));
  pieces.on(*device);
  if (part == "describe") return pieces.run("card", [&](Fields& found) { return describe(*device, found); });
  if (part == "copies") return copies(*device, small, pieces);
  if (part == "uploads") return uploads(*device, small, pieces);
  if (part == "hand-overs") return hand_overs(*device, small, pieces);
  if (part == "timings") return timings(*device, small, only, pieces);
  return Status(Code::request_invalid, "[bench] a part is describe, copies, uploads, hand-overs or timings; given " + part);
}

}  // namespace tandem::bench

int main(int count, char** arguments) {
  using namespace tandem;
  if (count < 4) {
    std::fprintf(stderr, "usage: gpu_card PART KERNELS VERSION [small] [only=TEXT]\n");
    return 2;
  }
  bool small = false;
  std::string only;
  for (int i = 4; i < count; i++) {
    if (std::strcmp(arguments[i], "small") == 0) small = true;
    if (std::strncmp(arguments[i], "only=", 5) == 0) only = arguments[i] + 5;
  }
  return bench::in_pieces(60, [&](bench::Pieces& pieces) { return bench::run(arguments[1], {arguments[2], std::atoi(arguments[3])}, small, only, pieces); });
}
