// Placed Programs to test with: as src/placement/crossing.ts writes them, with buffers as src/program/buffers.ts plans them.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "core/program.h"

namespace tandem::test {

class PlacedProgram {
 public:
  Program program;

  // A step that writes a value of `columns` from the given ones; its value.
  uint32_t step(const char* op, const std::string& device, const std::vector<uint32_t>& inputs, int64_t columns = 4) {
    Step step;
    step.op = op;
    step.device = device;
    step.name = std::string(op) + " " + std::to_string(program.steps.size());
    for (const uint32_t id : inputs) step.inputs.push_back({Operand::Kind::value, id, 0, program.values[id].columns});
    const uint32_t id = static_cast<uint32_t>(program.values.size());
    program.values.push_back({step.name, ElementType::f32, Rows::tokens, columns, 0});
    devices.push_back(device);
    step.outputs.push_back(id);
    program.steps.push_back(step);
    return id;
  }
  uint32_t copy(uint32_t value, const std::string& device) { return step("copy", device, {value}, program.values[value].columns); }
  void submit(int task, int steps) { control("submit", {number("task", task), number("steps", steps)}); }
  void wait(int task) { control("wait", {number("task", task)}); }

  // Buffers, as tight as lives allow.
  void plan() {
    const size_t end = program.steps.size();
    std::vector<size_t> first(program.values.size(), end), last(program.values.size(), 0);
    for (size_t i = 0; i < end; i++) touch(i, i, first, last);
    for (size_t i = 0; i < end; i++) {
      if (program.steps[i].op != "submit") continue;
      size_t wait = i;
      while (wait < end && !(program.steps[wait].op == "wait" && program.steps[wait].integer("task") == program.steps[i].integer("task"))) wait++;
      const size_t steps = static_cast<size_t>(program.steps[i].integer("steps"));
      for (size_t k = i + 1; k <= i + steps && k < end; k++) touch(k, wait, first, last);
    }
    std::vector<std::string> slot_device;
    std::vector<size_t> busy;
    std::vector<uint32_t> order(program.values.size());
    for (uint32_t id = 0; id < order.size(); id++) order[id] = id;
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return first[a] < first[b]; });
    for (const uint32_t id : order) {
      size_t slot = 0;
      while (slot < busy.size() && (slot_device[slot] != devices[id] || busy[slot] >= first[id])) slot++;
      if (slot == busy.size()) {
        busy.push_back(0);
        slot_device.push_back(devices[id]);
        program.slots.push_back({Rows::tokens, 0});
      }
      busy[slot] = last[id];
      program.slots[slot].columns = std::max(program.slots[slot].columns, program.values[id].columns);
      program.values[id].slot = static_cast<uint32_t>(slot);
    }
  }

  std::vector<std::string> devices;  // of values

 private:
  static Attribute number(const char* key, double value) {
    Attribute attribute;
    attribute.key = key;
    attribute.number = value;
    return attribute;
  }
  void control(const char* op, std::vector<Attribute> attributes) {
    Step step;
    step.op = op;
    step.device = "cpu";
    step.name = op;
    step.attributes = std::move(attributes);
    program.steps.push_back(step);
  }
  void touch(size_t step, size_t at, std::vector<size_t>& first, std::vector<size_t>& last) const {
    const auto live = [&](uint32_t id) {
      first[id] = std::min(first[id], step);
      last[id] = std::max(last[id], at);
    };
    for (const Operand& input : program.steps[step].inputs) live(input.index);
    for (const uint32_t id : program.steps[step].outputs) live(id);
  }
};

// `layers` of: attention and router on a GPU, routed experts as a task of the CPU, shared experts beside it. With `defer`, what a
// task gives is added one layer later.
inline PlacedProgram hybrid(int layers, bool defer) {
  PlacedProgram p;
  uint32_t x = p.copy(p.step("embed", "cpu", {}), "cuda:0");
  uint32_t late = 0;
  for (int layer = 0; layer < layers; layer++) {
    const uint32_t normed = p.step("rms-norm", "cuda:0", {x});
    const uint32_t ids = p.step("router", "cuda:0", {normed}, 2);
    const uint32_t a = p.copy(normed, "cpu"), b = p.copy(ids, "cpu");
    p.submit(layer, 1);
    const uint32_t routed = p.step("experts", "cpu", {a, b});
    const uint32_t shared = p.step("glu", "cuda:0", {normed});
    const bool now = !defer || layer == layers - 1;
    if (defer && layer > 0) {
      p.wait(layer - 1);
      x = p.step("add", "cuda:0", {x, p.copy(late, "cuda:0")});
    }
    x = p.step("add", "cuda:0", {x, shared});
    if (now) {
      p.wait(layer);
      x = p.step("add", "cuda:0", {x, p.copy(routed, "cuda:0")});
    }
    late = routed;
  }
  const uint32_t logits = p.copy(p.step("linear", "cuda:0", {x}, 8), "cpu");
  p.submit(layers, 1);
  p.step("sample", "cpu", {logits}, 1);
  p.wait(layers);
  p.plan();
  return p;
}

// Anything that the rules allow: devices, tasks of several steps, waits as late as can be, copies between GPUs.
inline PlacedProgram random_program(uint32_t seed) {
  std::mt19937 random(seed);
  const auto chance = [&](int percent) { return static_cast<int>(random() % 100) < percent; };
  PlacedProgram p;
  const std::vector<std::string> gpus = {"cuda:0", "cuda:1"};
  const size_t cards = 1 + random() % 2;
  std::vector<std::vector<uint32_t>> on(cards);  // values on each GPU
  struct Running {
    int task;
    std::vector<uint32_t> values;
  };
  std::vector<Running> running;
  std::vector<uint32_t> ready;  // of the CPU
  int tasks = 0;
  ready.push_back(p.step("embed", "cpu", {}));
  for (size_t c = 0; c < cards; c++) on[c].push_back(p.copy(ready[0], gpus[c]));
  const auto pick = [&](const std::vector<uint32_t>& from) { return from[from.size() - 1 - random() % std::min<size_t>(from.size(), 4)]; };
  const auto wait_oldest = [&] {
    p.wait(running[0].task);
    ready.insert(ready.end(), running[0].values.begin(), running[0].values.end());
    running.erase(running.begin());
  };
  for (int i = 0; i < 40; i++) {
    const size_t card = random() % cards;
    if (chance(45)) {
      on[card].push_back(p.step("add", gpus[card], {pick(on[card]), pick(on[card])}));
    } else if (chance(20) && cards == 2) {
      on[1 - card].push_back(p.copy(pick(on[card]), gpus[1 - card]));
    } else if (chance(15)) {
      ready.push_back(p.step("add", "cpu", {ready[0]}));
    } else if (chance(60)) {
      std::vector<uint32_t> given;
      for (int k = 0; k < 2; k++) given.push_back(p.copy(pick(on[random() % cards]), "cpu"));
      if (chance(30)) given.push_back(pick(ready));
      const int steps = 1 + static_cast<int>(random() % 2);
      p.submit(tasks, steps);
      Running task{tasks++, {}};
      for (int k = 0; k < steps; k++) {
        task.values.push_back(p.step("experts", "cpu", given));
        given = {task.values.back()};
      }
      running.push_back(task);
    } else if (!running.empty()) {
      wait_oldest();
      on[card].push_back(p.copy(pick(ready), gpus[card]));
    }
  }
  while (!running.empty()) wait_oldest();
  p.plan();
  return p;
}

}  // namespace tandem::test
