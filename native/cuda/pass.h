// Passes of a Program over GPUs and the CPU: the buffers of its values, and a schedule run on streams, eagerly or as a graph.
//
// Eager: operations are given to the driver in order; where one needs a section of the CPU, the section is computed first,
// after everything that does not need it was given: the GPU has work meanwhile, and no queue of a driver ever fills up behind a
// stream that waits. Graph: everything is given at once, and streams wait for words of the mailbox. Nothing runs on threads of
// the driver, nothing blocks inside it: a pass ends with a Status whatever either side does.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/program.h"
#include "core/status.h"
#include "cuda/device.h"
#include "cuda/mailbox.h"
#include "cuda/schedule.h"

namespace tandem::cuda {

// Rows of a pass: of tokens and of outputs.
struct PassRows {
  int64_t tokens = 0, outputs = 0;
};

// What a step does; both are given the index of the step.
struct StepRunner {
  // Gives the kernels of a step to the stream. In a graph it is called once a graph: what changes from pass to pass is read from memory.
  std::function<Status(uint32_t step, Stream& stream, PassRows rows)> launch;
  std::function<Status(uint32_t step)> compute;  // on the CPU, by the caller's thread
};

class PassRunner {
 public:
  // `program` and `devices` (one each of Schedule::devices, in its order) outlive this. OUT_OF_MEMORY with numbers.
  static Status create(const Program& program, Schedule schedule, std::vector<Device*> devices, PassRows most, std::unique_ptr<PassRunner>& out);

  struct Options {
    bool graph = false;
    Mailbox::Watch watch;  // `alive` is also asked where the end is waited for
    std::chrono::milliseconds settle{5000};  // how long streams may take to come to rest after a pass has failed
  };
  // The first error of either side; after one the streams have come to rest, or their devices count as lost.
  Status run(PassRows rows, const StepRunner& steps, const Options& options);

  // Where a value lies: of the CPU's steps, and of a GPU's.
  uint8_t* host(uint32_t value) const;
  Address address(uint32_t value) const;
  // Graphs made so far.
  size_t graphs() const { return graphs_.size(); }

 private:
  struct Graph {
    PassRows rows;
    GraphExec executable;
  };
  PassRunner(const Program& program, Schedule schedule, std::vector<Device*> devices, PassRows most)
      : program_(program), schedule_(std::move(schedule)), devices_(std::move(devices)), most_(most) {}
  Status allocate();
  Status fork();
  Status join();
  Status give(const Operation& operation, PassRows rows, const StepRunner& steps);
  Status give_all(PassRows rows, const StepRunner& steps);
  Status capture(PassRows rows, const StepRunner& steps, const GraphExec*& out);
  Status compute_until(uint32_t section, const StepRunner& steps, const Mailbox::Watch& watch);
  Status attempt(PassRows rows, const StepRunner& steps, const Options& options, const Mailbox::Watch& watch);
  void settle(std::chrono::milliseconds limit);
  size_t bytes(uint32_t value, PassRows rows) const;

  const Program& program_;
  Schedule schedule_;
  std::vector<Device*> devices_;
  PassRows most_;
  std::vector<Memory> memory_;       // a buffer each, where it lies on a GPU
  std::vector<Pinned> pinned_;       // a buffer each, where it lies on the machine
  Pinned words_;
  std::unique_ptr<Mailbox> mailbox_;
  std::vector<Stream> streams_;
  std::vector<Event> events_, ends_;  // of the schedule; of each stream
  Event begin_;
  std::vector<Graph> graphs_;
  uint32_t computed_ = 0;            // sections of the pass that are done
  bool eager_ = false;
};

// Rows that graphs are made for: 1, 2, 4, 8 … and the most; a pass of other rows takes the next one, its spare rows dead.
std::vector<int64_t> graph_buckets(int64_t most);
// The smallest that holds them; 0: none does.
int64_t graph_bucket(int64_t rows, int64_t most);

}  // namespace tandem::cuda
