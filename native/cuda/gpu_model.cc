#include "cuda/gpu_model.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace tandem::cuda {

namespace {

// Passes of up to so many rows, one a sequence, run as graphs; TANDEM_CUDA_GRAPHS=0: none does.
constexpr int64_t kGraphRows = 64;

// Blocks of a grid in y and z.
constexpr int64_t kMostRows = 65535;

bool graphs_wanted() {
  const char* const said = std::getenv("TANDEM_CUDA_GRAPHS");
  return said == nullptr || std::strcmp(said, "0") != 0;
}

int64_t power_of_two(int64_t least, int64_t value) {
  while (least < value) least *= 2;
  return least;
}

}  // namespace

bool GpuModel::wanted(const Program& program) {
  return std::any_of(program.steps.begin(), program.steps.end(), [](const Step& step) { return step.device != "cpu"; });
}

Status GpuModel::open(const Program& program, const KernelFile& kernels, Limits limits, std::unique_ptr<GpuModel>& out) {
  if (limits.max_rows > kMostRows)
    return Status(Code::request_invalid, "[native] a pass on a GPU has up to " + std::to_string(kMostRows) + " rows, the blocks of a grid; given " + std::to_string(limits.max_rows) + "; use fewer (maxBatchRows)");
  std::unique_ptr<GpuModel> model(new GpuModel(program, limits));
  model->shares_ = std::make_unique<ShareRunner>(program, limits.shares, limits.max_rows, kGraphRows);
  TANDEM_TRY(make_schedule(program, model->schedule_, model->shares_->shares()));
  TANDEM_TRY(model->open_devices(kernels));
  TANDEM_TRY(model->find_caches());
  TANDEM_TRY(model->bind());
  TANDEM_TRY(model->allocate());
  out = std::move(model);
  return {};
}

Status GpuModel::open_devices(const KernelFile& kernels) {
  const int64_t context = std::min(program_.context_length, limits_.pages * program_.page_tokens);
  header_ = std::make_unique<PassHeader>(PassHeader::Limits{limits_.max_rows, limits_.max_outputs, program_.page_tokens, context});
  for (size_t d = 0; d < schedule_.devices.size(); d++) {
    devices_.emplace_back();
    TANDEM_TRY(Device::open(schedule_.devices[d], kernels, devices_.back()));
    parts_.push_back(std::make_unique<GpuPart>(program_, d, devices_.back().get(), header_.get()));
  }
  return {};
}

// A layer of the cache lies where the steps are that name it.
Status GpuModel::find_caches() {
  std::vector<int> place(program_.kv_layers.size(), -2);
  for (const Step& step : program_.steps) {
    if (!step.has("cache")) continue;
    const int64_t layer = step.integer("cache");
    const int ordinal = device_ordinal(step.device);
    int& known = place[static_cast<size_t>(layer)];
    if (known != -2 && known != ordinal)
      return Status(Code::program_invalid, "[native] a cache lies on one device; step \"" + step.name.substr(0, 200) + "\" on " + step.device + " uses one that lies elsewhere; place the Program with lower()");
    known = ordinal;
    if (ordinal < 0) continue;
    const size_t d = static_cast<size_t>(std::find(schedule_.devices.begin(), schedule_.devices.end(), ordinal) - schedule_.devices.begin());
    parts_[d]->cache.add(program_, layer);
  }
  return {};
}

Status GpuModel::bind() {
  const std::vector<Step>* const both[] = {&program_.steps, program_.decode_steps.empty() ? &program_.steps : &program_.decode_steps};
  for (size_t kind = 0; kind < 2; kind++) {
    launches_[kind].resize(program_.steps.size());
    if (kind == 1 && both[1] == both[0]) {
      launches_[1] = launches_[0];
      break;
    }
    for (size_t i = 0; i < both[kind]->size(); i++) {
      const Step& step = (*both[kind])[i];
      const int ordinal = device_ordinal(step.device);
      if (ordinal < 0 || step.op == "copy") continue;
      const size_t d = static_cast<size_t>(std::find(schedule_.devices.begin(), schedule_.devices.end(), ordinal) - schedule_.devices.begin());
      TANDEM_TRY(bind_step({step, *parts_[d]}, launches_[kind][i]));
      if (step.op == "attention" || step.op == "mla") tiles_ = std::max(tiles_, step.tiles);
    }
  }
  return shares_->bind(parts_);
}

Status GpuModel::allocate() {
  std::vector<Device*> devices;
  for (const auto& device : devices_) devices.push_back(device.get());
  for (const auto& part : parts_) {
    TANDEM_TRY(part->weights.allocate(*part->device));
    if (part->cache.page_elements > 0) TANDEM_TRY(part->device->allocate(part->cache.bytes(limits_.pages), "the KV cache", part->cache.memory));
    TANDEM_TRY(part->device->allocate(part->scratch_bytes, "scratch memory of kernels", part->scratch));
  }
  TANDEM_TRY(header_->allocate(devices));
  std::vector<uint32_t> kept;
  for (const Step& step : program_.steps)
    if (step.op == "router" && step.device != "cpu") kept.push_back(step.outputs[0]);
  TANDEM_TRY(PassRunner::create(program_, schedule_, devices, {limits_.max_rows, limits_.max_outputs, 0}, kept, runner_));
  for (const auto& part : parts_) part->runner = runner_.get();
  return shares_->allocate();
}

RemoteWeights GpuModel::remote() const {
  RemoteWeights remote;
  std::vector<bool> here(program_.weights.size()), there(program_.weights.size());
  for (const Step& step : program_.steps)
    for (const Operand& operand : step.inputs)
      if (operand.kind == Operand::Kind::weight) (step.device == "cpu" ? here : there)[operand.index] = true;
  for (size_t id = 0; id < here.size(); id++) remote.weights.push_back(there[id] && !here[id]);
  for (const auto& part : parts_) remote.bytes += part->weights.bytes();
  return remote;
}

Status GpuModel::upload(const WeightStore& store, LoadProgress& progress) {
  store_ = &store;
  for (const auto& part : parts_) TANDEM_TRY(part->weights.upload(*part->device, store, progress));
  return store.remote_unchanged();
}

Status GpuModel::judge(const ShareRunner::Plain& plain) {
  const auto send = [this](int64_t rows, Stream& stream, size_t device) {
    const std::vector<int32_t> tokens(static_cast<size_t>(rows));
    Batch batch;
    batch.tokens = tokens;
    TANDEM_TRY(header_->fill(batch, nullptr, 0));
    return header_->send(device, stream);
  };
  return shares_->judge(*store_, send, plain);
}

Status GpuModel::begin(const Batch& batch, const std::vector<uint8_t>& dead, bool decode) {
  for (const auto& device : devices_)
    if (device->lost()) return device->loss();
  decode_ = decode;
  sent_ = false;
  TANDEM_TRY(header_->fill(batch, dead.data(), decode ? 0 : tiles_));
  for (const auto& part : parts_)
    if (part->sampling != nullptr) TANDEM_TRY(part->sampling->fill(batch, *header_));
  const int64_t context = power_of_two(program_.page_tokens, header_->context());
  rows_ = {static_cast<int64_t>(batch.tokens.size()), static_cast<int64_t>(batch.outputs.size()), std::min(context, std::max<int64_t>(header_->limits().context, 1))};
  live_ = rows_;
  return {};
}

StepRunner GpuModel::steps(const Compute& compute, const std::function<Status()>& alive) {
  StepRunner runner;
  const std::vector<Launch>* const launches = &launches_[decode_ ? 1 : 0];
  runner.launch = [launches](uint32_t index, Stream& stream, PassRows rows) { return (*launches)[index](stream, rows); };
  runner.compute = compute;
  runner.begin = [this](size_t device, Stream& stream) -> Status {
    TANDEM_TRY(header_->send(device, stream));
    if (parts_[device]->sampling != nullptr) TANDEM_TRY(parts_[device]->sampling->send(stream));
    return shares_->send(device, stream);
  };
  runner.share = [this, alive](const Operation& operation, Stream& stream, PassRows rows) { return shares_->give(operation, stream, rows, alive); };
  return runner;
}

Status GpuModel::run(const Compute& compute, const std::function<Status()>& alive) {
  PassRunner::Options options;
  options.watch.alive = alive;
  const int64_t rows = rows_.tokens;
  const int64_t tokens = graph_bucket(rows, std::min(kGraphRows, limits_.max_rows));
  if (decode_ && tokens > 0) {
    // The same launches with and without a graph.
    options.graph = graphs_wanted();
    rows_.tokens = tokens;
    rows_.outputs = graph_bucket(rows_.outputs, limits_.max_outputs);
  }
  TANDEM_TRY(shares_->begin(*store_, decode_, rows));
  const Compute shared = [&](uint32_t step) {
    shares_->prepare_step(step, rows);
    return compute(step);
  };
  const Status status = runner_->run(rows_, steps(shared, alive), options);
  shares_->end(status.ok());
  return status;
}

Status GpuModel::step(uint32_t index, const Compute& compute) {
  const StepRunner runner = steps(compute);
  if (!sent_) TANDEM_TRY(runner_->prepare(runner));
  sent_ = true;
  return runner_->step(index, rows_, runner);
}

void GpuModel::take_samples(const Batch& batch, const std::vector<uint8_t>& filled, PassOutput& out) const {
  for (const Step& step : program_.steps) {
    const int ordinal = device_ordinal(step.device);
    if (step.op != "sample" || ordinal < 0 || filled[step.outputs[0]] == 0) continue;
    for (const auto& part : parts_)
      if (part->sampling != nullptr) part->sampling->take(batch, out);
  }
}

GpuPart* GpuModel::cache_part(int64_t layer) const {
  for (const auto& part : parts_)
    if (part->cache.layers.count(layer) != 0) return part.get();
  return nullptr;
}

Status GpuModel::move_page(int64_t layer, int64_t page, uint8_t* data, bool in) const {
  const GpuPart& part = *cache_part(layer);
  const GpuCache& cache = part.cache;
  const std::vector<KvCache::Stream>& streams = cache.layers.at(layer);
  int64_t elements = 0;
  for (const KvCache::Stream& stream : streams) elements += stream.heads * stream.width * program_.page_tokens;
  const Address at = cache.memory.get() + static_cast<size_t>((page * cache.page_elements + streams[0].offset) * cache.element_bytes);
  const size_t bytes = static_cast<size_t>(elements * cache.element_bytes);
  Stream& stream = runner_->stream_of(part.index);
  TANDEM_TRY(in ? stream.copy_in(at, data, bytes) : stream.copy_out(data, at, bytes));
  return stream.finish();
}

std::string GpuModel::names() const {
  std::string names;
  for (const auto& device : devices_) names += (names.empty() ? "" : ", ") + std::string("cuda:") + std::to_string(device->info().ordinal) + " " + device->info().name;
  return names;
}

int64_t GpuModel::weight_bytes() const {
  int64_t total = 0;
  for (const auto& part : parts_) total += static_cast<int64_t>(part->weights.size());
  return total;
}

int64_t GpuModel::cache_bytes() const {
  int64_t total = 0;
  for (const auto& part : parts_) total += static_cast<int64_t>(part->cache.bytes(limits_.pages));
  return total;
}

int64_t GpuModel::buffer_bytes() const {
  int64_t total = static_cast<int64_t>(runner_->device_bytes() + header_->bytes()) + shares_->device_bytes();
  for (const auto& part : parts_) total += static_cast<int64_t>(part->scratch_bytes + (part->sampling == nullptr ? 0 : part->sampling->bytes()));
  return total;
}

int64_t GpuModel::pinned_bytes() const { return static_cast<int64_t>(runner_->host_bytes()); }

}  // namespace tandem::cuda
