#include "measure.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>

#include "pieces.h"

namespace tandem::bench {

using namespace cuda;

double median(std::vector<double> all) {
  std::sort(all.begin(), all.end());
  return all.empty() ? 0 : all[all.size() / 2];
}

Status finish(Stream& stream, double seconds) {
  const double end = now() + seconds;
  return stream.finish([&]() -> Status {
    if (now() < end) return {};
    stream.device().give_up(Status(Code::native_failed, "[bench] a card does what it is given within " + std::to_string(static_cast<int>(seconds)) + " s; it did not"));
    return stream.device().loss();
  });
}

Status time_work(Stream& stream, int rounds, const std::function<Status()>& work, double& seconds) {
  std::vector<double> times;
  for (int round = 0; round <= rounds; round++) {
    const double start = now();
    TANDEM_TRY(work());
    TANDEM_TRY(finish(stream));
    if (round > 0) times.push_back(now() - start);
  }
  seconds = median(times);
  return {};
}

static Status time_graph(Stream& stream, int count, const std::function<Status(Stream&, int)>& launch, double& seconds) {
  TANDEM_TRY(stream.begin_capture());
  Status status;
  for (int i = 0; status.ok() && i < count; i++) status = launch(stream, i);
  GraphExec graph;
  const Status ended = stream.end_capture(graph);
  TANDEM_TRY(status);
  TANDEM_TRY(ended);
  TANDEM_TRY(time_work(stream, 7, [&] { return stream.launch(graph); }, seconds));
  seconds /= count;
  return {};
}

Status time_launches(Device& device, const std::function<Status(Stream&, int)>& launch, double& seconds) {
  Stream stream;
  TANDEM_TRY(device.stream(stream));
  TANDEM_TRY(time_graph(stream, 4, launch, seconds));
  const int count = static_cast<int>(std::clamp(4e-3 / std::max(seconds, 1e-7), 4.0, 400.0));
  return count == 4 ? Status() : time_graph(stream, count, launch, seconds);
}

void* driver_call(const char* symbol) {
  const char* const named = std::getenv("TANDEM_CUDA_LIBRARY");
  void* const library = dlopen(named == nullptr || *named == 0 ? "libcuda.so.1" : named, RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : dlsym(library, symbol);
}

Status Text::load(Device& device, const char* ptx, const char* name) {
  TANDEM_TRY(device.enter());
  const Driver& driver = device.driver();
  Result code = driver.module_load(&module_, ptx);
  if (code == result::kSuccess) code = driver.module_function(&function_, module_, name);
  if (code != result::kSuccess) {
    function_ = nullptr;
    problem_ = driver.describe(code);
  }
  return {};
}

namespace {

constexpr int kProducts = 8, kRepeats = 64;

// Eight sums a warp, so that no product waits for the one before; the sums are stored where they are not numbers, which is never.
std::string product_loop() {
  std::string text =
      ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry products(.param .u64 out, .param .u32 rounds)\n{\n"
      " .reg .f32 %d<32>;\n .reg .b32 %a<8>;\n .reg .u32 %n;\n .reg .u64 %o;\n .reg .pred %p;\n"
      " ld.param.u64 %o, [out];\n ld.param.u32 %n, [rounds];\n mov.u32 %a0, %tid.x;\n";
  for (int i = 1; i < 6; i++) text += " xor.b32 %a" + std::to_string(i) + ", %a0, " + std::to_string(0x3f803f80u ^ static_cast<unsigned>(i * 257)) + ";\n";
  for (int i = 0; i < 4 * kProducts; i++) text += " mov.f32 %d" + std::to_string(i) + ", 0f00000000;\n";
  text += "again:\n";
  for (int r = 0; r < kRepeats / kProducts; r++)
    for (int i = 0; i < kProducts; i++) {
      std::string sums;
      for (int j = 0; j < 4; j++) sums += (j == 0 ? "%d" : ", %d") + std::to_string(4 * i + j);
      text += " mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {" + sums + "}, {%a1, %a2, %a3, %a4}, {%a5, %a1}, {" + sums + "};\n";
    }
  text += " sub.u32 %n, %n, 1;\n setp.ne.u32 %p, %n, 0;\n @%p bra again;\n";
  for (int i = 1; i < 4 * kProducts; i++) text += " add.f32 %d0, %d0, %d" + std::to_string(i) + ";\n";
  return text + " setp.eq.f32 %p, %d0, 0f4B3C614E;\n @%p st.global.f32 [%o], %d0;\n ret;\n}\n";
}

// 0 where the driver has no compiler for it.
Status product_rate(Device& device, double& rate) {
  rate = 0;
  Text text;
  TANDEM_TRY(text.load(device, product_loop().c_str(), "products"));
  if (text.function() == nullptr) return {};
  Memory out;
  Stream stream;
  TANDEM_TRY(device.allocate(256, "a sum", out));
  TANDEM_TRY(device.stream(stream));
  Address to = out.get();
  uint32_t rounds = 512;
  void* list[] = {&to, &rounds};
  const unsigned blocks = static_cast<unsigned>(device.info().multiprocessors) * 8;
  double seconds = 0;
  TANDEM_TRY(time_work(stream, 5, [&] { return stream.launch(text.function(), {blocks, 1, 1}, {256, 1, 1}, 0, list); }, seconds));
  rate = static_cast<double>(blocks) * 8 * rounds * kRepeats * (2.0 * 16 * 8 * 16) / seconds;
  return {};
}

// Bytes of the copies: a quarter of what is free, at most 1 GiB.
Status copy_bytes(Device& device, bool small, size_t& bytes) {
  size_t free = 0;
  TANDEM_TRY(device.free_memory(free));
  bytes = std::min<size_t>(free / 4, small ? size_t{1} << 22 : size_t{1} << 30);
  return {};
}

Status copy_rate(Device& device, bool small, double& rate) {
  size_t bytes = 0;
  TANDEM_TRY(copy_bytes(device, small, bytes));
  Memory a, b;
  Stream stream;
  TANDEM_TRY(device.allocate(bytes, "copies", a));
  TANDEM_TRY(device.allocate(bytes, "copies", b));
  TANDEM_TRY(device.stream(stream));
  TANDEM_TRY(stream.fill(a.get(), 0x5a, bytes));
  double seconds = 0;
  TANDEM_TRY(time_work(stream, 10, [&] { return stream.copy_within(b.get(), a.get(), bytes); }, seconds));
  rate = 2 * static_cast<double>(bytes) / seconds;
  return {};
}

Status bus_rates(Device& device, bool small, double& in, double& out) {
  size_t bytes = 0;
  TANDEM_TRY(copy_bytes(device, small, bytes));
  bytes = std::min<size_t>(bytes, size_t{1} << 28);
  Memory a;
  Pinned host;
  Stream stream;
  TANDEM_TRY(device.allocate(bytes, "copies", a));
  TANDEM_TRY(device.pin(bytes, "copies", host));
  TANDEM_TRY(device.stream(stream));
  double seconds = 0;
  TANDEM_TRY(time_work(stream, 10, [&] { return stream.copy_in(a.get(), host.data(), bytes); }, seconds));
  in = static_cast<double>(bytes) / seconds;
  TANDEM_TRY(time_work(stream, 10, [&] { return stream.copy_out(host.data(), a.get(), bytes); }, seconds));
  out = static_cast<double>(bytes) / seconds;
  return {};
}

}  // namespace

Status measure_ceilings(Device& device, bool small, Ceilings& c) {
  TANDEM_TRY(copy_rate(device, small, c.copy));
  TANDEM_TRY(product_rate(device, c.bf16));
  if (c.bf16 == 0) c.bf16 = device.info().bf16;
  return {};
}

Status copies(Device& device, bool small, Pieces& pieces) {
  TANDEM_TRY(pieces.run("on the card", [&](Fields& found) -> Status {
    double rate = 0;
    TANDEM_TRY(copy_rate(device, small, rate));
    say("copies on the card    %.0f GB/s read and written (by its clocks %.0f)", rate / 1e9, device.info().bandwidth / 1e9);
    found = {{"bytesPerSecond", number(rate)}, {"byClocks", number(device.info().bandwidth)}};
    return {};
  }));
  TANDEM_TRY(pieces.run("over the bus", [&](Fields& found) -> Status {
    double in = 0, out = 0;
    TANDEM_TRY(bus_rates(device, small, in, out));
    say("copies over the bus   %.1f GB/s in, %.1f GB/s out, pinned", in / 1e9, out / 1e9);
    found = {{"inBytesPerSecond", number(in)}, {"outBytesPerSecond", number(out)}};
    return {};
  }));
  return pieces.run("products of bf16", [&](Fields& found) -> Status {
    double rate = 0;
    TANDEM_TRY(product_rate(device, rate));
    say("products of bf16      %.0f TFLOP/s of mma.sync (by its clocks %.0f dense)", rate / 1e12, device.info().bf16 / 1e12);
    found = {{"instruction", number(rate)}, {"byClocks", number(device.info().bf16)}};
    return {};
  });
}

}  // namespace tandem::bench
