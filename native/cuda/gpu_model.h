// The part of a model that GPUs run: devices, weights, cache, buffers, and the kernels of each step. core/model.h has one where a
// step is placed on cuda:N, and gives it the passes; what the CPU computes meanwhile it gets back through `compute`.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/executor.h"
#include "core/loading.h"
#include "core/program.h"
#include "core/weights.h"
#include "cuda/launch.h"
#include "cuda/pass.h"
#include "cuda/share_runner.h"

namespace tandem::cuda {

class GpuModel {
 public:
  struct Limits {
    int64_t pages = 0, max_rows = 0, max_outputs = 0;
    ShareOptions shares = {};
  };
  using Compute = std::function<Status(uint32_t step)>;

  // Whether some step is placed elsewhere than on cpu.
  static bool wanted(const Program& program);
  // Opens the devices, binds the steps and takes all memory. Refuses what no kernel computes, naming the step; OUT_OF_MEMORY with
  // numbers. `program` outlives this.
  static Status open(const Program& program, const KernelFile& kernels, Limits limits, std::unique_ptr<GpuModel>& out);

  // Weights that no step of the CPU reads.
  RemoteWeights remote() const;
  Status upload(const WeightStore& store, LoadProgress& progress);
  // Once, after that: whether experts may stream (share_runner.h).
  Status judge(const ShareRunner::Plain& plain);

  // A pass. `decode`: every sequence has one row. `alive`: asked now and then, ends the pass.
  Status begin(const Batch& batch, const std::vector<uint8_t>& dead, bool decode);
  Status run(const Compute& compute, const std::function<Status()>& alive);
  Status step(uint32_t index, const Compute& compute);
  Status read(uint32_t value, void* to) { return runner_->read(value, rows_, live_, to); }
  Status write(uint32_t value, const void* from) { return runner_->write(value, rows_, live_, from); }

  // Of steps that are no CPU kernel's: those of GPUs, copies, submit and wait.
  bool runs(const Step& step) const { return step.device != "cpu" || step.op == "copy" || step.op == "submit" || step.op == "wait"; }
  bool holds(uint32_t value) const { return runner_->on_gpu(value); }
  // Memory of a buffer of the CPU's steps; null: it lies on a GPU.
  uint8_t* host(uint32_t value) const { return holds(value) ? nullptr : runner_->host(value); }
  // Ids that a router on a GPU chose in the pass that `run` did last.
  const int32_t* chosen(uint32_t value) const { return reinterpret_cast<const int32_t*>(runner_->kept_at(value, rows_)); }

  // Tokens and log-probabilities of the pass, where they are drawn here. `filled`: per value, whether it was written.
  void take_samples(const Batch& batch, const std::vector<uint8_t>& filled, PassOutput& out) const;

  // Layers of the cache that lie here; a page's elements of such a layer, and back.
  bool caches(int64_t layer) const { return cache_part(layer) != nullptr; }
  Status read_page(int64_t layer, int64_t page, uint8_t* to) const { return move_page(layer, page, to, false); }
  Status write_page(int64_t layer, int64_t page, const uint8_t* from) const { return move_page(layer, page, const_cast<uint8_t*>(from), true); }

  const ShareRunner& shares() const { return *shares_; }
  std::string names() const;  // "cuda:0 NVIDIA …"
  int64_t weight_bytes() const;
  int64_t cache_bytes() const;
  int64_t buffer_bytes() const;  // all else on the devices: values, scratch memory, what a pass is told, experts beside the CPU's
  int64_t pinned_bytes() const;

 private:
  GpuModel(const Program& program, Limits limits) : program_(program), limits_(limits) {}
  Status open_devices(const KernelFile& kernels);
  Status find_caches();
  Status bind();
  Status allocate();
  GpuPart* cache_part(int64_t layer) const;
  Status move_page(int64_t layer, int64_t page, uint8_t* data, bool in) const;
  StepRunner steps(const Compute& compute, const std::function<Status()>& alive = {});

  const Program& program_;
  Limits limits_;
  Schedule schedule_;
  std::vector<std::unique_ptr<Device>> devices_;  // outlive all below
  std::unique_ptr<PassHeader> header_;
  std::vector<std::unique_ptr<GpuPart>> parts_;
  std::unique_ptr<PassRunner> runner_;
  std::unique_ptr<ShareRunner> shares_;
  const WeightStore* store_ = nullptr;
  std::vector<Launch> launches_[2];  // by step; for prompts, and where every sequence has one row
  int64_t tiles_ = 0;                // rows from which a sequence's attention goes over tiles

  // The pass in hand.
  PassRows rows_, live_;  // rows that it is launched for, and those that there are
  bool decode_ = false, sent_ = false;
};

}  // namespace tandem::cuda
