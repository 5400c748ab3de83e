#include "cuda/streaming.h"

#include <algorithm>
#include <string>

#include "core/memory.h"

namespace tandem::cuda {

Streaming::Streaming(const Program& program, GpuPart& part, const std::vector<ExpertShare>& shares, const Options& options)
    : program_(program), part_(part), shares_(shares), options_(options) {
  for (const ExpertShare& share : shares) {
    layers_.emplace_back();
    if (share.ordinal == part.device->info().ordinal) layers_.back().reset(new Layer{ExpertPack(program, program.steps[share.step]), {}, {}});
  }
}

bool Streaming::any() const {
  return std::any_of(layers_.begin(), layers_.end(), [](const auto& layer) { return layer != nullptr; });
}

std::vector<size_t> Streaming::kinds() const {
  std::vector<size_t> kinds;
  for (size_t i = 0; i < layers_.size(); i++) {
    const auto alike = [&](size_t known) { return layers_[known]->pack.like(layers_[i]->pack); };
    if (takes(i) && std::none_of(kinds.begin(), kinds.end(), alike)) kinds.push_back(i);
  }
  return kinds;
}

Status Streaming::bind(int64_t most) {
  for (size_t i = 0; i < layers_.size(); i++)
    if (takes(i)) TANDEM_TRY(layers_[i]->kernels.bind({program_.steps[shares_[i].step], part_}, most, true));
  return {};
}

// Even groups of what fits into a buffer: the last of a layer is not a small rest.
Status Streaming::cut() {
  for (const auto& layer : layers_) {
    if (!layer) continue;
    const int64_t experts = layer->pack.experts(), fit = std::min(experts, static_cast<int64_t>(options_.memory / 2 / layer->pack.bytes()));
    if (fit < 1)
      return Status(Code::out_of_memory, "[native] experts pass through a GPU in two buffers of one expert at least, " + format_bytes(static_cast<double>(2 * layer->pack.bytes())) +
                                             "; " + format_bytes(static_cast<double>(options_.memory)) + " of cuda:" + std::to_string(part_.device->info().ordinal) + " are set aside; place less on it");
    const int64_t count = (experts + fit - 1) / fit;
    for (int64_t i = 0; i < count; i++) {
      const Group group{experts * i / count, experts * (i + 1) / count};
      layer->groups.push_back(group);
      layer->groups.back().tables = tables_.reserve(static_cast<size_t>(12 * experts * 8));
      buffer_bytes_ = std::max(buffer_bytes_, static_cast<size_t>(group.end - group.first) * layer->pack.bytes());
    }
  }
  return {};
}

Status Streaming::allocate() {
  TANDEM_TRY(cut());
  Device& device = *part_.device;
  for (int b = 0; b < 2; b++) {
    TANDEM_TRY(device.allocate(buffer_bytes_, "the buffers that experts pass through", buffers_[b]));
    TANDEM_TRY(device.event(uploaded_[b]));
    TANDEM_TRY(device.event(computed_[b]));
  }
  TANDEM_TRY(tables_.allocate(device, "the buffers that experts pass through"));
  TANDEM_TRY(write_tables());
  ring_ = std::make_unique<UploadRing>();
  return ring_->open(device, {options_.places, std::min(options_.place_bytes, buffer_bytes_), options_.threads, true});
}

// Where the experts of each group lie in either buffer; null for all others.
Status Streaming::write_tables() {
  std::vector<uint64_t> all(tables_.size() / 8);
  for (const auto& layer : layers_) {
    if (!layer) continue;
    const size_t experts = static_cast<size_t>(layer->pack.experts());
    for (const Group& group : layer->groups)
      for (size_t b = 0; b < 2; b++)
        for (size_t m = 0; m < 3; m++)
          for (int64_t e = group.first; e < group.end; e++) {
            const Address at = buffers_[b].get() + static_cast<size_t>(e - group.first) * layer->pack.bytes();
            uint64_t* const to = all.data() + group.tables / 8 + (6 * b + 2 * m) * experts + static_cast<size_t>(e);
            to[0] = at + layer->pack.part(static_cast<int>(m)).data;
            to[experts] = at + layer->pack.part(static_cast<int>(m)).scales;
          }
  }
  Stream stream;
  TANDEM_TRY(part_.device->stream(stream));
  TANDEM_TRY(stream.copy_in(tables_.at(0), all.data(), all.size() * 8));
  return stream.finish();
}

Status Streaming::begin(const WeightStore& store, std::vector<size_t> shares) {
  store_ = &store;
  turns_.clear();
  at_ = 0;
  for (const size_t share : shares)
    for (size_t group = 0; takes(share) && group < layers_[share]->groups.size(); group++) turns_.push_back({share, group});
  TANDEM_TRY(ring_->reset());
  for (size_t turn = 0; turn < std::min<size_t>(2, turns_.size()); turn++) push(turn);
  return {};
}

void Streaming::push(size_t turn) {
  const Layer& layer = *layers_[turns_[turn].share];
  const Group& group = layer.groups[turns_[turn].group];
  const size_t each = layer.pack.bytes();
  UploadRing::Job job;
  job.to = buffers_[turn % 2].get();
  job.bytes = static_cast<size_t>(group.end - group.first) * each;
  job.after = turn < 2 ? nullptr : &computed_[turn % 2];
  job.done = &uploaded_[turn % 2];
  job.fill = [store = store_, pack = &layer.pack, first = group.first, each](size_t offset, size_t bytes, uint8_t* to) {
    while (bytes > 0) {
      const size_t within = offset % each, part = std::min(bytes, each - within);
      pack->read(*store, first + static_cast<int64_t>(offset / each), within, part, to);
      offset += part, to += part, bytes -= part;
    }
  };
  ring_->push(std::move(job));
}

Status Streaming::launch(size_t share, Stream& stream, ExpertCall call, const std::function<Status()>& alive) {
  const Layer& layer = *layers_[share];
  TANDEM_TRY(stream.fill(reinterpret_cast<Address>(call.y), 0, static_cast<size_t>(call.rows * call.y_stride * 4)));
  call.tiled = true;
  call.accumulates = true;
  for (const Group& group : layer.groups) {
    if (at_ >= turns_.size() || turns_[at_].share != share)
      return Status(Code::native_failed, "[native] experts pass through a GPU in the order of the layers; a step came out of turn; report this with the output of tandem explain");
    const size_t b = at_ % 2;
    TANDEM_TRY(ring_->wait_given(at_ + 1, alive));
    TANDEM_TRY(stream.wait(uploaded_[b]));
    const auto table = [&](int m) {
      const uint8_t* const* const at = reinterpret_cast<const uint8_t* const*>(tables_.at(group.tables)) + (6 * static_cast<int64_t>(b) + 2 * m) * layer.pack.experts();
      return ExpertTable{at, layer.pack.part(m).scale_rows == 0 ? nullptr : at + layer.pack.experts()};
    };
    call.gate = table(ExpertPack::gate);
    call.up = table(ExpertPack::up);
    call.down = table(ExpertPack::down);
    TANDEM_TRY(layer.kernels.launch(stream, call));
    TANDEM_TRY(stream.record(computed_[b]));
    if (at_ + 2 < turns_.size()) push(at_ + 2);
    at_++;
  }
  return {};
}

Status Streaming::end() { return ring_->reset(); }

}  // namespace tandem::cuda
