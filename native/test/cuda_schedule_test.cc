#include "cuda/mailbox.h"
#include "cuda/schedule.h"
#include "test/harness.h"
#include "test/placed_program.h"

namespace tandem::cuda {

using Kind = Operation::Kind;
using test::PlacedProgram;

namespace {

// Runs a schedule on streams that go on in any order that events and words allow, and looks at each step's memory: a step that
// reads another value than its own, because something came too early or too late, is seen.
class Simulation {
 public:
  Simulation(const Program& program, const Schedule& schedule, uint32_t seed, bool eager)
      : p_(program), s_(schedule), random_(seed), eager_(eager), slots_(program.slots.size(), -1), events_(schedule.events, false), queues_(schedule.streams.size()),
        heads_(schedule.streams.size(), 0), slow_(static_cast<int>(seed % (schedule.streams.size() + 2)) - 2) {}

  bool run() {
    if (!section()) return false;
    size_t given = 0;
    if (!eager_) while (given < s_.operations.size()) give(given++);
    for (;;) {
      std::vector<int> able;  // streams, and the CPU as −1
      for (size_t i = 0; i < queues_.size(); i++)
        if (heads_[i] < queues_[i].size() && may(s_.operations[queues_[i][heads_[i]]])) able.push_back(static_cast<int>(i));
      const bool next_is_take = given < s_.operations.size() && s_.operations[given].kind == Kind::take;
      const bool gives = eager_ && given < s_.operations.size() && !(next_is_take && s_.operations[given].number >= sections_);
      const bool computes = sections_ < s_.sections.size() && posted() && (!eager_ || next_is_take || given == s_.operations.size());
      if (gives) able.push_back(-2);
      if (computes) able.push_back(-1);
      if (able.empty()) break;
      // One actor of each run is slow: what others do too early shows.
      if (able.size() > 1 && random_() % 16 != 0) able.erase(std::remove(able.begin(), able.end(), slow_), able.end());
      const int chosen = able[random_() % able.size()];
      if (chosen == -2) give(given++);
      else if (chosen == -1) {
        if (!section()) return false;
      } else {
        if (!work(s_.operations[queues_[static_cast<size_t>(chosen)][heads_[static_cast<size_t>(chosen)]++]])) return false;
      }
    }
    bool all = given == s_.operations.size() && sections_ == s_.sections.size();
    for (size_t i = 0; i < queues_.size(); i++) all = all && heads_[i] == queues_[i].size();
    return all && steps_ + controls() == p_.steps.size();
  }

 private:
  void give(size_t at) {
    if (eager_ && s_.operations[at].kind == Kind::take) return;  // the CPU went first
    queues_[s_.operations[at].stream].push_back(at);
  }
  size_t controls() const {
    return static_cast<size_t>(std::count_if(p_.steps.begin(), p_.steps.end(), [](const Step& s) { return s.op == "submit" || s.op == "wait"; }));
  }
  bool posted() const { return !s_.sections[sections_].posted || lanes_[sections_ % Mailbox::kLanes] == sections_; }
  bool may(const Operation& operation) const {
    if (operation.kind == Kind::take) return sections_ > operation.number;
    return operation.kind != Kind::wait || events_[operation.number];
  }
  bool work(const Operation& operation) {
    bool right = true;
    if (operation.kind == Kind::post) {
      right = lanes_[operation.number % Mailbox::kLanes] == 0 || sections_ > lanes_[operation.number % Mailbox::kLanes];
      lanes_[operation.number % Mailbox::kLanes] = operation.number;
    } else if (operation.kind != Kind::take && operation.kind != Kind::wait) {
      right = step(operation.step);
    }
    if (operation.event >= 0) events_[static_cast<size_t>(operation.event)] = true;
    return right;
  }
  bool section() {
    for (const uint32_t index : s_.sections[sections_].steps)
      if (!step(index)) return false;
    sections_++;
    return true;
  }
  bool step(uint32_t index) {
    for (const Operand& input : p_.steps[index].inputs)
      if (slots_[p_.values[input.index].slot] != static_cast<int>(input.index)) return false;
    for (const uint32_t id : p_.steps[index].outputs) slots_[p_.values[id].slot] = static_cast<int>(id);
    steps_++;
    return true;
  }

  const Program& p_;
  const Schedule& s_;
  std::mt19937 random_;
  bool eager_;
  std::vector<int> slots_;  // the value that each holds
  std::vector<bool> events_;
  std::vector<std::vector<size_t>> queues_;
  std::vector<size_t> heads_;
  int slow_;
  uint32_t lanes_[Mailbox::kLanes] = {};
  uint32_t sections_ = 0;
  size_t steps_ = 0;
};

std::string listing(const Program& program, const Schedule& schedule) {
  const char* names[] = {"", "in", "out", "peer", "post", "take", "wait"};
  std::string text;
  for (const Operation& operation : schedule.operations) {
    text += std::to_string(operation.stream) + ":";
    if (operation.kind == Kind::launch) text += program.steps[operation.step].op;
    else text += names[static_cast<int>(operation.kind)];
    if (operation.kind >= Kind::post) text += std::to_string(operation.number);
    if (operation.event >= 0) text += "!" + std::to_string(operation.event);
    text += " ";
  }
  return text;
}

}  // namespace

TEST(cuda_schedule_of_one_hybrid_layer) {
  const PlacedProgram placed = test::hybrid(1, false);
  Schedule schedule;
  EXPECT_OK(make_schedule(placed.program, schedule));
  // Stream 0 computes, 1 copies. The shared experts (glu) run before the answer of section 1 is fetched; they wait for event 3
  // because their buffer was the router's.
  const std::string got = listing(placed.program, schedule);
  const std::string want =
      "1:in!0 0:wait0 0:rms-norm!1 0:router!2 1:wait1 1:out 1:wait2 1:out!3 1:post1 0:wait3 0:glu 0:add!4 1:take1 1:wait4 1:in!5 0:wait5 0:add "
      "0:linear!6 1:wait6 1:out 1:post2 ";
  if (got != want) std::printf("%s\n", got.c_str());
  EXPECT(got == want);
  EXPECT(schedule.sections.size() == 3 && schedule.sections[0].steps.size() == 1 && !schedule.sections[0].posted && schedule.sections[2].posted);
  EXPECT(schedule.devices == std::vector<int>{0} && schedule.streams.size() == 2);
}

TEST(cuda_schedule_defers_by_a_layer) {
  const PlacedProgram placed = test::hybrid(4, true);
  Schedule schedule;
  EXPECT_OK(make_schedule(placed.program, schedule));
  size_t post[6] = {}, take[6] = {};
  for (size_t i = 0; i < schedule.operations.size(); i++) {
    if (schedule.operations[i].kind == Kind::post) post[schedule.operations[i].number] = i;
    if (schedule.operations[i].kind == Kind::take) take[schedule.operations[i].number] = i;
  }
  EXPECT(post[2] < take[1] && post[3] < take[2] && take[1] < post[3] && take[2] < post[4]);
}

TEST(cuda_schedules_keep_every_order) {
  int tasks = 0, peers = 0, unposted = 0;
  for (uint32_t seed = 0; seed < 300; seed++) {
    const PlacedProgram placed = seed < 8 ? test::hybrid(1 + static_cast<int>(seed) / 2, seed % 2 == 1) : test::random_program(seed);
    Schedule schedule;
    EXPECT_OK(make_schedule(placed.program, schedule));
    for (const Operation& operation : schedule.operations) peers += operation.kind == Kind::copy_peer;
    for (size_t n = 1; n < schedule.sections.size(); n++) (schedule.sections[n].posted ? tasks : unposted)++;
    for (uint32_t order = 0; order < 20; order++)
      for (const bool eager : {false, true}) {
        const bool right = Simulation(placed.program, schedule, seed * 100 + order, eager).run();
        if (!right) std::printf("seed %u order %u %s: %s\n", seed, order, eager ? "eager" : "graph", listing(placed.program, schedule).c_str());
        EXPECT(right);
        if (!right) return;
      }
  }
  EXPECT(tasks > 500 && peers > 100 && unposted > 50);
}

// The check above sees what it is for: without any one event or answer that a schedule waits for, some order is wrong.
TEST(cuda_schedules_wait_for_nothing_in_vain) {
  const PlacedProgram placed = test::hybrid(3, true);
  Schedule schedule;
  EXPECT_OK(make_schedule(placed.program, schedule));
  int waits = 0;
  for (size_t i = 0; i < schedule.operations.size(); i++) {
    if (schedule.operations[i].kind != Kind::wait && schedule.operations[i].kind != Kind::take) continue;
    Schedule without = schedule;
    without.operations.erase(without.operations.begin() + static_cast<long>(i));
    bool wrong = false;
    for (uint32_t order = 0; order < 1000 && !wrong; order++) wrong = !Simulation(placed.program, without, order, false).run();
    waits++;
    if (!wrong) std::printf("operation %zu of %s\n", i, listing(placed.program, schedule).c_str());
    EXPECT(wrong);
  }
  EXPECT(waits >= 10);
}

TEST(cuda_schedule_refuses_what_breaks_the_rules) {
  const auto refusal = [](PlacedProgram placed) {
    placed.plan();
    Schedule schedule;
    const Status status = make_schedule(placed.program, schedule);
    EXPECT(status.code() == Code::program_invalid);
    return status.message();
  };
  const auto says = [](const std::string& message, const char* part) { return message.find(part) != std::string::npos; };
  PlacedProgram crossing;
  crossing.step("linear", "cuda:0", {crossing.step("embed", "cpu", {})});
  EXPECT(says(refusal(crossing), "on its own device; step \"linear 1\""));
  PlacedProgram same;
  same.copy(same.step("embed", "cpu", {}), "cpu");
  EXPECT(says(refusal(same), "to another device"));
  PlacedProgram unknown;
  unknown.step("embed", "cuda:x", {});
  EXPECT(says(refusal(unknown), "cpu or cuda:N"));
  PlacedProgram task;
  const uint32_t x = task.step("embed", "cuda:0", {});
  task.submit(0, 1);
  task.step("glu", "cuda:0", {x});
  EXPECT(says(refusal(task), "steps on cpu"));
  PlacedProgram past;
  past.step("embed", "cuda:0", {});
  past.submit(0, 1);
  EXPECT(says(refusal(past), "lies in the Program"));
}

TEST(cuda_device_names) {
  EXPECT(device_ordinal("cpu") == -1 && device_ordinal("cuda:0") == 0 && device_ordinal("cuda:15") == 15);
  for (const char* wrong : {"", "cuda", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999", "gpu:0"}) EXPECT(device_ordinal(wrong) == -2);
}

}  // namespace tandem::cuda
