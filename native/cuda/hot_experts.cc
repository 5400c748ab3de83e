#include "cuda/hot_experts.h"

#include <algorithm>

namespace tandem::cuda {

namespace {

// Uploads that fail one after the other before no more are tried.
constexpr int kMostFailures = 3;

}  // namespace

HotExperts::HotExperts(const Program& program, GpuPart& part, const std::vector<ExpertShare>& shares, const Options& options)
    : program_(program), part_(part), shares_(shares), rows_(shares.size(), -1), kernels_(shares.size()), pay_back_(options.pay_back) {
  for (size_t i = 0; i < shares.size(); i++) {
    if (shares[i].ordinal != part.device->info().ordinal) continue;
    const Step& step = program.steps[shares[i].step];
    const int64_t slots = step.layer < 0 || static_cast<size_t>(step.layer) >= options.slots.size() ? 0 : options.slots[static_cast<size_t>(step.layer)];
    if (slots < 1) continue;
    ExpertPack pack(program, step);
    const auto known = std::find_if(layers_.begin(), layers_.end(), [&](const Layer& layer) { return layer.pack.same_weights(pack); });
    rows_[i] = known - layers_.begin();
    if (known != layers_.end()) continue;
    experts_ = std::max(experts_, pack.experts());
    layers_.push_back({step.layer, pack, std::min<int64_t>({slots, pack.experts(), INT16_MAX})});
  }
}

int64_t HotExperts::slots() const {
  int64_t total = 0;
  for (const Layer& layer : layers_) total += layer.slots;
  return total;
}

Status HotExperts::bind(int64_t most) {
  std::vector<int64_t> slots;
  for (size_t i = 0; i < shares_.size(); i++)
    if (takes(i)) TANDEM_TRY(kernels_[i].bind({program_.steps[shares_[i].step], part_}, most, false));
  for (Layer& layer : layers_) {
    slots.push_back(layer.slots);
    layer.memory = memory_.reserve(static_cast<size_t>(layer.slots) * layer.pack.bytes());
    layer.tables = tables_.reserve(static_cast<size_t>(6 * layer.pack.experts() * 8));
  }
  policy_ = std::make_unique<HotPolicy>(HotPolicy::Options{experts_, slots, pay_back_});
  return {};
}

Status HotExperts::allocate() {
  TANDEM_TRY(memory_.allocate(*part_.device, "experts that a GPU holds beside the CPU's"));
  TANDEM_TRY(tables_.allocate(*part_.device, "experts that a GPU holds beside the CPU's"));
  TANDEM_TRY(part_.device->pin(tables_.size(), "the tables of experts", staging_));
  ring_ = std::make_unique<UploadRing>();
  return ring_->open(*part_.device, {});
}

void HotExperts::prepare(const WeightStore& store) {
  if (loading_) {
    size_t arrived = 0;
    const bool ok = ring_->arrived(arrived).ok();
    if (ok && arrived == 0) return;
    Layer& layer = layers_[static_cast<size_t>(loading_->layer)];
    if (ok) policy_->done(*loading_);
    else policy_->failed(*loading_);
    (ok ? counts_.uploads : counts_.failures).fetch_add(1, std::memory_order_relaxed);
    if (ok) counts_.bytes.fetch_add(layer.pack.bytes(), std::memory_order_relaxed);
    failed_in_a_row_ = ok ? 0 : failed_in_a_row_ + 1;
    layer.changed = true;
    loading_.reset();
    if (!ring_->reset().ok()) failed_in_a_row_ = kMostFailures;
  }
  if (failed_in_a_row_ < kMostFailures) loading_ = policy_->next();
  counts_.held.store(policy_->held(), std::memory_order_relaxed);
  if (!loading_) return;
  Layer& layer = layers_[static_cast<size_t>(loading_->layer)];
  if (loading_->evicts >= 0) {
    counts_.evictions.fetch_add(1, std::memory_order_relaxed);
    layer.changed = true;
  }
  UploadRing::Job job;
  job.to = memory_.at(layer.memory) + static_cast<size_t>(loading_->slot) * layer.pack.bytes();
  job.bytes = layer.pack.bytes();
  job.fill = [&store, pack = &layer.pack, expert = loading_->expert](size_t offset, size_t bytes, uint8_t* to) { pack->read(store, expert, offset, bytes, to); };
  ring_->push(std::move(job));
}

// Addresses on the GPU, or null.
void HotExperts::write_tables(Layer& layer, const int16_t* slots) {
  const int64_t experts = layer.pack.experts();
  uint64_t* const to = reinterpret_cast<uint64_t*>(staging_.data() + layer.tables);
  for (int m = 0; m < 3; m++) {
    const ExpertPack::Part& part = layer.pack.part(m);
    for (int64_t e = 0; e < experts; e++) {
      const Address slot = slots[e] < 0 ? 0 : memory_.at(layer.memory) + static_cast<size_t>(slots[e]) * layer.pack.bytes();
      to[2 * m * experts + e] = slot == 0 ? 0 : slot + part.data;
      to[(2 * m + 1) * experts + e] = slot == 0 ? 0 : slot + part.scales;
    }
  }
}

Status HotExperts::send(Stream& stream) {
  for (size_t i = 0; i < layers_.size(); i++) {
    Layer& layer = layers_[i];
    if (!layer.changed) continue;
    write_tables(layer, policy_->table(static_cast<int64_t>(i)));
    TANDEM_TRY(stream.copy_in(tables_.at(layer.tables), staging_.data() + layer.tables, static_cast<size_t>(6 * layer.pack.experts() * 8)));
    layer.changed = false;
  }
  return {};
}

void HotExperts::mask(size_t share, int32_t* ids, int64_t rows, int64_t columns, int64_t stride) {
  const int64_t row = rows_[share];
  const int64_t experts = layers_[static_cast<size_t>(row)].pack.experts();
  const int16_t* const slots = policy_->table(row);
  uint64_t hits = 0, misses = 0;
  for (int64_t t = 0; t < rows; t++)
    for (int64_t j = 0; j < columns; j++) {
      int32_t& id = ids[t * stride + j];
      if (id < 0 || id >= experts) continue;
      policy_->touch(row, id);
      (slots[id] >= 0 ? hits : misses)++;
      if (slots[id] >= 0) id = -1;
    }
  counts_.hits.fetch_add(hits, std::memory_order_relaxed);
  counts_.misses.fetch_add(misses, std::memory_order_relaxed);
}

Status HotExperts::launch(size_t share, Stream& stream, ExpertCall call) const {
  const Layer& layer = layers_[static_cast<size_t>(rows_[share])];
  const auto table = [&](int m) {
    const uint8_t* const* const at = reinterpret_cast<const uint8_t* const*>(tables_.at(layer.tables));
    return ExpertTable{at + 2 * m * layer.pack.experts(), layer.pack.part(m).scale_rows == 0 ? nullptr : at + (2 * m + 1) * layer.pack.experts()};
  };
  call.gate = table(ExpertPack::gate);
  call.up = table(ExpertPack::up);
  call.down = table(ExpertPack::down);
  return kernels_[share].launch(stream, call);
}

void HotExperts::finish(bool ok) {
  if (ok) return policy_->observe();
  policy_->forget();
  // Nobody knows which copies were done.
  for (Layer& layer : layers_) layer.changed = true;
}

}  // namespace tandem::cuda
