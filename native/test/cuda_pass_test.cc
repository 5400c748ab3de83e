#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "cuda/pass.h"
#include "cuda/upload_ring.h"
#include "test/fake_cuda.h"
#include "test/placed_program.h"

namespace tandem::cuda {

using test::FakeCuda;
using test::mentions;
using test::PlacedProgram;

namespace {

constexpr int64_t kMost = 8;

// What every step of the tests computes, wherever it is: numbers that depend on the step, the pass and all inputs.
void mix(uint32_t step, uint32_t pass, const std::vector<std::pair<const float*, int64_t>>& inputs, float* out, int64_t columns, int64_t rows) {
  for (int64_t r = 0; r < rows; r++)
    for (int64_t c = 0; c < columns; c++) {
      float sum = static_cast<float>(step + 1) + static_cast<float>(pass) * 0.5f;
      for (const auto& [data, width] : inputs) sum = sum * 0.5f + data[r * width + c % width];
      out[r * columns + c] = sum;
    }
}

struct Mix {
  uint32_t step;
  const uint32_t* pass;
  int64_t rows, columns;
  const float* in[2];
  int64_t width[2];
  float* out;
};

void mix_kernel(const unsigned*, const unsigned*, unsigned, void** parameters) {
  Mix m;
  std::memcpy(&m, parameters[0], sizeof m);
  std::vector<std::pair<const float*, int64_t>> inputs;
  for (int i = 0; i < 2; i++)
    if (m.in[i] != nullptr) inputs.emplace_back(m.in[i], m.width[i]);
  mix(m.step, *m.pass, inputs, m.out, m.columns, m.rows);
}

void slow_mix_kernel(const unsigned* grid, const unsigned* block, unsigned shared, void** parameters) {
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  mix_kernel(grid, block, shared, parameters);
}

// A Program on fake devices, and the same computed step by step.
struct Bench {
  FakeCuda& fake;
  PlacedProgram placed;
  std::vector<std::unique_ptr<Device>> devices;
  std::unique_ptr<PassRunner> runner;
  Pinned pass;  // its number, as graphs read what changes
  int fail_at = -1;  // step of the CPU that fails
  int computed = 0;
  std::function<void()> meanwhile;  // beside each step of the CPU
  std::vector<int> asked;  // how often the driver was asked, at each step of the CPU

  Bench(FakeCuda& fake, PlacedProgram program) : fake(fake), placed(std::move(program)) {
    const size_t size = sizeof(Mix);
    fake.kernel("mix", mix_kernel, &size, 1);
  }
  Status open() {
    Schedule schedule;
    TANDEM_TRY(make_schedule(placed.program, schedule));
    std::vector<Device*> list;
    for (const int ordinal : schedule.devices) {
      devices.emplace_back();
      TANDEM_TRY(Device::open(ordinal, fake.kernels, devices.back()));
      list.push_back(devices.back().get());
    }
    TANDEM_TRY(list[0]->pin(4, "the pass", pass));
    return PassRunner::create(placed.program, std::move(schedule), list, {kMost, kMost}, {}, runner);
  }
  uint32_t* number() { return reinterpret_cast<uint32_t*>(pass.data()); }

  Status run(int64_t rows, const PassRunner::Options& options) {
    StepRunner steps;
    steps.launch = [this](uint32_t index, Stream& stream, PassRows rows) -> Status {
      const Step& step = placed.program.steps[index];
      Mix m{};
      m.step = index;
      m.pass = number();
      m.rows = rows.tokens;
      m.columns = placed.program.values[step.outputs[0]].columns;
      for (size_t i = 0; i < step.inputs.size(); i++) {
        m.in[i] = reinterpret_cast<const float*>(runner->address(step.inputs[i].index));
        m.width[i] = step.inputs[i].columns;
      }
      m.out = reinterpret_cast<float*>(runner->address(step.outputs[0]));
      FunctionHandle* function = nullptr;
      TANDEM_TRY(stream.device().function("mix", function));
      void* arguments[] = {&m};
      return stream.launch(function, {}, {}, 0, arguments);
    };
    steps.compute = [this, rows](uint32_t index) -> Status {
      computed++;
      asked.push_back(fake.calls("cuStreamQuery"));
      if (meanwhile) meanwhile();
      if (static_cast<int>(index) == fail_at) return Status(Code::model_invalid, "a kernel of the CPU failed");
      const Step& step = placed.program.steps[index];
      std::vector<std::pair<const float*, int64_t>> inputs;
      for (const Operand& input : step.inputs) inputs.emplace_back(reinterpret_cast<const float*>(runner->host(input.index)), input.columns);
      mix(index, *number(), inputs, reinterpret_cast<float*>(runner->host(step.outputs[0])), placed.program.values[step.outputs[0]].columns, rows);
      return {};
    };
    return runner->run({rows, rows}, steps, options);
  }

  // The last value, which is the CPU's, as it should be.
  bool right(int64_t rows) {
    const Program& p = placed.program;
    std::vector<std::vector<float>> values(p.values.size());
    uint32_t last = 0;
    for (uint32_t i = 0; i < p.steps.size(); i++) {
      const Step& step = p.steps[i];
      if (step.outputs.empty()) continue;
      const uint32_t out = step.outputs[0];
      values[out].resize(static_cast<size_t>(rows * p.values[out].columns));
      std::vector<std::pair<const float*, int64_t>> inputs;
      for (const Operand& input : step.inputs) inputs.emplace_back(values[input.index].data(), input.columns);
      if (step.op == "copy") values[out] = values[step.inputs[0].index];
      else mix(i, *number(), inputs, values[out].data(), p.values[out].columns, rows);
      if (step.device == "cpu") last = out;
    }
    return std::memcmp(values[last].data(), runner->host(last), values[last].size() * 4) == 0;
  }
};

PassRunner::Options options(bool graph, int milliseconds = 60000) {
  PassRunner::Options made;
  made.graph = graph;
  made.watch.limit = made.settle = std::chrono::milliseconds(milliseconds);
  return made;
}

// Ends with what a CPU reads, so that the end can be compared.
PlacedProgram random_with_end(uint32_t seed) {
  PlacedProgram p = test::random_program(seed);
  const auto tasks = std::count_if(p.program.steps.begin(), p.program.steps.end(), [](const Step& s) { return s.op == "submit"; });
  uint32_t last = 0;
  for (uint32_t id = 0; id < p.devices.size(); id++)
    if (p.devices[id] == "cuda:0") last = id;
  const uint32_t read = p.copy(last, "cpu");
  p.submit(static_cast<int>(tasks), 1);
  p.step("sample", "cpu", {read}, 1);
  p.wait(static_cast<int>(tasks));
  p.program.slots.clear();
  p.plan();
  return p;
}

}  // namespace

TEST(cuda_passes_compute_what_the_steps_say) {
  FakeCuda fake("gpus=2");
  for (uint32_t seed = 0; seed < 24; seed++) {
    Bench bench(fake, seed < 4 ? test::hybrid(3, seed % 2 == 1) : random_with_end(seed));
    EXPECT_OK(bench.open());
    if (!bench.runner) return;
    for (const bool graph : {false, true})
      for (uint32_t pass = 0; pass < 3; pass++) {
        const int64_t rows = graph_bucket(1 + (pass + seed) % 5, kMost);
        *bench.number() = pass;
        EXPECT_OK(bench.run(rows, options(graph)));
        EXPECT(bench.right(rows));
      }
    EXPECT(bench.runner->graphs() >= 1 && bench.runner->graphs() <= 3);
  }
}

TEST(cuda_a_graph_serves_every_pass_of_its_rows) {
  FakeCuda fake;
  Bench bench(fake, test::hybrid(2, true));
  EXPECT_OK(bench.open());
  for (uint32_t pass = 0; pass < 10; pass++) {
    *bench.number() = pass;
    const int launches = fake.calls("cuLaunchKernel");
    EXPECT_OK(bench.run(pass % 2 == 0 ? 2 : 4, options(true)));
    EXPECT(bench.right(pass % 2 == 0 ? 2 : 4));
    EXPECT((fake.calls("cuLaunchKernel") == launches) == (pass >= 2));
  }
  EXPECT(bench.runner->graphs() == 2 && fake.calls("cuGraphLaunch") == 10);
}

// Another thread may hold the driver until the card rests, which waits for this one.
TEST(cuda_nobody_asks_the_driver_while_a_graph_waits_for_the_cpu) {
  FakeCuda fake;
  Bench bench(fake, test::hybrid(3, false));
  const size_t size = sizeof(Mix);
  fake.kernel("mix", slow_mix_kernel, &size, 1);
  EXPECT_OK(bench.open());
  for (const bool graph : {true, false}) {
    bench.asked.clear();
    EXPECT_OK(bench.run(1, options(graph)));
    EXPECT(bench.right(1));
    EXPECT((bench.asked.back() == bench.asked.front()) == graph);
  }
}

// It holds up every call until the card rests: uploads are given and errors are looked for by threads that nobody waits for.
TEST(cuda_memory_given_back_meanwhile_holds_up_no_graph) {
  FakeCuda fake("free=waits");
  Bench bench(fake, test::hybrid(3, false));
  EXPECT_OK(bench.open());
  Device& device = *bench.devices[0];
  Memory target, other;
  EXPECT_OK(device.allocate(1024, "a test", target));
  EXPECT_OK(device.allocate(1024, "a test", other));
  UploadRing ring;
  EXPECT_OK(ring.open(device, {2, 1024, 1, false}));
  std::atomic<bool> filled{false};
  UploadRing::Job job;
  job.to = target.get();
  job.bytes = 1024;
  job.fill = [&](size_t, size_t bytes, uint8_t* to) {
    std::memset(to, 1, bytes);
    filled = true;
  };
  ring.push(std::move(job));
  while (!filled) std::this_thread::yield();
  std::thread gives_back;
  bench.meanwhile = [&] {
    if (!gives_back.joinable()) {
      gives_back = std::thread([&] { other.release(); });
      while (fake.calls("cuMemFree_v2") == 0) std::this_thread::yield();
    }
    ring.turn();
  };
  EXPECT_OK(bench.run(1, options(true)));
  EXPECT(bench.right(1));
  gives_back.join();
  for (size_t arrived = 0; arrived < 1;) {
    ring.turn();
    EXPECT_OK(ring.arrived(arrived));
    std::this_thread::yield();
  }
}

TEST(cuda_errors_of_a_graph_are_found_by_a_thread_that_nobody_waits_for) {
  FakeCuda fake("free=waits");
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  Pinned word;
  Memory memory;
  EXPECT_OK(device->pin(4, "a test", word));
  EXPECT_OK(device->allocate(64, "a test", memory));
  std::vector<Stream> streams(1);
  EXPECT_OK(device->stream(streams[0]));
  ErrorWatch watch(streams, std::chrono::milliseconds(1));
  EXPECT_OK(streams[0].wait_value(word.address(), 1));
  const int before = fake.calls("cuStreamQuery");
  std::thread gives_back([&] { memory.release(); });
  while (fake.calls("cuMemFree_v2") == 0) std::this_thread::yield();
  watch.begin();
  EXPECT_OK(watch.status());
  __atomic_store_n(reinterpret_cast<uint32_t*>(word.data()), 1u, __ATOMIC_RELEASE);
  gives_back.join();
  while (fake.calls("cuStreamQuery") == before) std::this_thread::yield();
  watch.end();
  EXPECT_OK(watch.status());
  fake.fail("cuStreamQuery", 2, 719);
  watch.begin();
  while (watch.status().ok()) std::this_thread::yield();
  watch.end();
  EXPECT(mentions(watch.status().message(), "was lost"));
}

TEST(cuda_a_step_of_the_cpu_that_fails_ends_the_pass) {
  FakeCuda fake;
  Bench bench(fake, test::hybrid(3, true));
  EXPECT_OK(bench.open());
  for (const bool graph : {false, true})
    for (uint32_t i = 0; i < bench.placed.program.steps.size(); i++) {
      const Step& step = bench.placed.program.steps[i];
      if (step.device != "cpu" || step.op == "copy" || step.outputs.empty()) continue;
      bench.fail_at = static_cast<int>(i);
      EXPECT(bench.run(2, options(graph)).code() == Code::model_invalid);
      bench.fail_at = -1;
      EXPECT_OK(bench.run(2, options(graph)));  // the next one is whole
      EXPECT(bench.right(2));
    }
}

TEST(cuda_a_driver_that_fails_ends_the_pass) {
  for (const bool graph : {false, true})
    for (const char* symbol : {"cuLaunchKernel", "cuMemcpyDtoHAsync_v2", "cuMemcpyHtoDAsync_v2", "cuStreamWriteValue32_v2", "cuStreamWaitValue32_v2", "cuEventRecord",
                               "cuStreamWaitEvent", "cuStreamBeginCapture_v2", "cuStreamEndCapture", "cuGraphInstantiateWithFlags", "cuGraphLaunch", "cuStreamQuery"})
      for (const int code : {1, 719})
        for (const int nth : {1, 4}) {
          FakeCuda fake;
          Bench bench(fake, test::hybrid(3, false));
          EXPECT_OK(bench.open());
          fake.fail(symbol, nth, code);
          const int before = fake.calls(symbol);
          const Status status = bench.run(2, options(graph));
          const bool met = fake.calls(symbol) - before >= nth;
          EXPECT(status.ok() != met);
          EXPECT(bench.devices[0]->lost() == (met && code == 719));
          if (!met) continue;
          const Status again = bench.run(2, options(graph));
          if (code == 719) EXPECT(mentions(again.message(), "was lost"));
          else EXPECT(again.ok() && bench.right(2));
        }
}

TEST(cuda_a_gpu_that_stalls_ends_the_pass) {
  for (const bool graph : {false, true}) {
    FakeCuda fake;
    Bench bench(fake, test::hybrid(2, false));
    EXPECT_OK(bench.open());
    fake.stall(true);
    const Status status = bench.run(2, options(graph, 30));
    EXPECT(mentions(status.message(), "handed nothing over for 30 ms"));
    EXPECT(bench.devices[0]->lost());  // nobody knows what it still writes
    EXPECT(mentions(bench.run(2, options(graph)).message(), "comes to rest"));
  }
}

TEST(cuda_a_pass_nobody_wants_ends) {
  FakeCuda fake;
  Bench bench(fake, test::hybrid(2, false));
  EXPECT_OK(bench.open());
  fake.stall(true);
  PassRunner::Options wanted = options(true);
  int asked = 0;
  wanted.watch.alive = [&] {
    if (++asked < 5) return Status();
    fake.stall(false);
    return Status(Code::disposed, "the model was disposed during a pass");
  };
  EXPECT(bench.run(2, wanted).code() == Code::disposed);
  EXPECT(!bench.devices[0]->lost());
  EXPECT_OK(bench.run(2, options(true)));
  EXPECT(bench.right(2));
}

TEST(cuda_too_many_rows_are_refused) {
  FakeCuda fake("memory=100");
  Bench small(fake, test::hybrid(1, false));
  const Status status = small.open();
  EXPECT(status.code() == Code::out_of_memory && mentions(status.message(), "the buffers fit into the memory of cuda:0"));
  fake.reset("");
  Bench bench(fake, test::hybrid(1, false));
  EXPECT_OK(bench.open());
  EXPECT(bench.run(kMost + 1, options(false)).code() == Code::request_invalid);
}

TEST(cuda_graph_buckets) {
  EXPECT((graph_buckets(1) == std::vector<int64_t>{1}));
  EXPECT((graph_buckets(8) == std::vector<int64_t>{1, 2, 4, 8}));
  EXPECT((graph_buckets(24) == std::vector<int64_t>{1, 2, 4, 8, 16, 24}));
  EXPECT(graph_bucket(1, 24) == 1 && graph_bucket(3, 24) == 4 && graph_bucket(17, 24) == 24 && graph_bucket(25, 24) == 0 && graph_bucket(0, 24) == 0);
}

}  // namespace tandem::cuda
