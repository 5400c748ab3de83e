#include "cuda/hot_policy.h"

#include <algorithm>
#include <cmath>

namespace tandem::cuda {

HotPolicy::HotPolicy(Options options)
    : options_(std::move(options)), needed_(options_.pay_back * options_.hysteresis), decay_(std::exp2(-1 / options_.half_life)) {
  const size_t layers = options_.slots.size(), all = layers * static_cast<size_t>(options_.experts);
  scores_.resize(all);
  touched_.resize(all);
  table_.assign(all, -1);
  loading_.resize(layers);
  free_.resize(layers);
  for (size_t layer = 0; layer < layers; layer++)
    for (int64_t slot = 0; slot < options_.slots[layer]; slot++) free_[layer].push_back(static_cast<int16_t>(slot));
}

int64_t HotPolicy::held() const {
  return std::count_if(table_.begin(), table_.end(), [](int16_t slot) { return slot >= 0; });
}

void HotPolicy::observe() {
  for (size_t i = 0; i < scores_.size(); i++) scores_[i] = scores_[i] * decay_ + touched_[i];
  forget();
}

void HotPolicy::forget() { std::fill(touched_.begin(), touched_.end(), uint8_t{0}); }

std::optional<HotPolicy::Upload> HotPolicy::next() {
  std::optional<Upload> best;
  double most = 0;
  for (int64_t layer = 0; layer < layers(); layer++) {
    const size_t l = static_cast<size_t>(layer);
    if (options_.slots[l] == 0 || loading_[l] != 0) continue;
    // The coldest that is held and the hottest that is not.
    int64_t coldest = -1, hottest = -1;
    const int16_t* const slots = table(layer);
    for (int64_t e = 0; e < options_.experts; e++) {
      int64_t& end = slots[e] >= 0 ? coldest : hottest;
      if (end < 0 || (slots[e] >= 0 ? score(layer, e) < score(layer, end) : score(layer, e) > score(layer, end))) end = e;
    }
    if (hottest < 0) continue;
    const int64_t evicts = free_[l].empty() ? coldest : -1;
    const double gain = score(layer, hottest) - (evicts < 0 ? 0 : score(layer, evicts));
    if (gain < needed_ || gain <= most) continue;
    most = gain;
    best = Upload{layer, hottest, 0, evicts};
  }
  if (!best) return best;
  std::vector<int16_t>& free = free_[static_cast<size_t>(best->layer)];
  if (best->evicts >= 0) {
    int16_t& slot = table_[static_cast<size_t>(best->layer * options_.experts + best->evicts)];
    free.push_back(slot);
    slot = -1;
  }
  loading_[static_cast<size_t>(best->layer)] = 1;
  best->slot = free[0];
  return best;
}

void HotPolicy::done(const Upload& upload) {
  std::vector<int16_t>& free = free_[static_cast<size_t>(upload.layer)];
  loading_[static_cast<size_t>(upload.layer)] = 0;
  table_[static_cast<size_t>(upload.layer * options_.experts + upload.expert)] = free[0];
  free.erase(free.begin());
}

}  // namespace tandem::cuda
