// Long prompts: all experts of the layers that a GPU shares pass through it once a pass, in groups, through two buffers by turns
// (docs/decisions/017). Uploads run ahead of the passes' thread, as far as buffers are free.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "core/weights.h"
#include "cuda/expert_kernels.h"
#include "cuda/expert_pack.h"
#include "cuda/expert_shares.h"
#include "cuda/upload_ring.h"

namespace tandem::cuda {

class Streaming {
 public:
  struct Options {
    size_t memory = 0;  // of the card, for both buffers
    size_t places = 3, place_bytes = size_t{16} << 20;  // of the ring
    int threads = 1;    // that fill it
  };
  // `shares`: all of the Program; those of this GPU take part.
  Streaming(const Program& program, GpuPart& part, const std::vector<ExpertShare>& shares, const Options& options);
  bool takes(size_t share) const { return layers_[share] != nullptr; }
  bool any() const;

  // Before memory is taken; passes of up to `most` rows.
  Status bind(int64_t most);
  // OUT_OF_MEMORY with numbers, also where a buffer holds not one expert.
  Status allocate();
  int64_t bytes() const { return static_cast<int64_t>(2 * buffer_bytes_ + tables_.size()); }

  // Uploads for these shares, in this order, begin. None is running.
  Status begin(const WeightStore& store, std::vector<size_t> shares);
  // The next of them: y of all its experts. `alive` may end what is waited for.
  Status launch(size_t share, Stream& stream, ExpertCall call, const std::function<Status()>& alive);
  // Whatever of it is over.
  Status end();

  // Of layers that are alike, the first.
  std::vector<size_t> kinds() const;
  uint64_t uploaded_bytes() const { return ring_ ? ring_->uploaded_bytes() : 0; }

 private:
  struct Group {
    int64_t first, end;  // experts
    size_t tables = 0;   // place, [2 buffers][6][experts]
  };
  struct Layer {
    ExpertPack pack;
    ExpertKernels kernels;
    std::vector<Group> groups;
  };
  struct Turn {
    size_t share, group;
  };
  Status cut();
  Status write_tables();
  void push(size_t turn);

  const Program& program_;
  GpuPart& part_;
  const std::vector<ExpertShare>& shares_;
  Options options_;
  std::vector<std::unique_ptr<Layer>> layers_;  // by share; null: not here
  size_t buffer_bytes_ = 0;
  Memory buffers_[2];
  Arena tables_;
  Event uploaded_[2], computed_[2];

  // The pass in hand.
  const WeightStore* store_ = nullptr;
  std::vector<Turn> turns_;
  size_t at_ = 0;
  std::unique_ptr<UploadRing> ring_;  // its threads end first
};

}  // namespace tandem::cuda
