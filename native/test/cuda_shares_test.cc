// Experts that GPUs compute beside the CPU: which of them they hold, how their bytes travel, and where they stand in a schedule.
#include <chrono>
#include <cstring>
#include <thread>

#include "cuda/hot_policy.h"
#include "cuda/schedule.h"
#include "cuda/upload_ring.h"
#include "test/fake_cuda.h"
#include "test/placed_program.h"

namespace tandem::cuda {

using test::FakeCuda;
using test::mentions;
using test::PlacedProgram;

namespace {

uint32_t next_random(uint32_t& state) { return state = state * 1664525u + 1013904223u; }

void add_digest(uint32_t& digest, int64_t number) { digest = (digest ^ static_cast<uint32_t>(static_cast<int32_t>(number))) * 16777619u; }

// `layers` of a router on a GPU, experts on the CPU with weights of f32, and their sum back on the GPU.
PlacedProgram shared(int layers, const char* format = "f32") {
  PlacedProgram p;
  for (int i = 0; i < 3; i++) {
    Weight weight;
    weight.name = "w";
    weight.format = format;
    weight.shape = {4, 4, 4};
    p.program.weights.push_back(weight);
  }
  uint32_t x = p.copy(p.step("embed", "cpu", {}), "cuda:0");
  for (int layer = 0; layer < layers; layer++) {
    const uint32_t normed = p.step("rms-norm", "cuda:0", {x}), ids = p.step("router", "cuda:0", {normed}, 2), chosen = p.step("glu", "cuda:0", {ids}, 2);
    const uint32_t a = p.copy(normed, "cpu"), b = p.copy(ids, "cpu"), c = p.copy(chosen, "cpu");
    p.submit(layer, 1);
    const uint32_t routed = p.step("experts", "cpu", {a, b, c});
    for (uint32_t weight = 0; weight < 3; weight++) p.program.steps.back().inputs.push_back({Operand::Kind::weight, weight, 0, 0});
    const uint32_t beside = p.step("linear", "cuda:0", {normed});
    x = p.step("add", "cuda:0", {x, beside});
    p.wait(layer);
    x = p.step("add", "cuda:0", {x, p.copy(routed, "cuda:0")});
  }
  return p;
}

}  // namespace

// The decisions of src/placement/hot-experts.ts over the same passes (hot-experts.test.ts has the same number).
TEST(cuda_hot_policy_decides_as_the_placement_does) {
  HotPolicy policy({8, {2, 0, 3}, 1.5});
  uint32_t random = 1, digest = 2166136261u;
  for (int pass = 0; pass < 400; pass++) {
    for (int64_t layer = 0; layer < 3; layer++)
      for (int pick = 0; pick < 2; pick++) policy.touch(layer, (next_random(random) >> 24) % 5 + static_cast<uint32_t>(pass / 150));
    policy.observe();
    const std::optional<HotPolicy::Upload> upload = policy.next();
    if (!upload) continue;
    for (const int64_t number : {upload->layer, upload->expert, upload->slot, upload->evicts}) add_digest(digest, number);
    if ((next_random(random) >> 24) % 4 == 0) policy.failed(*upload);
    else policy.done(*upload);
  }
  for (int64_t layer = 0; layer < 3; layer++)
    for (int64_t expert = 0; expert < 8; expert++) add_digest(digest, policy.table(layer)[expert]);
  if (digest != 191725866u) std::printf("%u\n", digest);
  EXPECT(digest == 191725866u);
  EXPECT(policy.held() == 5);
}

TEST(cuda_upload_ring_brings_every_byte) {
  FakeCuda fake;
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  for (const size_t places : {1, 2, 3})
    for (const int threads : {1, 3})
      for (const bool by_itself : {false, true}) {
        UploadRing ring;
        EXPECT_OK(ring.open(*device, {places, 100, threads, by_itself}));
        Stream stream;
        EXPECT_OK(device->stream(stream));
        constexpr size_t kBytes = 1234;
        Memory memory;
        EXPECT_OK(device->allocate(3 * kBytes, "a test", memory));
        for (int round = 0; round < 3; round++) {
          for (size_t job = 0; job < 3; job++) {
            UploadRing::Job all;
            all.to = memory.get() + job * kBytes;
            all.bytes = kBytes;
            all.fill = [=](size_t offset, size_t bytes, uint8_t* to) {
              for (size_t i = 0; i < bytes; i++) to[i] = static_cast<uint8_t>((offset + i) * 7 + job * 3 + static_cast<size_t>(round));
            };
            ring.push(std::move(all));
          }
          size_t arrived = 0;
          while (arrived < 3) {
            if (!by_itself) ring.turn();
            EXPECT_OK(ring.arrived(arrived));
            std::this_thread::yield();
          }
          std::vector<uint8_t> got(3 * kBytes);
          EXPECT_OK(stream.copy_out(got.data(), memory.get(), got.size()));
          EXPECT_OK(stream.finish());
          bool right = true;
          for (size_t i = 0; i < got.size(); i++) right = right && got[i] == static_cast<uint8_t>(i % kBytes * 7 + i / kBytes * 3 + static_cast<size_t>(round));
          EXPECT(right);
          EXPECT_OK(ring.reset());
        }
        EXPECT(ring.uploaded_bytes() == 9 * kBytes);
      }
}

TEST(cuda_upload_ring_tells_what_failed_and_serves_again) {
  FakeCuda fake;
  std::unique_ptr<Device> device;
  EXPECT_OK(Device::open(0, fake.kernels, device));
  UploadRing ring;
  EXPECT_OK(ring.open(*device, {2, 64, 1, true}));
  Memory memory;
  EXPECT_OK(device->allocate(1024, "a test", memory));
  const auto push = [&] {
    UploadRing::Job job;
    job.to = memory.get();
    job.bytes = 1024;
    job.fill = [](size_t, size_t bytes, uint8_t* to) { std::memset(to, 1, bytes); };
    ring.push(std::move(job));
  };
  for (const int nth : {1, 5, 16}) {
    fake.fail("cuMemcpyHtoDAsync_v2", nth, 1);
    push();
    const Status failed = ring.wait_given(1, {});
    EXPECT(failed.code() == Code::native_failed && mentions(failed.message(), "copy to a GPU"));
    EXPECT_OK(ring.reset());
    push();
    EXPECT_OK(ring.wait_given(1, {}));
    EXPECT_OK(ring.reset());
  }
  // Nobody wants it any more.
  UploadRing by_turns;
  EXPECT_OK(by_turns.open(*device, {2, 64, 1, false}));
  UploadRing::Job job;
  job.to = memory.get();
  job.bytes = 1024;
  job.fill = [](size_t, size_t bytes, uint8_t* to) { std::memset(to, 1, bytes); };
  by_turns.push(std::move(job));
  EXPECT(by_turns.wait_given(1, [] { return Status(Code::aborted, "enough"); }).code() == Code::aborted);
  EXPECT_OK(by_turns.reset());
}

TEST(cuda_shares_are_what_one_gpu_sends_and_gets) {
  PlacedProgram placed = shared(3);
  placed.plan();
  const std::vector<ExpertShare> shares = find_shares(placed.program);
  EXPECT(shares.size() == 3 && share_buffers(shares) == 1);
  for (const ExpertShare& share : shares) {
    EXPECT(placed.program.steps[share.step].op == "experts" && share.ordinal == 0);
    EXPECT(placed.program.steps[share.after].op == "copy" && placed.program.steps[share.joins].inputs[0].index == placed.program.steps[share.step].outputs[0]);
  }
  Schedule schedule;
  EXPECT_OK(make_schedule(placed.program, schedule, shares));
  // On the computing stream behind the last copy's source, and added on the copying one right behind what the CPU gave.
  for (size_t i = 0; i < schedule.operations.size(); i++) {
    const Operation& operation = schedule.operations[i];
    if (operation.kind == Operation::Kind::share) EXPECT(!schedule.streams[operation.stream].copies && operation.step == shares[operation.number].step);
    if (operation.kind != Operation::Kind::join) continue;
    EXPECT(schedule.streams[operation.stream].copies && operation.step == shares[operation.number].joins && operation.event >= 0);
  }
  const auto count = [&](Operation::Kind kind) {
    return std::count_if(schedule.operations.begin(), schedule.operations.end(), [kind](const Operation& operation) { return operation.kind == kind; });
  };
  EXPECT(count(Operation::Kind::share) == 3 && count(Operation::Kind::join) == 3);

  PlacedProgram unknown = shared(1, "tq1_0");
  unknown.plan();
  EXPECT(find_shares(unknown.program).empty());
  PlacedProgram read_twice = shared(1);
  for (uint32_t i = 0; i < read_twice.program.steps.size(); i++)
    if (read_twice.program.steps[i].op == "experts") read_twice.copy(read_twice.program.steps[i].outputs[0], "cuda:0");
  read_twice.plan();
  EXPECT(find_shares(read_twice.program).empty());
}

// Whatever order events allow: a share reads what its step reads, its buffer is its own until it was added, and nobody reads the
// CPU's part without it.
TEST(cuda_shares_keep_every_order) {
  PlacedProgram placed = shared(4);
  placed.plan();
  const Program& p = placed.program;
  const std::vector<ExpertShare> shares = find_shares(p);
  Schedule schedule;
  EXPECT_OK(make_schedule(p, schedule, shares));
  for (uint32_t seed = 0; seed < 400; seed++) {
    uint32_t random = seed;
    std::vector<int> slots(p.slots.size(), -1), buffers(share_buffers(shares), -1);
    std::vector<bool> events(schedule.events), joined(shares.size());
    std::vector<std::vector<size_t>> queues(schedule.streams.size());
    std::vector<size_t> heads(schedule.streams.size());
    for (size_t i = 0; i < schedule.operations.size(); i++) queues[schedule.operations[i].stream].push_back(i);
    uint32_t sections = 0;
    std::vector<bool> posted(schedule.sections.size());
    bool right = true;
    const auto step = [&](uint32_t index) {
      for (const Operand& input : p.steps[index].inputs) {
        if (input.kind != Operand::Kind::value) continue;
        right = right && slots[p.values[input.index].slot] == static_cast<int>(input.index);
        for (size_t n = 0; n < shares.size(); n++)
          if (p.steps[shares[n].joins].outputs[0] == input.index) right = right && joined[n];
      }
      for (const uint32_t id : p.steps[index].outputs) slots[p.values[id].slot] = static_cast<int>(id);
    };
    for (size_t over = 0; over < schedule.operations.size() + schedule.sections.size() && right;) {
      const size_t actor = (next_random(random) >> 16) % (queues.size() + 1);
      if (actor == queues.size()) {
        if (sections == schedule.sections.size() || (schedule.sections[sections].posted && !posted[sections])) continue;
        for (const uint32_t index : schedule.sections[sections].steps) step(index);
        sections++;
        over++;
        continue;
      }
      if (heads[actor] == queues[actor].size() || sections == 0) continue;
      const Operation& operation = schedule.operations[queues[actor][heads[actor]]];
      using Kind = Operation::Kind;
      if (operation.kind == Kind::take && sections <= operation.number) continue;
      if (operation.kind == Kind::wait && !events[operation.number]) continue;
      heads[actor]++;
      over++;
      const ExpertShare* const share = operation.kind == Kind::share || operation.kind == Kind::join ? &shares[operation.number] : nullptr;
      if (operation.kind == Kind::post) posted[operation.number] = true;
      else if (operation.kind == Kind::share) {
        for (const uint32_t value : {share->x, share->ids, share->weights}) right = right && slots[p.values[value].slot] == static_cast<int>(value);
        right = right && buffers[share->buffer] < 0;
        buffers[share->buffer] = static_cast<int>(operation.number);
      } else if (operation.kind == Kind::join) {
        right = right && buffers[share->buffer] == static_cast<int>(operation.number) && slots[p.values[p.steps[share->joins].outputs[0]].slot] == static_cast<int>(p.steps[share->joins].outputs[0]);
        buffers[share->buffer] = -1;
        joined[operation.number] = true;
      } else if (operation.kind != Kind::take && operation.kind != Kind::wait) {
        step(operation.step);
      }
      if (operation.event >= 0) events[static_cast<size_t>(operation.event)] = true;
    }
    EXPECT(right && std::all_of(joined.begin(), joined.end(), [](bool is) { return is; }));
    if (!right) return;
  }
}

}  // namespace tandem::cuda
