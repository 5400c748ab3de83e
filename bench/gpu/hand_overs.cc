// What a hand-over between a GPU and the CPU costs (decision 015): passes of the product that compute nothing, graph and eager; and
// beside them the candidates by themselves, a graph each of `layers` hand-overs on one stream: none (copies alone), words that the
// stream writes and waits for, a kernel of one thread that polls the word, host nodes.
#include <atomic>
#include <cstring>
#include <thread>

#include "cuda/pass.h"
#include "measure.h"
#include "pieces.h"
#include "test/placed_program.h"

namespace tandem::bench {

using namespace cuda;

namespace {

constexpr int64_t kHidden = 7168;  // DeepSeek-V3: 28 KB a token each way
constexpr int kRounds = 20;

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

// Seconds a layer of the product's own passes.
Status of_passes(Device& device, int layers, bool graph, double& result) {
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
  options.watch.limit = std::chrono::milliseconds(10000);
  TANDEM_TRY(runner->run({1, 1}, steps, options));  // captures
  std::vector<double> times;
  for (int i = 0; i < kRounds; i++) {
    const double start = now();
    TANDEM_TRY(runner->run({1, 1}, steps, options));
    times.push_back(now() - start);
  }
  result = median(times) / layers;
  return {};
}

// The word becomes `value`, after all before it; and a wait for it that ends by itself after two seconds.
constexpr const char* kPost =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry post(.param .u64 word, .param .u32 value)\n{\n .reg .u64 %w;\n .reg .u32 %v;\n"
    " ld.param.u64 %w, [word];\n ld.param.u32 %v, [value];\n fence.acq_rel.sys;\n st.release.sys.global.u32 [%w], %v;\n ret;\n}\n";
constexpr const char* kPoll =
    ".version 7.0\n.target sm_80\n.address_size 64\n.visible .entry poll(.param .u64 word, .param .u32 value)\n{\n .reg .u64 %w, %start, %time;\n .reg .s32 %v, %seen;\n .reg .pred %p;\n"
    " ld.param.u64 %w, [word];\n ld.param.u32 %v, [value];\n mov.u64 %start, %globaltimer;\n"
    "again:\n ld.acquire.sys.global.s32 %seen, [%w];\n sub.s32 %seen, %seen, %v;\n setp.ge.s32 %p, %seen, 0;\n @%p bra over;\n"
    " mov.u64 %time, %globaltimer;\n sub.u64 %time, %time, %start;\n setp.lt.u64 %p, %time, 2000000000;\n @%p bra again;\nover:\n ret;\n}\n";

enum class Kind { copies, words, kernels, host };

using HostFunction = void (*)(void*);

struct Hand {
  Pinned words, in, out;
  Memory memory;
  Text post, poll;
  Result (*host)(StreamHandle*, HostFunction, void*) = nullptr;
  Stream stream;
};

Status give_layer(Hand& hand, Kind kind, uint32_t layer, StreamHandle* handle, Device& device) {
  TANDEM_TRY(hand.stream.copy_out(hand.out.data(), hand.memory.get(), hand.out.size()));
  Address posted = hand.words.address(), done = posted + 128;
  const auto kernel = [&](Text& text, Address word) {
    void* list[] = {&word, &layer};
    return hand.stream.launch(text.function(), {1, 1, 1}, {1, 1, 1}, 0, list);
  };
  if (kind == Kind::words) {
    TANDEM_TRY(hand.stream.write_value(posted, layer));
    TANDEM_TRY(hand.stream.wait_value(done, layer));
  } else if (kind == Kind::kernels) {
    TANDEM_TRY(kernel(hand.post, posted));
    TANDEM_TRY(kernel(hand.poll, done));
  } else if (kind == Kind::host) {
    TANDEM_TRY(device.check(hand.host(handle, [](void* count) { ++*static_cast<std::atomic<uint32_t>*>(count); }, hand.words.data() + 256), "call the machine"));
  }
  return hand.stream.copy_in(hand.memory.get(), hand.in.data(), hand.in.size());
}

// Seconds a layer; below 0: the driver or the card has it not.
Status of_kind(Device& device, Kind kind, int layers, double& result) {
  result = -1;
  Hand hand;
  TANDEM_TRY(device.pin(4096, "words", hand.words));
  TANDEM_TRY(device.pin(kHidden * 4, "hidden states", hand.in));
  TANDEM_TRY(device.pin(kHidden * 4, "hidden states", hand.out));
  TANDEM_TRY(device.allocate(kHidden * 4, "hidden states", hand.memory));
  TANDEM_TRY(device.stream(hand.stream));
  if (kind == Kind::kernels) {
    TANDEM_TRY(hand.post.load(device, kPost, "post"));
    TANDEM_TRY(hand.poll.load(device, kPoll, "poll"));
    if (hand.post.function() == nullptr || hand.poll.function() == nullptr) return {};
  }
  hand.host = reinterpret_cast<decltype(hand.host)>(driver_call("cuLaunchHostFunc"));
  if (kind == Kind::host && hand.host == nullptr) return {};
  TANDEM_TRY(hand.stream.begin_capture());
  Status status;
  for (int layer = 1; status.ok() && layer <= layers; layer++) status = give_layer(hand, kind, static_cast<uint32_t>(layer), hand.stream.handle(), device);
  GraphExec graph;
  const Status ended = hand.stream.end_capture(graph);
  TANDEM_TRY(status);
  TANDEM_TRY(ended);
  uint32_t* const posted = reinterpret_cast<uint32_t*>(hand.words.data());
  uint32_t* const done = reinterpret_cast<uint32_t*>(hand.words.data() + 128);
  const auto pass = [&]() -> Status {
    __atomic_store_n(posted, 0u, __ATOMIC_RELEASE);
    __atomic_store_n(done, 0u, __ATOMIC_RELEASE);
    TANDEM_TRY(hand.stream.launch(graph));
    if (kind != Kind::words && kind != Kind::kernels) return {};
    const double end = now() + 10;
    for (uint32_t layer = 1; layer <= static_cast<uint32_t>(layers); layer++) {
      while (__atomic_load_n(posted, __ATOMIC_ACQUIRE) < layer) {
        if (now() < end) continue;
        __atomic_store_n(done, uint32_t{1} << 30, __ATOMIC_RELEASE);  // lets the card go on
        return Status(Code::native_failed, "[bench] a word is seen within 10 s; it was not");
      }
      __atomic_store_n(done, layer, __ATOMIC_RELEASE);
    }
    return {};
  };
  double seconds = 0;
  TANDEM_TRY(time_work(hand.stream, kRounds, pass, seconds));
  result = seconds / layers;
  return {};
}

}  // namespace

Status hand_overs(Device& device, bool small, Pieces& pieces) {
  const int layers = small ? 4 : 58;
  pieces.tell("layers", number(layers));
  for (const bool graph : {true, false}) {
    TANDEM_TRY(pieces.run(graph ? "passes, a graph" : "passes, eager", [&](Fields& found) -> Status {
      double seconds = 0;
      TANDEM_TRY(of_passes(device, layers, graph, seconds));
      say("a hand-over           %.1f us %s (%d layers, 28 KB each way, two streams)", seconds * 1e6, graph ? "in a graph" : "eager", layers);
      found = {{"microseconds", number(seconds * 1e6)}};
      return {};
    }));
  }
  const char* const names[] = {"copies alone", "a: words, waited for by the stream", "b: words, polled by a kernel", "host nodes"};
  for (const Kind kind : {Kind::copies, Kind::words, Kind::kernels, Kind::host}) {
    const char* const name = names[static_cast<int>(kind)];
    TANDEM_TRY(pieces.run(name, [&](Fields& found) -> Status {
      double seconds = 0;
      TANDEM_TRY(of_kind(device, kind, layers, seconds));
      if (seconds < 0) say("  %-36s not to be had here", name);
      else say("  %-36s %.1f us a layer", name, seconds * 1e6);
      found = {{"microseconds", seconds < 0 ? "null" : number(seconds * 1e6)}};
      return {};
    }));
  }
  return {};
}

}  // namespace tandem::bench
