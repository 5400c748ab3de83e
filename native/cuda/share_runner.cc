#include "cuda/share_runner.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <thread>

namespace tandem::cuda {

namespace {

// ‖y − ŷ‖ / ‖ŷ‖ of a row: bf16 stays below a quarter of it, one missing of 64 is four times as much (src/placement/streaming-gate.ts).
constexpr double kRowLimit = 1.0 / 32;
// Threads that fill the ring: one copies about as fast as half a bus.
constexpr int kMostStagers = 4;
constexpr int64_t kGateRows = 16;

int stagers() { return std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 2, 1, kMostStagers); }

double row_distance(const float* a, const float* b, int64_t columns) {
  double error = 0, size = 0;
  for (int64_t c = 0; c < columns; c++) {
    const double difference = static_cast<double>(a[c]) - b[c];
    error += difference * difference;
    size += static_cast<double>(b[c]) * b[c];
  }
  if (error == 0) return 0;
  const double distance = std::sqrt(error / size);
  return std::isnan(distance) ? INFINITY : distance;
}

// What went wrong without the room's name.
std::string reason(const Status& status) {
  const size_t at = status.message().find("] ");
  return at == std::string::npos ? status.message() : status.message().substr(at + 2);
}

}  // namespace

ShareRunner::ShareRunner(const Program& program, ShareOptions options, int64_t max_rows, int64_t most_hot)
    : program_(program), options_(std::move(options)), max_rows_(max_rows), most_hot_(std::min(most_hot, max_rows)), shares_(options_.wanted() ? find_shares(program) : std::vector<ExpertShare>()),
      share_of_step_(program.steps.size(), -1) {
  for (size_t i = 0; i < shares_.size(); i++) share_of_step_[shares_[i].step] = static_cast<int64_t>(i);
}

Status ShareRunner::bind(const std::vector<std::unique_ptr<GpuPart>>& parts) {
  card_.resize(shares_.size());
  for (const auto& part : parts) {
    const int ordinal = part->device->info().ordinal;
    for (size_t i = 0; i < shares_.size(); i++)
      if (shares_[i].ordinal == ordinal) card_[i] = cards_.size();
    cards_.push_back({part.get(), nullptr, nullptr, {}});
    Card& card = cards_.back();
    TANDEM_TRY(part->device->function("tandem_add", card.add));
    TANDEM_TRY(part->device->function("tandem_copy_heads", card.copy));
    if (!options_.hot_slots.empty()) {
      card.hot = std::make_unique<HotExperts>(program_, *part, shares_, HotExperts::Options{options_.hot_slots, options_.hot_pay_back});
      TANDEM_TRY(card.hot->bind(most_hot_));
    }
    if (options_.stream_from == 0) continue;
    Streaming::Options stream;
    stream.memory = options_.stream_memory;
    stream.threads = stagers();
    card.stream = std::make_unique<Streaming>(program_, *part, shares_, stream);
    TANDEM_TRY(card.stream->bind(max_rows_));
  }
  return {};
}

Status ShareRunner::allocate() {
  const auto possible = [](const Status& status) { return status.ok() || status.code() == Code::out_of_memory; };
  bool streams = false;
  Status status;
  if (options_.stream_from > 0) {
    for (Card& card : cards_) {
      if (!card.stream->any()) continue;
      streams = true;
      if (status.ok()) status = card.stream->allocate();
    }
    if (status.ok() && streams) status = allocate_buffers(max_rows_);
    if (!possible(status)) return status;
    if (!status.ok()) streamed_ = "off: " + reason(status);
    else if (!streams) streamed_ = "off: no layer has its experts on the CPU and all else on one GPU";
    else streamed_ = "from " + std::to_string(options_.stream_from) + " rows on";
    if (!status.ok() || !streams)
      for (Card& card : cards_) card.stream.reset();
  }
  if (options_.hot_slots.empty()) return {};
  int64_t slots = 0, layers = 0;
  status = {};
  for (Card& card : cards_) {
    if (!card.hot->any()) {
      card.hot.reset();
      continue;
    }
    slots += card.hot->slots();
    layers += card.hot->layers();
    if (status.ok()) status = card.hot->allocate();
  }
  if (status.ok() && slots > 0) status = allocate_buffers(most_hot_);
  if (!possible(status)) return status;
  if (!status.ok()) {
    held_ = "off: " + reason(status);
    for (Card& card : cards_) card.hot.reset();
  } else if (slots == 0) {
    held_ = "off: no layer has its experts on the CPU and all else on one GPU";
  } else {
    held_ = "room for " + std::to_string(slots) + " in " + std::to_string(layers) + (layers == 1 ? " layer" : " layers");
  }
  return {};
}

// Where there are none yet, or smaller ones are wanted.
Status ShareRunner::allocate_buffers(int64_t rows) {
  choice_bytes_.resize(cards_.size());
  for (size_t i = 0; i < shares_.size(); i++) {
    Card& card = card_of(i);
    card.buffers.resize(share_buffers(shares_));
    if (!whole(i)) TANDEM_TRY(allocate_choices(card, i, rows));
    if (card.buffers[shares_[i].buffer]) continue;
    int64_t most = 0;
    for (size_t k = 0; k < shares_.size(); k++)
      if (card_[k] == card_[i] && shares_[k].buffer == shares_[i].buffer) most = std::max(most, columns(k));
    const size_t size = static_cast<size_t>(rows * most * 4);
    TANDEM_TRY(card.part->device->allocate(size, "the sums of shared steps", card.buffers[shares_[i].buffer]));
    buffer_bytes_ += size;
  }
  return {};
}

bool ShareRunner::whole(size_t share) const {
  const Step& step = program_.steps[shares_[share].step];
  const auto all = [&](size_t operand) { return step.inputs[operand].columns == program_.values[step.inputs[operand].index].columns; };
  return all(1) && all(2);
}

// For the share that wants most.
Status ShareRunner::allocate_choices(Card& card, size_t share, int64_t rows) {
  size_t& there = choice_bytes_[card_[share]];
  const size_t size = static_cast<size_t>(2 * rows * program_.steps[shares_[share].step].inputs[1].columns * 4);
  if (size <= there) return {};
  TANDEM_TRY(card.part->device->allocate(size, "the choices of shared steps", card.choices));
  buffer_bytes_ += size - there;
  there = size;
  return {};
}

// Ids and weights that are columns of wider values, as kernels read them.
Status ShareRunner::together(size_t share, Stream& stream, PassRows rows, ExpertCall& call) {
  if (whole(share)) return {};
  const Card& card = card_of(share);
  const Step& step = program_.steps[shares_[share].step];
  const int64_t columns = step.inputs[1].columns;
  float* const to = reinterpret_cast<float*>(card.choices.get());
  const auto copy = [&](const void* from, uint32_t value, const Operand& operand, float* at) {
    const float* const first = static_cast<const float*>(from) + operand.start;
    const int64_t stride = program_.values[value].columns;
    const CopyHeadsArguments a = {first, stride, columns, at, columns, columns, 1, columns, card.part->header->tokens(card.part->index)};
    return launch_kernel(stream, card.copy, elementwise_shape(columns, rows.tokens), a);
  };
  TANDEM_TRY(copy(call.ids, shares_[share].ids, step.inputs[1], to));
  TANDEM_TRY(copy(call.weights, shares_[share].weights, step.inputs[2], to + rows.tokens * columns));
  call.ids = reinterpret_cast<const int32_t*>(to);
  call.weights = to + rows.tokens * columns;
  return {};
}

Status ShareRunner::judge(const WeightStore& store, const std::function<Status(int64_t, Stream&, size_t)>& send, const Plain& plain) {
  for (Card& card : cards_) {
    if (!card.stream) continue;
    for (const size_t share : card.stream->kinds()) {
      const Status status = judge_kind(card, share, store, send, plain);
      const Status ended = card.stream->end();
      if (status.ok() && ended.ok()) continue;
      if (card.part->device->lost()) return card.part->device->loss();
      streamed_ = "off: " + reason(status.ok() ? ended : status);
      for (Card& each : cards_) each.stream.reset();
      return {};
    }
  }
  return {};
}

// Every expert is visited, and every choice weighs 1: none can hide.
Status ShareRunner::judge_kind(Card& card, size_t share, const WeightStore& store, const std::function<Status(int64_t, Stream&, size_t)>& send, const Plain& plain) {
  const Step& step = program_.steps[shares_[share].step];
  const int64_t hidden = step.inputs[0].columns, topk = step.inputs[1].columns, experts = program_.weights[step.inputs[3].index].shape[0];
  const int64_t rows = std::clamp((experts + topk - 1) / topk, std::min(kGateRows, max_rows_), max_rows_);
  std::vector<float> x(static_cast<size_t>(rows * hidden)), weights(static_cast<size_t>(rows * topk), 1.0f), expected(static_cast<size_t>(rows * columns(share))), actual(expected.size());
  std::vector<int32_t> ids(weights.size());
  std::mt19937 random(17);
  for (float& number : x) number = static_cast<float>(static_cast<double>(random()) / 2147483648.0 - 1);
  for (size_t i = 0; i < ids.size(); i++) ids[i] = static_cast<int32_t>(static_cast<int64_t>(i) % experts);

  Device& device = *card.part->device;
  Stream stream;
  Memory on_card[3];
  TANDEM_TRY(device.stream(stream));
  TANDEM_TRY(device.allocate(x.size() * 4, "rows to try streamed experts with", on_card[0]));
  TANDEM_TRY(device.allocate(ids.size() * 4, "rows to try streamed experts with", on_card[1]));
  TANDEM_TRY(device.allocate(ids.size() * 4, "rows to try streamed experts with", on_card[2]));
  TANDEM_TRY(stream.copy_in(on_card[0].get(), x.data(), x.size() * 4));
  TANDEM_TRY(stream.copy_in(on_card[1].get(), ids.data(), ids.size() * 4));
  TANDEM_TRY(stream.copy_in(on_card[2].get(), weights.data(), weights.size() * 4));
  TANDEM_TRY(send(rows, stream, card.part->index));
  ExpertCall call;
  call.x = reinterpret_cast<const float*>(on_card[0].get());
  call.x_stride = hidden;
  call.ids = reinterpret_cast<const int32_t*>(on_card[1].get());
  call.weights = reinterpret_cast<const float*>(on_card[2].get());
  call.y = reinterpret_cast<float*>(card.buffers[shares_[share].buffer].get());
  call.y_stride = columns(share);
  call.rows = rows;
  TANDEM_TRY(card.stream->begin(store, {share}));
  TANDEM_TRY(card.stream->launch(share, stream, call, {}));
  TANDEM_TRY(stream.copy_out(actual.data(), reinterpret_cast<Address>(call.y), actual.size() * 4));
  TANDEM_TRY(stream.finish_alone("the trial of streamed experts"));
  TANDEM_TRY(plain({shares_[share].step, rows, x.data(), ids.data(), weights.data(), expected.data()}));
  for (int64_t row = 0; row < rows; row++) {
    const double distance = row_distance(actual.data() + row * columns(share), expected.data() + row * columns(share), columns(share));
    if (distance <= kRowLimit) continue;
    return Status(Code::native_failed, "[native] streamed experts are those of the CPU; row " + std::to_string(row) + " of \"" + step.name.substr(0, 200) + "\" is " +
                                           std::to_string(distance) + " of its size away, at most " + std::to_string(kRowLimit) + "; prompts are computed by the CPU");
  }
  return {};
}

bool ShareRunner::takes(size_t share) const {
  const Card& card = cards_[card_[share]];
  return mode_ == Mode::hot ? card.hot && card.hot->takes(share) : mode_ == Mode::stream && card.stream && card.stream->takes(share);
}

Status ShareRunner::begin(const WeightStore& store, bool decode, int64_t rows) {
  mode_ = Mode::none;
  if (shares_.empty()) return {};
  const auto any = [this](auto member) { return std::any_of(cards_.begin(), cards_.end(), [member](const Card& card) { return (card.*member) != nullptr; }); };
  if (decode && rows <= most_hot_ && any(&Card::hot)) mode_ = Mode::hot;
  if (!decode && options_.stream_from > 0 && rows >= options_.stream_from && any(&Card::stream)) mode_ = Mode::stream;
  std::vector<size_t> all(shares_.size());
  for (size_t i = 0; i < all.size(); i++) all[i] = i;
  for (Card& card : cards_) {
    if (mode_ == Mode::hot && card.hot) card.hot->prepare(store);
    if (mode_ == Mode::stream && card.stream) TANDEM_TRY(card.stream->begin(store, all));
  }
  return {};
}

Status ShareRunner::send(size_t device, Stream& stream) {
  for (Card& card : cards_)
    if (card.part->index == device && card.hot && mode_ == Mode::hot) TANDEM_TRY(card.hot->send(stream));
  return {};
}

ExpertCall ShareRunner::call_of(size_t share, PassRows rows) {
  const ExpertShare& s = shares_[share];
  Card& card = card_of(share);
  const PassRunner& runner = *card.part->runner;
  ExpertCall call;
  call.x = reinterpret_cast<const float*>(runner.address(s.x, rows));
  call.x_stride = program_.values[s.x].columns;
  call.ids = reinterpret_cast<const int32_t*>(runner.address(s.ids, rows));
  call.weights = reinterpret_cast<const float*>(runner.address(s.weights, rows));
  call.y = reinterpret_cast<float*>(card.buffers[s.buffer].get());
  call.y_stride = columns(share);
  call.rows = rows.tokens;
  return call;
}

Status ShareRunner::give(const Operation& operation, Stream& stream, PassRows rows, const std::function<Status()>& alive) {
  const size_t share = operation.number;
  if (!takes(share)) return {};
  Card& card = card_of(share);
  if (operation.kind == Operation::Kind::share) {
    ExpertCall call = call_of(share, rows);
    TANDEM_TRY(together(share, stream, rows, call));
    return mode_ == Mode::hot ? card.hot->launch(share, stream, call) : card.stream->launch(share, stream, call, alive);
  }
  const int64_t n = columns(share);
  float* const y = reinterpret_cast<float*>(card.part->runner->address(program_.steps[operation.step].outputs[0], rows));
  const float* const own = reinterpret_cast<const float*>(card.buffers[shares_[share].buffer].get());
  const ElementwiseArguments a = {y, n, own, n, y, n, n, card.part->header->tokens(card.part->index)};
  return launch_kernel(stream, card.add, elementwise_shape(n, rows.tokens), a);
}

void ShareRunner::prepare_step(uint32_t step, int64_t rows) {
  const int64_t share = share_of_step_[step];
  if (share < 0 || !takes(static_cast<size_t>(share))) return;
  Card& card = card_of(static_cast<size_t>(share));
  const Operand& ids = program_.steps[step].inputs[1];
  int32_t* const at = reinterpret_cast<int32_t*>(card.part->runner->host(ids.index)) + ids.start;
  const int64_t stride = program_.values[ids.index].columns;
  if (mode_ == Mode::stream) {
    for (int64_t t = 0; t < rows; t++) std::fill(at + t * stride, at + t * stride + ids.columns, -1);
    return;
  }
  card.hot->mask(static_cast<size_t>(share), at, rows, ids.columns, stride);
  // The inputs are here and the answer is not due yet: nothing else is on the way to this GPU.
  card.hot->feed();
}

void ShareRunner::end(bool ok) {
  for (Card& card : cards_) {
    if (mode_ == Mode::hot && card.hot) card.hot->finish(ok);
    if (mode_ == Mode::stream && card.stream) (void)card.stream->end();  // a device that is lost says so in the next pass
  }
  if (mode_ == Mode::stream && ok) streamed_passes_.fetch_add(1, std::memory_order_relaxed);
  mode_ = Mode::none;
}

int64_t ShareRunner::device_bytes() const {
  int64_t total = static_cast<int64_t>(buffer_bytes_);
  for (const Card& card : cards_) total += (card.hot ? card.hot->bytes() : 0) + (card.stream ? card.stream->bytes() : 0);
  return total;
}

ShareRunner::Counts ShareRunner::counts() const {
  Counts sum;
  for (const Card& card : cards_) {
    if (card.stream) sum.streamed_bytes += card.stream->uploaded_bytes();
    if (!card.hot) continue;
    const HotCounts& c = card.hot->counts();
    sum.hits += c.hits.load(), sum.misses += c.misses.load(), sum.uploads += c.uploads.load(), sum.evictions += c.evictions.load();
    sum.failures += c.failures.load(), sum.bytes += c.bytes.load(), sum.held += c.held.load(), sum.slots += card.hot->slots();
  }
  sum.streamed_passes = streamed_passes_.load();
  return sum;
}

}  // namespace tandem::cuda
