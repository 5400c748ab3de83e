// Experts that one GPU holds beside the CPU's: memory for some of each layer, the table that says which, and uploads in the
// background (docs/decisions/016). Between passes the table may change; during a pass both sides read the same one.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "core/weights.h"
#include "cuda/expert_kernels.h"
#include "cuda/expert_pack.h"
#include "cuda/expert_shares.h"
#include "cuda/hot_policy.h"
#include "cuda/upload_ring.h"

namespace tandem::cuda {

// Since load; may be read while a pass runs.
struct HotCounts {
  std::atomic<uint64_t> hits{0}, misses{0};  // choices of decode passes: of the GPU, of the CPU
  std::atomic<uint64_t> uploads{0}, evictions{0}, failures{0}, bytes{0};
  std::atomic<int64_t> held{0};
};

class HotExperts {
 public:
  struct Options {
    std::vector<int64_t> slots;  // by layer of the Program
    double pay_back = 1;
  };
  // `shares`: all of the Program; those of this GPU in layers with slots take part.
  HotExperts(const Program& program, GpuPart& part, const std::vector<ExpertShare>& shares, const Options& options);
  bool takes(size_t share) const { return rows_[share] >= 0; }
  bool any() const { return !layers_.empty(); }

  // Before memory is taken; passes of up to `most` rows.
  Status bind(int64_t most);
  // OUT_OF_MEMORY with numbers.
  Status allocate();
  int64_t bytes() const { return static_cast<int64_t>(memory_.size() + tables_.size()); }  // of the card
  int64_t slots() const;
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }

  // Before a decode pass, none running: what has arrived is found, and the next upload chosen.
  void prepare(const WeightStore& store);
  // Gives what has changed of the table.
  Status send(Stream& stream);
  // Choices of a step on the CPU that are held here become −1: no expert. `columns` of each row, rows `stride` apart.
  void mask(size_t share, int32_t* ids, int64_t rows, int64_t columns, int64_t stride);
  // A piece of the upload may go: the link is free.
  void feed() { ring_->turn(); }
  Status launch(size_t share, Stream& stream, ExpertCall call) const;
  // After a decode pass.
  void finish(bool ok);

  const HotCounts& counts() const { return counts_; }

 private:
  struct Layer {
    int32_t layer;
    ExpertPack pack;
    int64_t slots;
    size_t memory = 0;   // place of its first slot
    size_t tables = 0;   // place of its tables, [6][experts]
    bool changed = true;
  };
  void write_tables(Layer& layer, const int16_t* slots);

  const Program& program_;
  GpuPart& part_;
  const std::vector<ExpertShare>& shares_;
  std::vector<Layer> layers_;
  std::vector<int64_t> rows_;  // of each share: its layer here, −1: none
  std::vector<ExpertKernels> kernels_;  // of each share: late experts are fewer a row
  int64_t experts_ = 0;        // most of a layer
  std::unique_ptr<HotPolicy> policy_;
  double pay_back_;
  Arena memory_, tables_;
  Pinned staging_;             // of the tables
  std::optional<HotPolicy::Upload> loading_;
  int failed_in_a_row_ = 0;
  HotCounts counts_;
  std::unique_ptr<UploadRing> ring_;  // its threads end first
};

}  // namespace tandem::cuda
