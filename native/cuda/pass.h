// Passes of a Program over GPUs and the CPU: the buffers of its values, and a schedule run on streams, eagerly or as a graph.
//
// Eager: operations are given to the driver in order; where one needs a section of the CPU, the section is computed first,
// after everything that does not need it was given: the GPU has work meanwhile, and no queue of a driver ever fills up behind a
// stream that waits. Graph: everything is given at once, and streams wait for words of the mailbox. Nothing runs on threads of
// the driver, nothing blocks inside it: a pass ends with a Status whatever either side does.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "core/program.h"
#include "core/status.h"
#include "cuda/device.h"
#include "cuda/error_watch.h"
#include "cuda/mailbox.h"
#include "cuda/schedule.h"

namespace tandem::cuda {

// Rows of a pass: of tokens and of outputs; and how many positions a row sees at most.
struct PassRows {
  int64_t tokens = 0, outputs = 0, context = 0;
  bool operator==(const PassRows& other) const = default;
};

// What a step does; both are given the index of the step.
struct StepRunner {
  // Gives the kernels of a step to the stream. In a graph it is called once a graph: what changes from pass to pass is read from memory.
  std::function<Status(uint32_t step, Stream& stream, PassRows rows)> launch;
  std::function<Status(uint32_t step)> compute;  // on the CPU, by the caller's thread
  // Gives a device what it needs before all steps; never part of a graph. May be left out.
  std::function<Status(size_t device, Stream& stream)> begin = {};
  // Gives a `share` or a `join`. May be left out where the schedule has none.
  std::function<Status(const Operation& operation, Stream& stream, PassRows rows)> share = {};
};

class PassRunner {
 public:
  // `program` and `devices` (one each of Schedule::devices, in its order) outlive this. OUT_OF_MEMORY with numbers.
  // `kept`: values of GPUs that are there after a pass (`kept_at`), rather than give their memory to others.
  static Status create(const Program& program, Schedule schedule, std::vector<Device*> devices, PassRows most, std::vector<uint32_t> kept, std::unique_ptr<PassRunner>& out);

  struct Options {
    bool graph = false;
    Mailbox::Watch watch;  // `alive` is also asked where the end is waited for
    std::chrono::milliseconds settle = kSettle;
  };
  // The first error of either side; after one the streams have come to rest, or their devices count as lost.
  Status run(PassRows rows, const StepRunner& steps, const Options& options);

  // Lock-step: what `begin` gives, then steps in any order, each over before this returns.
  Status prepare(const StepRunner& steps);
  Status step(uint32_t index, PassRows rows, const StepRunner& steps);
  // The first `live` rows of a value that lies on a GPU, between steps or after a pass.
  Status read(uint32_t value, PassRows rows, PassRows live, void* to);
  Status write(uint32_t value, PassRows rows, PassRows live, const void* from);

  // Where a value lies: of the CPU's steps, and of a GPU's.
  bool on_gpu(uint32_t value) const { return schedule_.slot_device[program_.values[value].slot] >= 0; }
  uint8_t* host(uint32_t value) const;
  Address address(uint32_t value, PassRows rows = {}) const;
  // A kept value as the pass that ran last left it: dense, `rows` as they were given.
  const uint8_t* kept_at(uint32_t value, PassRows rows) const;
  // Graphs made so far.
  size_t graphs() const { return graphs_.size(); }
  size_t device_bytes() const { return device_bytes_; }
  size_t host_bytes() const { return host_bytes_; }
  Stream& stream_of(size_t device) { return streams_[2 * device]; }
  // Whether a step is given by itself: what the step before left in scratch memory is not there then.
  bool alone() const { return alone_; }

 private:
  struct Graph {
    PassRows rows;
    GraphExec executable;
  };
  PassRunner(const Program& program, Schedule schedule, std::vector<Device*> devices, PassRows most)
      : program_(program), schedule_(std::move(schedule)), devices_(std::move(devices)), most_(most) {}
  Status allocate(const std::vector<uint32_t>& kept);
  Status keep(const std::vector<uint32_t>& kept);
  Status fork();
  Status join();
  Status give(const Operation& operation, PassRows rows, const StepRunner& steps);
  Status give_all(PassRows rows, const StepRunner& steps);
  Status give_first(const StepRunner& steps);
  Status give_kept(PassRows rows);
  Status capture(PassRows rows, const StepRunner& steps, const GraphExec*& out);
  Status compute_until(uint32_t section, const StepRunner& steps, const Mailbox::Watch& watch);
  Status attempt(PassRows rows, const StepRunner& steps, const Options& options, const Mailbox::Watch& watch);
  void settle(std::chrono::milliseconds limit);
  size_t bytes(uint32_t value, PassRows rows) const;
  size_t device_of(uint32_t value) const { return static_cast<size_t>(schedule_.slot_device[program_.values[value].slot]); }
  // Kept values of a device lie one after the other as a pass has rows: one copy brings all of them.
  struct Kept {
    int64_t before;  // columns of those before it
  };
  struct KeptMemory {
    int64_t columns = 0;
    Memory memory;
    Pinned host;
  };

  const Program& program_;
  Schedule schedule_;
  std::vector<Device*> devices_;
  PassRows most_;
  std::vector<Memory> memory_;       // a buffer each, where it lies on a GPU
  std::vector<Pinned> pinned_;       // a buffer each, where it lies on the machine
  std::map<uint32_t, Kept> kept_;
  std::vector<KeptMemory> kept_memory_;  // a device each
  size_t device_bytes_ = 0, host_bytes_ = 0;
  Pinned words_;
  std::unique_ptr<Mailbox> mailbox_;
  std::vector<Stream> streams_;
  std::unique_ptr<ErrorWatch> errors_;
  std::vector<Event> events_, ends_;  // of the schedule; of each stream
  Event begin_;
  std::vector<Graph> graphs_;
  uint32_t computed_ = 0;            // sections of the pass that are done
  bool eager_ = false, alone_ = false;
};

// Rows that graphs are made for: 1, 2, 4, 8 … and the most; a pass of other rows takes the next one, its spare rows dead.
std::vector<int64_t> graph_buckets(int64_t most);
// The smallest that holds them; 0: none does.
int64_t graph_bucket(int64_t rows, int64_t most);

}  // namespace tandem::cuda
