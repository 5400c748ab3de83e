// What GPUs compute of routed experts on the CPU, pass by pass: nothing, those that they hold (hot_experts.h), or all of them as they
// stream by (streaming.h). The schedule has the same operations for all three: a share into a buffer of its own, and its sum
// with what the CPU has brought.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "cuda/expert_shares.h"
#include "cuda/hot_experts.h"
#include "cuda/streaming.h"

namespace tandem::cuda {

struct ShareOptions {
  std::vector<int64_t> hot_slots;  // experts that each layer of the Program holds on its GPU beside the CPU's; empty: none
  double hot_pay_back = 1;         // hits that an upload must bring
  int64_t stream_from = 0;         // rows of a prompt from which experts stream; 0: never
  size_t stream_memory = 0;        // of each card, for both buffers
  bool wanted() const { return stream_from > 0 || !hot_slots.empty(); }
};

class ShareRunner {
 public:
  // Of a step on the CPU, computed with other rows than those of a pass, in floats: x [rows, hidden], ids and weights [rows, topk].
  struct PlainCall {
    uint32_t step;
    int64_t rows;
    float* x;
    int32_t* ids;
    float* weights;
    float* y;
  };
  using Plain = std::function<Status(const PlainCall&)>;

  // `most_hot`: rows up to which a decode pass uses what is held.
  ShareRunner(const Program& program, ShareOptions options, int64_t max_rows, int64_t most_hot);
  const std::vector<ExpertShare>& shares() const { return shares_; }
  // Before memory is taken.
  Status bind(const std::vector<std::unique_ptr<GpuPart>>& parts);
  // What there is no memory for is left out, and `held` and `streamed` say so.
  Status allocate();
  // Once, when weights are there: a kind of layer that does not stream as the CPU computes it is not streamed, nor are others.
  // `send`: gives a GPU what it is told of so many rows.
  Status judge(const WeightStore& store, const std::function<Status(int64_t rows, Stream& stream, size_t device)>& send, const Plain& plain);

  // A pass, in this order; `rows` that there are.
  Status begin(const WeightStore& store, bool decode, int64_t rows);
  Status send(size_t device, Stream& stream);
  Status give(const Operation& operation, Stream& stream, PassRows rows, const std::function<Status()>& alive);
  // Before the CPU computes a step.
  void prepare_step(uint32_t step, int64_t rows);
  void end(bool ok);

  // For people: "4 experts of 58 layers", "from 1024 rows on", or why not; '' where it was not asked for.
  const std::string& held() const { return held_; }
  const std::string& streamed() const { return streamed_; }
  int64_t device_bytes() const;
  // Sums over all GPUs.
  struct Counts {
    uint64_t hits = 0, misses = 0, uploads = 0, evictions = 0, failures = 0, bytes = 0;
    int64_t held = 0, slots = 0;
    uint64_t streamed_passes = 0, streamed_bytes = 0;
  };
  Counts counts() const;

 private:
  enum class Mode { none, hot, stream };
  struct Card {
    GpuPart* part;
    std::unique_ptr<HotExperts> hot;
    std::unique_ptr<Streaming> stream;
    std::vector<Memory> buffers;  // of shares; those that it has none of are empty
    Memory choices = {};          // ids and weights of a share that has columns of wider values, a row right behind the one before
    FunctionHandle *add = nullptr, *copy = nullptr;
  };
  Card& card_of(size_t share) { return cards_[card_[share]]; }
  bool takes(size_t share) const;
  int64_t columns(size_t share) const { return program_.values[program_.steps[shares_[share].step].outputs[0]].columns; }
  Status allocate_buffers(int64_t rows);
  Status allocate_choices(Card& card, size_t share, int64_t rows);
  // Of ids and weights: whether the step reads all columns of the value.
  bool whole(size_t share) const;
  Status together(size_t share, Stream& stream, PassRows rows, ExpertCall& call);
  Status judge_kind(Card& card, size_t share, const WeightStore& store, const std::function<Status(int64_t, Stream&, size_t)>& send, const Plain& plain);
  ExpertCall call_of(size_t share, PassRows rows);

  const Program& program_;
  ShareOptions options_;
  int64_t max_rows_, most_hot_;
  std::vector<ExpertShare> shares_;
  std::vector<size_t> card_;           // of each share
  std::vector<int64_t> share_of_step_; // −1: none
  std::vector<Card> cards_;
  Mode mode_ = Mode::none;
  std::string held_, streamed_;
  size_t buffer_bytes_ = 0;
  std::vector<size_t> choice_bytes_;  // of each card
  std::atomic<uint64_t> streamed_passes_{0};
};

}  // namespace tandem::cuda
