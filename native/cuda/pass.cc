#include "cuda/pass.h"

#include <algorithm>
#include <string>
#include <thread>

namespace tandem::cuda {

namespace {

using Kind = Operation::Kind;
using Clock = std::chrono::steady_clock;

}  // namespace

Status PassRunner::create(const Program& program, Schedule schedule, std::vector<Device*> devices, PassRows most, std::vector<uint32_t> kept, std::unique_ptr<PassRunner>& out) {
  if (devices.empty() || devices.size() != schedule.devices.size())
    return Status(Code::program_invalid, "[native] a Program on GPUs is given a device each; it names " + std::to_string(schedule.devices.size()) + ", " +
                                             std::to_string(devices.size()) + " were given; open them first");
  std::unique_ptr<PassRunner> runner(new PassRunner(program, std::move(schedule), std::move(devices), most));
  TANDEM_TRY(runner->allocate(kept));
  out = std::move(runner);
  return {};
}

Status PassRunner::allocate(const std::vector<uint32_t>& kept) {
  memory_.resize(program_.slots.size());
  pinned_.resize(program_.slots.size());
  for (size_t slot = 0; slot < program_.slots.size(); slot++) {
    const int64_t rows = program_.slots[slot].rows == Rows::tokens ? most_.tokens : most_.outputs;
    const size_t size = static_cast<size_t>(rows * program_.slots[slot].columns * 4);
    const int32_t place = schedule_.slot_device[slot];
    TANDEM_TRY(place < 0 ? devices_[0]->pin(size, "buffers", pinned_[slot]) : devices_[static_cast<size_t>(place)]->allocate(size, "the buffers", memory_[slot]));
    (place < 0 ? host_bytes_ : device_bytes_) += size;
  }
  TANDEM_TRY(keep(kept));
  TANDEM_TRY(devices_[0]->pin(Mailbox::kBytes, "the words of hand-overs", words_));
  mailbox_ = std::make_unique<Mailbox>(words_.data());
  streams_.resize(schedule_.streams.size());
  ends_.resize(schedule_.streams.size());
  for (size_t i = 0; i < streams_.size(); i++) {
    Device& device = *devices_[schedule_.streams[i].device];
    TANDEM_TRY(device.stream(streams_[i]));
    TANDEM_TRY(device.event(ends_[i]));
  }
  errors_ = std::make_unique<ErrorWatch>(streams_);
  TANDEM_TRY(devices_[0]->event(begin_));
  events_.resize(schedule_.events);
  // An event belongs to the device of the stream that records it.
  for (const Operation& operation : schedule_.operations)
    if (operation.event >= 0) TANDEM_TRY(streams_[operation.stream].device().event(events_[static_cast<size_t>(operation.event)]));
  return {};
}

Status PassRunner::keep(const std::vector<uint32_t>& kept) {
  kept_memory_.resize(devices_.size());
  for (const uint32_t value : kept) {
    KeptMemory& memory = kept_memory_[device_of(value)];
    kept_[value] = {memory.columns};
    memory.columns += program_.values[value].columns;
  }
  for (size_t d = 0; d < devices_.size(); d++) {
    KeptMemory& memory = kept_memory_[d];
    if (memory.columns == 0) continue;
    const size_t size = static_cast<size_t>(most_.tokens * memory.columns * 4);
    TANDEM_TRY(devices_[d]->allocate(size, "the buffers", memory.memory));
    TANDEM_TRY(devices_[d]->pin(size, "buffers", memory.host));
    device_bytes_ += size;
  }
  return {};
}

uint8_t* PassRunner::host(uint32_t value) const { return pinned_[program_.values[value].slot].data(); }

Address PassRunner::address(uint32_t value, PassRows rows) const {
  const auto found = kept_.find(value);
  if (found == kept_.end()) return memory_[program_.values[value].slot].get();
  return kept_memory_[device_of(value)].memory.get() + static_cast<size_t>(rows.tokens * found->second.before * 4);
}

const uint8_t* PassRunner::kept_at(uint32_t value, PassRows rows) const {
  return kept_memory_[device_of(value)].host.data() + static_cast<size_t>(rows.tokens * kept_.at(value).before * 4);
}

size_t PassRunner::bytes(uint32_t value, PassRows rows) const {
  const Value& v = program_.values[value];
  return static_cast<size_t>((v.rows == Rows::tokens ? rows.tokens : rows.outputs) * v.columns * 4);
}

Status PassRunner::fork() {
  TANDEM_TRY(streams_[0].record(begin_));
  for (size_t i = 1; i < streams_.size(); i++) TANDEM_TRY(streams_[i].wait(begin_));
  return {};
}

Status PassRunner::join() {
  for (size_t i = 1; i < streams_.size(); i++) {
    TANDEM_TRY(streams_[i].record(ends_[i]));
    TANDEM_TRY(streams_[0].wait(ends_[i]));
  }
  return {};
}

Status PassRunner::give(const Operation& operation, PassRows rows, const StepRunner& steps) {
  Stream& stream = streams_[operation.stream];
  const Step& step = program_.steps[operation.step];
  const auto from = [&] { return step.inputs[0].index; };
  const auto to = [&] { return step.outputs[0]; };
  switch (operation.kind) {
    case Kind::launch:
      TANDEM_TRY(steps.launch(operation.step, stream, rows));
      break;
    case Kind::copy_in:
      if (bytes(to(), rows) > 0) TANDEM_TRY(stream.copy_in(address(to(), rows), host(from()), bytes(to(), rows)));
      break;
    case Kind::copy_out:
      if (bytes(to(), rows) > 0) TANDEM_TRY(stream.copy_out(host(to()), address(from(), rows), bytes(to(), rows)));
      break;
    case Kind::copy_peer: {
      if (bytes(to(), rows) == 0) break;
      const size_t target = static_cast<size_t>(schedule_.slot_device[program_.values[to()].slot]);
      TANDEM_TRY(stream.copy_peer(address(to(), rows), *devices_[target], address(from(), rows), bytes(to(), rows)));
      break;
    }
    case Kind::post:
      TANDEM_TRY(stream.write_value(words_.address() + Mailbox::posted_offset(operation.number), operation.number));
      break;
    case Kind::take:
      if (!eager_) TANDEM_TRY(stream.wait_value(words_.address() + Mailbox::done_offset(operation.number), operation.number));
      break;
    case Kind::wait:
      TANDEM_TRY(stream.wait(events_[operation.number]));
      break;
    case Kind::share:
    case Kind::join:
      TANDEM_TRY(steps.share(operation, stream, rows));
      break;
  }
  return operation.event < 0 ? Status() : stream.record(events_[static_cast<size_t>(operation.event)]);
}

Status PassRunner::give_all(PassRows rows, const StepRunner& steps) {
  TANDEM_TRY(fork());
  for (const Operation& operation : schedule_.operations) TANDEM_TRY(give(operation, rows, steps));
  TANDEM_TRY(give_kept(rows));
  return join();
}

// What is kept, to the machine.
Status PassRunner::give_kept(PassRows rows) {
  for (size_t d = 0; d < devices_.size(); d++) {
    const KeptMemory& memory = kept_memory_[d];
    if (memory.columns > 0) TANDEM_TRY(stream_of(d).copy_out(memory.host.data(), memory.memory.get(), static_cast<size_t>(rows.tokens * memory.columns * 4)));
  }
  return {};
}

// What all devices get before anything else; the first stream, which every other one follows, comes after all of it.
Status PassRunner::give_first(const StepRunner& steps) {
  if (!steps.begin) return {};
  for (size_t d = 0; d < devices_.size(); d++) {
    TANDEM_TRY(steps.begin(d, stream_of(d)));
    if (d == 0) continue;
    TANDEM_TRY(stream_of(d).record(ends_[2 * d]));
    TANDEM_TRY(streams_[0].wait(ends_[2 * d]));
  }
  return {};
}

Status PassRunner::capture(PassRows rows, const StepRunner& steps, const GraphExec*& out) {
  for (const Graph& graph : graphs_) {
    if (!(graph.rows == rows)) continue;
    out = &graph.executable;
    return {};
  }
  TANDEM_TRY(streams_[0].begin_capture());
  Status status = give_all(rows, steps);
  // A capture that was begun is ended in any case: streams that go on capturing take no work.
  Graph graph{rows, {}};
  const Status ended = streams_[0].end_capture(graph.executable);
  if (status.ok()) status = ended;
  TANDEM_TRY(status);
  graphs_.push_back(std::move(graph));
  out = &graphs_.back().executable;
  return {};
}

// Sections up to this one.
Status PassRunner::compute_until(uint32_t section, const StepRunner& steps, const Mailbox::Watch& watch) {
  for (; computed_ <= section; computed_++) {
    const Section& next = schedule_.sections[computed_];
    if (next.posted) TANDEM_TRY(mailbox_->take(computed_, watch));
    for (const uint32_t step : next.steps) TANDEM_TRY(steps.compute(step));
    if (computed_ > 0) mailbox_->done(computed_);
  }
  return {};
}

Status PassRunner::attempt(PassRows rows, const StepRunner& steps, const Options& options, const Mailbox::Watch& watch) {
  const uint32_t last = static_cast<uint32_t>(schedule_.sections.size()) - 1;
  const GraphExec* graph = nullptr;
  eager_ = !options.graph, alone_ = false;
  if (options.graph) TANDEM_TRY(capture(rows, steps, graph));
  TANDEM_TRY(compute_until(0, steps, watch));
  TANDEM_TRY(give_first(steps));
  if (options.graph) {
    TANDEM_TRY(streams_[0].launch(*graph));
    errors_->begin();  // not before: who asks a stream that is captured ends the capture
  } else {
    TANDEM_TRY(fork());
    for (const Operation& operation : schedule_.operations) {
      if (operation.kind == Kind::take) TANDEM_TRY(compute_until(operation.number, steps, watch));
      TANDEM_TRY(give(operation, rows, steps));
    }
    TANDEM_TRY(give_kept(rows));
    TANDEM_TRY(join());
  }
  TANDEM_TRY(compute_until(last, steps, watch));
  return streams_[0].finish(watch.alive);
}

// After an error: nothing may write into buffers that a later pass uses.
void PassRunner::settle(std::chrono::milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  const auto late = [end] {
    return std::chrono::steady_clock::now() < end ? Status() : Status(Code::native_failed, "[native] a GPU comes to rest after a pass that failed; it did not; load the model again");
  };
  for (Stream& stream : streams_) {
    const Status rest = stream.finish(late);
    if (!rest.ok() && !stream.device().lost()) stream.device().give_up(rest);
  }
}

Status PassRunner::run(PassRows rows, const StepRunner& steps, const Options& options) {
  if (rows.tokens < 1 || rows.tokens > most_.tokens || rows.outputs < 0 || rows.outputs > most_.outputs)
    return Status(Code::request_invalid, "[native] the rows of a pass are those of the buffers; given " + std::to_string(rows.tokens) + " and " +
                                             std::to_string(rows.outputs) + ", at most " + std::to_string(most_.tokens) + " and " + std::to_string(most_.outputs));
  for (const Device* device : devices_)
    if (device->lost()) return device->loss();
  mailbox_->begin();
  computed_ = 0;
  // Errors of work that runs show up in queries.
  Mailbox::Watch watch = options.watch;
  watch.alive = [&]() -> Status {
    if (options.watch.alive) TANDEM_TRY(options.watch.alive());
    if (options.graph && computed_ < schedule_.sections.size()) return errors_->status();
    for (Stream& stream : streams_) {
      bool done = false;
      TANDEM_TRY(stream.query(done));
    }
    return {};
  };
  const Status status = attempt(rows, steps, options, watch);
  if (!status.ok()) mailbox_->abort(status);
  if (options.graph) errors_->end();
  if (status.ok()) return {};
  settle(options.settle);
  return status;
}

Status PassRunner::prepare(const StepRunner& steps) {
  for (size_t d = 0; d < devices_.size(); d++) {
    TANDEM_TRY(steps.begin(d, stream_of(d)));
    TANDEM_TRY(stream_of(d).finish_alone("the header of a pass"));
  }
  return {};
}

Status PassRunner::step(uint32_t index, PassRows rows, const StepRunner& steps) {
  eager_ = alone_ = true;
  for (const Operation& operation : schedule_.operations) {
    const bool is_step = operation.kind == Kind::launch || operation.kind == Kind::copy_in || operation.kind == Kind::copy_out || operation.kind == Kind::copy_peer;
    if (!is_step || operation.step != index) continue;
    Operation alone = operation;
    alone.event = -1;
    TANDEM_TRY(give(alone, rows, steps));
    return streams_[operation.stream].finish_alone("step \"" + program_.steps[index].name.substr(0, 200) + "\" (" + program_.steps[index].op + ")");
  }
  const std::string& op = program_.steps[index].op;
  return op == "submit" || op == "wait" ? Status() : steps.compute(index);
}

Status PassRunner::read(uint32_t value, PassRows rows, PassRows live, void* to) {
  Stream& stream = stream_of(device_of(value));
  TANDEM_TRY(stream.copy_out(to, address(value, rows), bytes(value, live)));
  return stream.finish_alone("a copy of \"" + program_.values[value].name.substr(0, 200) + "\"");
}

Status PassRunner::write(uint32_t value, PassRows rows, PassRows live, const void* from) {
  Stream& stream = stream_of(device_of(value));
  TANDEM_TRY(stream.copy_in(address(value, rows), from, bytes(value, live)));
  return stream.finish_alone("a copy of \"" + program_.values[value].name.substr(0, 200) + "\"");
}

std::vector<int64_t> graph_buckets(int64_t most) {
  std::vector<int64_t> buckets;
  for (int64_t rows = 1; rows < most; rows *= 2) buckets.push_back(rows);
  if (most > 0) buckets.push_back(most);
  return buckets;
}

int64_t graph_bucket(int64_t rows, int64_t most) {
  if (rows < 1) return 0;
  for (const int64_t bucket : graph_buckets(most))
    if (bucket >= rows) return bucket;
  return 0;
}

}  // namespace tandem::cuda
