// What a card does with the parts that carry a pass: `gpu_card KERNELS VERSION [LAYERS]`. Every kernel of this version is found in the
// file; device and bus copies are timed, the ceilings that kernels are held against; a pass that computes nothing gives
// what a hand-over costs. One JSON object on stdout. Over the fake driver (TANDEM_CUDA_LIBRARY) it runs too, its times mean nothing.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "cuda/kernels/list.h"
#include "cuda/pass.h"
#include "test/placed_program.h"

using namespace tandem;
using namespace tandem::cuda;

namespace {

constexpr int64_t kHidden = 7168;  // DeepSeek-V3
constexpr int64_t kRounds = 20;

double seconds_of(const std::function<Status()>& work, Status& status) {
  const auto start = std::chrono::steady_clock::now();
  if (status.ok()) status = work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double median(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return all[all.size() / 2];
}

Status find_kernels(Device& device, std::string& missing, int& found) {
  const char* names[] = {
#define NAME(name, ...) "tandem_" #name,
      TANDEM_CUDA_KERNELS(NAME)
#undef NAME
  };
  for (const char* name : names) {
    FunctionHandle* function = nullptr;
    const Status status = device.function(name, function);
    if (device.lost()) return status;
    if (status.ok()) found++;
    else missing += (missing.empty() ? "\"" : ", \"") + std::string(name) + "\"";
  }
  return {};
}

// Bytes a second of each way, of copies as large as a quarter of what is free, at most 1 GiB.
Status copies(Device& device, double& within, double& in, double& out) {
  size_t free = 0;
  TANDEM_TRY(device.free_memory(free));
  const size_t bytes = std::min<size_t>(free / 4, size_t{1} << 30);
  Memory a, b;
  Pinned host;
  Stream stream;
  TANDEM_TRY(device.allocate(bytes, "copies", a));
  TANDEM_TRY(device.allocate(bytes, "copies", b));
  TANDEM_TRY(device.pin(std::min<size_t>(bytes, size_t{1} << 28), "copies", host));
  TANDEM_TRY(device.stream(stream));
  const auto rate = [&](size_t moved, const std::function<Status()>& copy, double& result) -> Status {
    Status status;
    std::vector<double> times;
    for (int64_t i = 0; i < kRounds; i++)
      times.push_back(seconds_of([&]() -> Status {
        TANDEM_TRY(copy());
        return stream.finish();
      }, status));
    result = static_cast<double>(moved) / median(times);
    return status;
  };
  TANDEM_TRY(rate(2 * bytes, [&] { return stream.copy_within(b.get(), a.get(), bytes); }, within));  // read and written
  TANDEM_TRY(rate(host.size(), [&] { return stream.copy_in(a.get(), host.data(), host.size()); }, in));
  return rate(host.size(), [&] { return stream.copy_out(host.data(), a.get(), host.size()); }, out);
}

// Layers of a hybrid model for one token, of which nothing but copies and words is left.
test::PlacedProgram empty_layers(int layers) {
  test::PlacedProgram p;
  uint32_t x = p.copy(p.step("embed", "cpu", {}, kHidden), "cuda:0");
  for (int layer = 0; layer < layers; layer++) {
    const uint32_t ids = p.step("router", "cuda:0", {x}, 8);
    const uint32_t a = p.copy(x, "cpu"), b = p.copy(ids, "cpu");
    p.submit(layer, 1);
    const uint32_t routed = p.step("experts", "cpu", {a, b}, kHidden);
    p.wait(layer);
    x = p.step("add", "cuda:0", {x, p.copy(routed, "cuda:0")}, kHidden);
  }
  p.plan();
  return p;
}

// Seconds a layer.
Status hand_over(Device& device, int layers, bool graph, double& result) {
  const test::PlacedProgram placed = empty_layers(layers);
  Schedule schedule;
  TANDEM_TRY(make_schedule(placed.program, schedule));
  std::unique_ptr<PassRunner> runner;
  TANDEM_TRY(PassRunner::create(placed.program, std::move(schedule), {&device}, {1, 1}, {}, runner));
  StepRunner steps;
  steps.launch = [](uint32_t, Stream&, PassRows) { return Status(); };
  steps.compute = [](uint32_t) { return Status(); };
  PassRunner::Options options;
  options.graph = graph;
  Status status = runner->run({1, 1}, steps, options);  // captures
  std::vector<double> times;
  for (int64_t i = 0; i < kRounds; i++) times.push_back(seconds_of([&] { return runner->run({1, 1}, steps, options); }, status));
  result = median(times) / layers;
  return status;
}

Status measure(const KernelFile& kernels, int layers) {
  std::unique_ptr<Device> device;
  TANDEM_TRY(Device::open(0, kernels, device));
  std::string missing;
  int found = 0;
  double within = 0, in = 0, out = 0, graph = 0, eager = 0;
  TANDEM_TRY(find_kernels(*device, missing, found));
  TANDEM_TRY(copies(*device, within, in, out));
  TANDEM_TRY(hand_over(*device, layers, true, graph));
  TANDEM_TRY(hand_over(*device, layers, false, eager));
  const GpuInfo& info = device->info();
  std::printf("{\"card\": \"%s\", \"capability\": \"%d.%d\", \"memoryBytes\": %lld, \"cuda\": \"%s\",\n", info.name.c_str(), info.major, info.minor,
              static_cast<long long>(info.memory), version_name(device->driver().version).c_str());
  std::printf(" \"kernels\": {\"found\": %d, \"missing\": [%s]},\n", found, missing.c_str());
  std::printf(" \"bytesPerSecond\": {\"within\": %.4g, \"in\": %.4g, \"out\": %.4g, \"byDataSheet\": %.4g},\n", within, in, out, info.bandwidth);
  std::printf(" \"handOverMicroseconds\": {\"layers\": %d, \"graph\": %.4g, \"eager\": %.4g}}\n", layers, graph * 1e6, eager * 1e6);
  return {};
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: gpu_card KERNELS VERSION [LAYERS]\n");
    return 2;
  }
  const Status status = measure({arguments[1], std::atoi(arguments[2])}, count > 3 ? std::atoi(arguments[3]) : 58);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.message().c_str());
  return status.ok() ? 0 : 1;
}
