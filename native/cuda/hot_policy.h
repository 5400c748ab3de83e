// Which experts of some layers a GPU holds beside the CPU's: src/placement/hot-experts.ts, which says why, in the thread that runs
// the passes. Counts and chooses; moves no bytes.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace tandem::cuda {

class HotPolicy {
 public:
  struct Options {
    int64_t experts = 0;
    std::vector<int64_t> slots;  // by layer
    double pay_back = 1;         // hits that an upload must bring
    double half_life = 64;       // decode passes in which a score halves
    double hysteresis = 2;       // times pay_back that a newcomer is ahead of whom it replaces
  };
  // An expert on its way. `evicts`: whose place it takes, −1: nobody's.
  struct Upload {
    int64_t layer, expert, slot, evicts;
  };
  explicit HotPolicy(Options options);

  // Slots of the experts of a layer, −1: the CPU's. What the next pass reads.
  const int16_t* table(int64_t layer) const { return table_.data() + layer * options_.experts; }
  int64_t layers() const { return static_cast<int64_t>(options_.slots.size()); }
  int64_t experts() const { return options_.experts; }
  int64_t held() const;

  // During a decode pass: some row of it chose this expert.
  void touch(int64_t layer, int64_t expert) { touched_[static_cast<size_t>(layer * options_.experts + expert)] = 1; }
  // After it.
  void observe();
  // What was touched in a pass that failed says nothing.
  void forget();
  // The upload that brings most, where one pays; from now on nobody holds its slot. Between passes.
  std::optional<Upload> next();
  // Its bytes are there: the next pass finds it. Between passes.
  void done(const Upload& upload);
  // It did not arrive: its slot is free.
  void failed(const Upload& upload) { loading_[static_cast<size_t>(upload.layer)] = 0; }

 private:
  double score(int64_t layer, int64_t expert) const { return scores_[static_cast<size_t>(layer * options_.experts + expert)]; }

  Options options_;
  double needed_, decay_;
  std::vector<double> scores_;  // [layers, experts]
  std::vector<uint8_t> touched_;
  std::vector<int16_t> table_;
  std::vector<std::vector<int16_t>> free_;  // by layer: slots that hold nothing
  std::vector<uint8_t> loading_;            // by layer: an upload is on its way
};

}  // namespace tandem::cuda
