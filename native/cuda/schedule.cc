#include "cuda/schedule.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <string>

#include "cuda/mailbox.h"

namespace tandem::cuda {

namespace {

using Clock = std::vector<uint32_t>;  // of each actor: how many of its operations are over

struct Access {
  uint32_t actor, index;
};

struct SlotUse {
  bool written = false;
  Access write{0, 0};
  std::vector<Access> reads;  // since
};

void merge(Clock& into, const Clock& from) {
  for (size_t i = 0; i < into.size(); i++) into[i] = std::max(into[i], from[i]);
}

// Actors are the streams, and after them the CPU. Operations of an actor are counted from 1; those of the CPU are its sections,
// whose numbers they have.
class Scheduler {
 public:
  Scheduler(const Program& program, const std::vector<ExpertShare>& shares, Schedule& out) : p_(program), shares_(shares), s_(out) {}

  Status run() {
    TANDEM_TRY(find_places());
    const size_t actors = s_.streams.size() + 1;
    host_ = static_cast<uint32_t>(s_.streams.size());
    clocks_.assign(actors, Clock(actors, 0));
    history_.resize(actors);
    uses_.resize(p_.slots.size() + share_buffers(shares_));
    s_.sections.emplace_back();
    for (uint32_t i = 0; i < p_.steps.size();) {
      const Step& step = p_.steps[i];
      if (step.op == "submit") {
        uint32_t last = 0;
        TANDEM_TRY(task_end(i, last));
        std::vector<uint32_t> steps;
        for (uint32_t k = i + 1; k < last; k++) steps.push_back(k);
        section(steps);
        i = last;
        continue;
      }
      if (step.op == "copy") TANDEM_TRY(copy(i));
      else if (place_[i] >= 0) launch(i);
      else if (step.op != "wait") host_step(i);
      i++;
    }
    return {};
  }

 private:
  Status broken(const char* rule, const Step& step) const {
    return Status(Code::program_invalid, std::string("[native] ") + rule + "; step \"" + step.name.substr(0, 200) + "\"; place the Program with lower()");
  }

  // Devices of steps and of slots.
  Status find_places() {
    s_.slot_device.assign(p_.slots.size(), -2);
    std::vector<int32_t> value_place(p_.values.size(), -2);
    for (const Step& step : p_.steps) {
      const int ordinal = device_ordinal(step.device);
      if (ordinal < -1) return broken("a step is on cpu or cuda:N", step);
      int32_t place = -1;
      if (ordinal >= 0) {
        const auto found = std::find(s_.devices.begin(), s_.devices.end(), ordinal);
        place = static_cast<int32_t>(found - s_.devices.begin());
        if (found == s_.devices.end()) {
          s_.devices.push_back(ordinal);
          s_.streams.push_back({static_cast<uint32_t>(place), false});
          s_.streams.push_back({static_cast<uint32_t>(place), true});
        }
      }
      const bool control = step.op == "submit" || step.op == "wait";
      if (control && place != -1) return broken("submit and wait are on cpu", step);
      for (const Operand& input : step.inputs) {
        if (input.kind != Operand::Kind::value) continue;
        const int32_t from = value_place[input.index];
        if (from == -2) return broken("a value is written before a pass reads it", step);
        if (step.op == "copy" && from == place) return broken("a copy goes to another device", step);
        if (step.op != "copy" && from != place) return broken("a step reads what lies on its own device", step);
        if (step.op == "copy" && (input.start != 0 || input.columns != p_.values[input.index].columns)) return broken("a copy takes a whole value", step);
      }
      for (const uint32_t id : step.outputs) {
        value_place[id] = place;
        int32_t& slot = s_.slot_device[p_.values[id].slot];
        if (slot != -2 && slot != place) return broken("devices share no buffer", step);
        slot = place;
      }
      place_.push_back(place);
    }
    for (int32_t& slot : s_.slot_device) slot = std::max(slot, -1);
    return {};
  }

  Status task_end(uint32_t submit, uint32_t& last) const {
    const Step& step = p_.steps[submit];
    const int64_t count = step.integer("steps", -1);
    if (count < 1 || count >= static_cast<int64_t>(p_.steps.size()) - submit) return broken("a task lies in the Program", step);
    last = submit + 1 + static_cast<uint32_t>(count);
    for (uint32_t i = submit + 1; i < last; i++) {
      const std::string& op = p_.steps[i].op;
      if (place_[i] != -1 || op == "copy" || op == "submit" || op == "wait") return broken("a task is made of steps on cpu", p_.steps[i]);
    }
    return {};
  }

  uint32_t compute(int32_t device) const { return static_cast<uint32_t>(device) * 2; }
  uint32_t copies(int32_t device) const { return static_cast<uint32_t>(device) * 2 + 1; }

  // Appends to a stream; what it had to come after is settled before.
  Access emit(Operation operation) {
    const uint32_t actor = operation.stream;
    Clock& clock = clocks_[actor];
    clock[actor]++;
    history_[actor].push_back({clock, s_.operations.size()});
    s_.operations.push_back(operation);
    return {actor, clock[actor]};
  }

  // The next operation of `stream` comes after `access`.
  void order(uint32_t stream, Access access) {
    if (clocks_[stream][access.actor] >= access.index) return;
    if (access.actor == host_) {
      emit({Operation::Kind::take, stream, 0, access.index});
      merge(clocks_[stream], history_[host_][access.index - 1].first);
      return;
    }
    const auto& [clock, at] = history_[access.actor][access.index - 1];
    int32_t& event = s_.operations[at].event;
    if (event < 0) event = static_cast<int32_t>(s_.events++);
    const uint32_t number = static_cast<uint32_t>(event);
    const Clock reached = clock;
    emit({Operation::Kind::wait, stream, 0, number});
    merge(clocks_[stream], reached);
  }

  // What an access to these slots has to come after.
  std::vector<Access> before(const std::vector<uint32_t>& reads, const std::vector<uint32_t>& writes) const {
    std::vector<Access> all;
    for (const uint32_t slot : reads)
      if (uses_[slot].written) all.push_back(uses_[slot].write);
    for (const uint32_t slot : writes) {
      if (uses_[slot].written) all.push_back(uses_[slot].write);
      all.insert(all.end(), uses_[slot].reads.begin(), uses_[slot].reads.end());
    }
    return all;
  }

  void touch(const std::vector<uint32_t>& reads, const std::vector<uint32_t>& writes, Access access) {
    for (const uint32_t slot : reads) uses_[slot].reads.push_back(access);
    for (const uint32_t slot : writes) uses_[slot] = {true, access, {}};
  }

  void slots_of(uint32_t index, std::vector<uint32_t>& reads, std::vector<uint32_t>& writes) const {
    for (const Operand& input : p_.steps[index].inputs)
      if (input.kind == Operand::Kind::value) reads.push_back(p_.values[input.index].slot);
    for (const uint32_t id : p_.steps[index].outputs) writes.push_back(p_.values[id].slot);
  }

  void place(Operation operation) {
    std::vector<uint32_t> reads, writes;
    slots_of(operation.step, reads, writes);
    place(operation, reads, writes);
  }

  void place(Operation operation, const std::vector<uint32_t>& reads, const std::vector<uint32_t>& writes) {
    for (const Access& access : before(reads, writes)) order(operation.stream, access);
    touch(reads, writes, emit(operation));
  }

  void launch(uint32_t index) { place({Operation::Kind::launch, compute(place_[index]), index}); }

  Status copy(uint32_t index) {
    const Step& step = p_.steps[index];
    if (step.inputs.size() != 1 || step.inputs[0].kind != Operand::Kind::value || step.outputs.size() != 1) return broken("a copy has one value", step);
    const int32_t from = s_.slot_device[p_.values[step.inputs[0].index].slot], to = place_[index];
    if (from < 0) place({Operation::Kind::copy_in, copies(to), index});
    else place({to < 0 ? Operation::Kind::copy_out : Operation::Kind::copy_peer, copies(from), index});
    for (uint32_t n = 0; n < shares_.size(); n++) {
      const uint32_t buffer = static_cast<uint32_t>(p_.slots.size()) + shares_[n].buffer;
      const auto slot = [this](uint32_t value) { return p_.values[value].slot; };
      if (shares_[n].after == index) place({Operation::Kind::share, compute(from), shares_[n].step, n}, {slot(shares_[n].x), slot(shares_[n].ids), slot(shares_[n].weights)}, {buffer});
      // Where it was brought: who waits for the CPU waits for this, and nobody else.
      if (shares_[n].joins == index) place({Operation::Kind::join, copies(to), index, n}, {buffer}, {slot(step.outputs[0])});
    }
    return {};
  }

  // A step of the CPU outside of tasks: before all else, or a section of its own.
  void host_step(uint32_t index) {
    if (s_.operations.empty() && s_.sections.size() == 1) s_.sections[0].steps.push_back(index);
    else section({index});
  }

  void section(const std::vector<uint32_t>& steps) {
    std::vector<uint32_t> reads, writes;
    for (const uint32_t index : steps) slots_of(index, reads, writes);
    std::vector<Access> needed = before(reads, writes);
    const auto known = [this](const Access& access) { return clocks_[host_][access.actor] >= access.index; };
    needed.erase(std::remove_if(needed.begin(), needed.end(), known), needed.end());
    const uint32_t number = static_cast<uint32_t>(s_.sections.size());
    s_.sections.push_back({!needed.empty(), steps});
    if (!needed.empty()) {
      const uint32_t stream = copies(static_cast<int32_t>(s_.streams[needed.back().actor].device));
      for (const Access& access : needed) order(stream, access);
      // Its lane is free when the section before the last was computed.
      if (number > Mailbox::kLanes) order(stream, {host_, number - Mailbox::kLanes});
      const Access post = emit({Operation::Kind::post, stream, 0, number});
      merge(clocks_[host_], history_[stream][post.index - 1].first);
    }
    clocks_[host_][host_] = number;
    history_[host_].push_back({clocks_[host_], 0});
    touch(reads, writes, {host_, number});
  }

  const Program& p_;
  const std::vector<ExpertShare>& shares_;
  Schedule& s_;
  uint32_t host_ = 0;
  std::vector<int32_t> place_;  // of each step: index of its device, −1 = cpu
  std::vector<Clock> clocks_;
  std::vector<std::vector<std::pair<Clock, size_t>>> history_;  // of each actor: after each operation its clock, and where it is
  std::vector<SlotUse> uses_;
};

}  // namespace

int device_ordinal(std::string_view device) {
  if (device == "cpu") return -1;
  if (device.rfind("cuda:", 0) != 0) return -2;
  const std::string_view digits = device.substr(5);
  int ordinal = -2;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), ordinal);
  if (error != std::errc() || end != digits.data() + digits.size() || ordinal < 0 || ordinal > 1023) return -2;
  return ordinal;
}

Status make_schedule(const Program& program, Schedule& out, const std::vector<ExpertShare>& shares) {
  out = Schedule();
  return Scheduler(program, shares, out).run();
}

}  // namespace tandem::cuda
