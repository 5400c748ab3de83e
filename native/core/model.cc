#include "core/model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <new>

#include "core/signature.h"
#include "cpu/isa.h"
#include "cpu/node_memory.h"
#include "cpu/tiles.h"
#include "cpu/pool.h"
#include "quant/formats.h"

namespace tandem {

namespace {

constexpr int64_t kMaxRows = int64_t{1} << 24;
constexpr int64_t kMaxPages = int64_t{1} << 30;

// The format a kernel is chosen by: of the first matrix operand, else of the first weight.
std::string kernel_format(const Program& program, const Step& step) {
  const Weight* first = nullptr;
  for (const Operand& operand : step.inputs) {
    if (operand.kind != Operand::Kind::weight) continue;
    const Weight& weight = program.weights[operand.index];
    if (weight.shape.size() >= 2) return weight.format;
    if (first == nullptr) first = &weight;
  }
  return first ? first->format : "";
}

}  // namespace

Status Model::load(ModelOptions options, std::thread::native_handle_type owner, LoadProgress& progress, std::unique_ptr<Model>& out) {
  std::unique_ptr<Model> model(new Model());
  TANDEM_TRY(decode_program(options.program.data(), options.program.size(), static_cast<uint32_t>(options.files.size()), model->program_));
  TANDEM_TRY(check_signatures(model->program_));
  TANDEM_TRY(choose_isa(options.isa, model->isa_));
  TANDEM_TRY(choose_tiles(model->isa_, model->tile_engine_));
  ensure_kernels();
  model->stop_ = options.stop;
  TANDEM_TRY(model->allocate(options));
  TANDEM_TRY(CpuTeam::create(options.threads, owner, model->team_));
  for (const Region* shared : {&model->buffers_, &model->kv_memory_}) place_on_all(shared->data(), shared->size(), model->team_->plan());
  cuda::GpuModel* const gpu = model->gpu_.get();
  const int64_t other = static_cast<int64_t>(model->buffers_.size() + model->kv_memory_.size()) + (gpu == nullptr ? 0 : gpu->pinned_bytes());
  TANDEM_TRY(model->weights_.load(model->program_, std::move(options.files), options.load, other, options.memory,
                                   model->team_->plan(), gpu == nullptr ? RemoteWeights() : gpu->remote(), progress));
  if (gpu != nullptr) TANDEM_TRY(gpu->upload(model->weights_, progress));
  TANDEM_TRY(model->bind_steps());
  if (gpu != nullptr) TANDEM_TRY(gpu->judge([&model](const cuda::ShareRunner::PlainCall& call) { return model->run_plain(call); }));
  out = std::move(model);
  return {};
}

Status Model::allocate(const ModelOptions& options) {
  const auto limit = [](const char* what, int64_t given, int64_t least, int64_t most) -> Status {
    if (given >= least && given <= most) return {};
    return Status(Code::request_invalid, std::string("[native] ") + what + " is within its limits; given " + std::to_string(given) + "; use " +
                                             std::to_string(least) + " to " + std::to_string(most));
  };
  TANDEM_TRY(limit("pages", options.pages, program_.kv_layers.empty() ? 0 : 1, kMaxPages));
  TANDEM_TRY(limit("maxRows", options.max_rows, 1, kMaxRows));
  TANDEM_TRY(limit("maxOutputs", options.max_outputs, 1, kMaxRows));
  max_rows_ = options.max_rows;
  max_outputs_ = options.max_outputs;
  if (cuda::GpuModel::wanted(program_)) {
    TANDEM_TRY(cuda::GpuModel::open(program_, options.kernels, {options.pages, options.max_rows, options.max_outputs, options.shares}, gpu_));
    slots_.resize(program_.slots.size());
    for (uint32_t id = 0; id < program_.values.size(); id++) slots_[program_.values[id].slot] = gpu_->host(id);
    return allocate_cache(options);
  }

  std::vector<size_t> offsets;
  size_t total = 0;
  for (const BufferSlot& slot : program_.slots) {
    const int64_t rows = slot.rows == Rows::tokens ? max_rows_ : max_outputs_;
    offsets.push_back(total);
    // rows <= 2^24 and columns <= 2^30: one slot fits 2^56 bytes; the sum is watched.
    total += (static_cast<size_t>(rows) * static_cast<size_t>(slot.columns) * 4 + 63) & ~size_t{63};
    if (total > (size_t{1} << 58)) return Status(Code::out_of_memory, "[native] buffers fit into memory; maxRows " + std::to_string(max_rows_) + "; use fewer rows");
  }
  TANDEM_TRY(buffers_.allocate(total, total >= (size_t{2} << 20), "the buffers"));
  for (size_t offset : offsets) slots_.push_back(buffers_.data() + offset);
  return allocate_cache(options);
}

// Of the layers that the CPU reads.
Status Model::allocate_cache(const ModelOptions& options) {
  kv_.pages = options.pages;
  kv_.page_tokens = program_.page_tokens;
  kv_.type = program_.kv_type;
  for (const Step& step : program_.steps)
    if (kv_.type == KvType::e4m3 && step.has("cache") && (gpu_ == nullptr || !gpu_->caches(step.integer("cache"))))
      return Status(Code::format_unsupported, "[native] a cache of e4m3 lies on a GPU, the CPU has f32 and bf16; step \"" + step.name + "\" (" + step.op + ", " + step.device +
                                                  ") uses one; place it on cuda:N, or take another type (kvType)");
  int64_t at = 0;
  for (size_t layer = 0; layer < program_.kv_layers.size(); layer++) {
    std::vector<KvCache::Stream> streams;
    for (const KvStreamShape& stream : program_.kv_layers[layer]) {
      streams.push_back({stream.heads, stream.width, at});
      if (gpu_ == nullptr || !gpu_->caches(static_cast<int64_t>(layer))) at += stream.heads * stream.width * kv_.page_tokens;
    }
    kv_.layers.push_back(std::move(streams));
  }
  kv_.page_elements = at;
  const int64_t size = kv_bytes(kv_.type);
  const double bytes = static_cast<double>(kv_.pages) * static_cast<double>(kv_.page_elements) * static_cast<double>(size);
  if (bytes > 1e17) return Status(Code::out_of_memory, "[native] the KV cache fits into memory; " + format_bytes(bytes) + " asked; use fewer pages");
  // Huge pages only where a KV page is about as large: memory is touched page by page, in any order.
  const bool huge = kv_.page_elements * size >= (int64_t{1} << 20);
  TANDEM_TRY(kv_memory_.allocate(static_cast<size_t>(kv_.pages * kv_.page_elements * size), huge, "the KV cache"));
  kv_.base = kv_memory_.data();
  return {};
}

Status Model::bind_steps() {
  timings_ = std::vector<StepTiming>(program_.steps.size());
  for (const Step& step : program_.steps) {
    if (is_gpu(kernels_.size())) {
      kernels_.push_back(nullptr);
      contexts_.emplace_back();
      continue;
    }
    const std::string format = kernel_format(program_, step);
    const KernelFunction kernel = find_kernel(step.op, format, isa_);
    if (kernel == nullptr)
      return Status(Code::format_unsupported, "[native] every step has a kernel; none for " + step.op + (format.empty() ? "" : " " + format) + " on " + isa_name(isa_) +
                                                  " (step \"" + step.name + "\"); kernels exist for " + describe_kernels(step.op));
    kernels_.push_back(kernel);
    StepContext context;
    context.step = &step;
    context.kv = &kv_;
    context.pool = &team_->pool();
    context.scratch = &scratch_;
    context.isa = isa_;
    context.tile_engine = tile_engine_;
    for (const Operand& operand : step.inputs) {
      MatrixView view;
      const BoundWeight* weight = nullptr;
      if (operand.kind == Operand::Kind::value) {
        const Value& value = program_.values[operand.index];
        view = {reinterpret_cast<float*>(memory_of(value)) + operand.start, 0, operand.columns, value.columns};
      } else if (operand.kind == Operand::Kind::weight) {
        weight = &weights_.weight(operand.index);
      }
      context.inputs.push_back(view);
      context.weights.push_back(weight);
    }
    // Optional operands at the end may be left out of a step; kernels find them absent instead of out of bounds.
    while (context.inputs.size() < 8) {
      context.inputs.push_back({});
      context.weights.push_back(nullptr);
    }
    for (uint32_t id : step.outputs) {
      const Value& value = program_.values[id];
      context.outputs.push_back({reinterpret_cast<float*>(memory_of(value)), 0, value.columns, value.columns});
    }
    contexts_.push_back(std::move(context));
  }
  for (size_t i = 0; i < program_.steps.size(); i++) {
    if (program_.steps[i].op != "router") continue;
    routers_.push_back(i);
    most_experts_ = std::max(most_experts_, program_.steps[i].inputs[0].columns);
  }
  visits_ = std::vector<std::atomic<uint32_t>>(routers_.size() * static_cast<size_t>(most_experts_));
  return {};
}

int64_t Model::rows_of(const Value& value) const {
  return static_cast<int64_t>(value.rows == Rows::tokens ? batch_.tokens.size() : batch_.outputs.size());
}

uint32_t* Model::memory_of(const Value& value) const { return reinterpret_cast<uint32_t*>(slots_[value.slot]); }

Status Model::begin(const uint8_t* data, size_t size, uint32_t generation) {
  active_ = false;
  TANDEM_TRY(weights_.unchanged());
  TANDEM_TRY(decode_batch(data, size, {max_rows_, max_outputs_, kv_.pages, kv_.page_tokens, program_.vocab_size}, batch_));
  pass_ = generation;
  started_ = std::chrono::steady_clock::now();
  dead_.assign(batch_.sequences.size(), 0);
  filled_.assign(program_.values.size(), 0);
  const size_t outputs = batch_.outputs.size();
  output_ = PassOutput();
  for (const OutputRow& row : batch_.outputs)
    if (row.sampled) output_.max_top = std::max<int64_t>(output_.max_top, row.sampling.top_logprobs);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  output_.tokens.assign(outputs, -1);
  output_.logprobs.assign(outputs, nan);
  output_.top_tokens.assign(outputs * static_cast<size_t>(output_.max_top), -1);
  output_.top_logprobs.assign(outputs * static_cast<size_t>(output_.max_top), nan);
  const auto one_row = [](const Sequence& sequence) { return sequence.rows == 1; };
  const bool each_one = std::all_of(batch_.sequences.begin(), batch_.sequences.end(), one_row);
  const bool decode = !program_.decode_steps.empty() && each_one;
  if (gpu_ != nullptr) {
    drop_cancelled();
    TANDEM_TRY(gpu_->begin(batch_, dead_, each_one));
  }
  for (size_t i = 0; i < contexts_.size(); i++) {
    if (is_gpu(i)) continue;
    StepContext& context = contexts_[i];
    const Step& step = program_.steps[i];
    for (size_t k = 0; k < step.inputs.size(); k++)
      if (step.inputs[k].kind == Operand::Kind::value) context.inputs[k].rows = rows_of(program_.values[step.inputs[k].index]);
    for (size_t k = 0; k < step.outputs.size(); k++) context.outputs[k].rows = rows_of(program_.values[step.outputs[k]]);
    context.step = decode ? &program_.decode_steps[i] : &step;
    context.batch = &batch_;
    context.result = &output_;
    context.dead = dead_.data();
  }
  active_ = true;
  return {};
}

Status Model::run_step(size_t index) {
  const auto start = std::chrono::steady_clock::now();
  scratch_.reset();
  Status status = is_gpu(index) ? run_gpu_step(index) : kernels_[index](contexts_[index]);
  if (status.ok() && !is_gpu(index) && program_.steps[index].op == "router") {
    const MatrixView ids = contexts_[index].outputs[0];
    count_visits(index, ids.ints(0), ids.rows * ids.columns);
  }
  for (uint32_t id : program_.steps[index].outputs) filled_[id] = 1;
  const auto took = std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now() - start);
  timings_[index].calls.fetch_add(1, std::memory_order_relaxed);
  timings_[index].nanoseconds.fetch_add(static_cast<uint64_t>(took.count()), std::memory_order_relaxed);
  if (weights_.lost()) return weights_.unchanged();  // whatever the kernel said, it read zeros
  return status;
}

// In lock-step: it is over when this returns.
Status Model::run_gpu_step(size_t index) {
  TANDEM_TRY(gpu_->step(static_cast<uint32_t>(index), [](uint32_t) { return Status(); }));
  const Step& step = program_.steps[index];
  if (step.op != "router") return {};
  ValueData ids;
  TANDEM_TRY(read(step.outputs[0], ids));
  count_visits(index, reinterpret_cast<const int32_t*>(ids.words.data()), static_cast<int64_t>(ids.words.size()));
  return {};
}

// An `experts` step over rows of its own, nothing rounded.
Status Model::run_plain(const cuda::ShareRunner::PlainCall& call) {
  StepContext context = contexts_[call.step];
  Step step = program_.steps[call.step];
  step.activation = step.middle = Activation::f32;
  step.tiles = 0;
  const Batch nobody;
  const auto rows_of = [&](MatrixView& view, float* data) { view = {data, call.rows, view.columns, view.columns}; };
  rows_of(context.inputs[0], call.x);
  rows_of(context.inputs[1], reinterpret_cast<float*>(call.ids));
  rows_of(context.inputs[2], call.weights);
  rows_of(context.outputs[0], call.y);
  context.step = &step;
  context.batch = &nobody;
  context.dead = nullptr;
  scratch_.reset();
  return kernels_[call.step](context);
}

// Chosen experts, as a dense matrix.
void Model::count_visits(size_t index, const int32_t* ids, int64_t count) {
  const size_t row = static_cast<size_t>(std::find(routers_.begin(), routers_.end(), index) - routers_.begin());
  std::atomic<uint32_t>* const counts = visits_.data() + row * static_cast<size_t>(most_experts_);
  for (int64_t i = 0; i < count; i++)
    if (const int32_t id = ids[i]; id >= 0 && id < most_experts_) counts[id].fetch_add(1, std::memory_order_relaxed);
}

Model::ExpertVisits Model::expert_visits() const {
  ExpertVisits visits;
  visits.experts = most_experts_;
  for (const size_t step : routers_) visits.layers.push_back(program_.steps[step].layer);
  visits.counts.reserve(visits_.size());
  for (const auto& count : visits_) visits.counts.push_back(count.load(std::memory_order_relaxed));
  return visits;
}

// Marks sequences whose flag was raised for this pass; true when none is left.
bool Model::drop_cancelled() {
  bool alive = false;
  for (size_t i = 0; i < dead_.size(); i++) {
    const size_t slot = static_cast<size_t>(batch_.sequences[i].slot);
    if (dead_[i] == 0 && cancelled_[slot].load(std::memory_order_relaxed) == pass_) dead_[i] = 1;
    alive = alive || dead_[i] == 0;
  }
  return !alive;
}

Status Model::check_page(int64_t page) const {
  if (page >= 0 && page < kv_.pages) return {};
  return {Code::request_invalid, "[native] a page is below " + std::to_string(kv_.pages) + "; page " + std::to_string(page) + " was asked for; ask for one of the cache"};
}

size_t Model::page_size() const { return static_cast<size_t>(program_.page_elements() * kv_bytes(kv_.type)); }

template <typename Body> Status Model::for_page(Body&& body) const {
  for (size_t layer = 0; layer < kv_.layers.size(); layer++) {
    int64_t elements = 0;
    for (const KvCache::Stream& stream : kv_.layers[layer]) elements += stream.heads * stream.width * kv_.page_tokens;
    TANDEM_TRY(body(static_cast<int64_t>(layer), static_cast<size_t>(elements * kv_bytes(kv_.type))));
  }
  return {};
}

Status Model::read_page(int64_t page, std::vector<uint8_t>& out) const {
  TANDEM_TRY(check_page(page));
  out.resize(page_size());
  uint8_t* to = out.data();
  return for_page([&](int64_t layer, size_t bytes) -> Status {
    if (gpu_ != nullptr && gpu_->caches(layer)) TANDEM_TRY(gpu_->read_page(layer, page, to));
    else std::memcpy(to, kv_.block(static_cast<int32_t>(page), kv_.layers[static_cast<size_t>(layer)][0], 0), bytes);
    to += bytes;
    return {};
  });
}

Status Model::write_page(int64_t page, const std::vector<uint8_t>& bytes) {
  TANDEM_TRY(check_page(page));
  if (bytes.size() != page_size())
    return {Code::request_invalid, "[native] a page has " + std::to_string(page_size()) + " bytes; " + std::to_string(bytes.size()) + " were given; give a whole page of this model"};
  const uint8_t* from = bytes.data();
  return for_page([&](int64_t layer, size_t size) -> Status {
    if (gpu_ != nullptr && gpu_->caches(layer)) TANDEM_TRY(gpu_->write_page(layer, page, from));
    else std::memcpy(kv_.block(static_cast<int32_t>(page), kv_.layers[static_cast<size_t>(layer)][0], 0), from, size);
    from += size;
    return {};
  });
}

void Model::cancel(int64_t slot) {
  if (slot < 0 || slot >= kCancelSlots) return;
  cancelled_[static_cast<size_t>(slot)].store(generation_.load(), std::memory_order_relaxed);
}

Status Model::run(const uint8_t* batch, size_t size, uint32_t generation, PassOutput& out) {
  if (!program_.given.empty())
    return Status(Code::program_invalid, "[native] every value of a Program that runs whole is written by a step; nobody writes \"" + program_.values[program_.given[0]].name + "\"; step through it and write the value first");
  TANDEM_TRY(begin(batch, size, generation));
  Status status = gpu_ == nullptr ? steps(0, static_cast<int64_t>(program_.steps.size())) : run_with_gpu();
  if (!status.ok()) {
    active_ = false;
    return status;
  }
  return finish(out);
}

// A pass over GPUs and the CPU. It ends early, and well, where nobody is left who wants it.
Status Model::run_with_gpu() {
  if (drop_cancelled()) return {};
  bool unwanted = false;
  const Status status = gpu_->run([this](uint32_t index) { return run_step(index); },
                                  [&]() -> Status {
                                    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) return {Code::disposed, "[native] the model was disposed during a pass"};
                                    unwanted = drop_cancelled();
                                    return unwanted ? Status(Code::aborted, "[native] a pass goes on while somebody wants it; all its sequences were cancelled") : Status();
                                  });
  if (unwanted && status.code() == Code::aborted) return {};
  TANDEM_TRY(status);
  std::fill(filled_.begin(), filled_.end(), uint8_t{1});
  for (size_t i = 0; i < program_.steps.size(); i++) {
    if (!is_gpu(i)) continue;
    timings_[i].calls.fetch_add(1, std::memory_order_relaxed);
    const Step& step = program_.steps[i];
    if (step.op == "router") count_visits(i, gpu_->chosen(step.outputs[0]), static_cast<int64_t>(batch_.tokens.size()) * program_.values[step.outputs[0]].columns);
  }
  return {};
}

Status Model::steps(int64_t first, int64_t last) {
  if (!active_) return Status(Code::request_invalid, "[native] steps run within a pass; none was begun; call begin first");
  if (first < 0 || first > last || last > static_cast<int64_t>(program_.steps.size()))
    return Status(Code::request_invalid, "[native] a range of steps lies in the Program; given [" + std::to_string(first) + ", " + std::to_string(last) + ") of " + std::to_string(program_.steps.size()));
  for (size_t i = static_cast<size_t>(first); i < static_cast<size_t>(last); i++) {
    if (stop_ != nullptr && stop_->load(std::memory_order_relaxed)) return Status(Code::disposed, "[native] the model was disposed during a pass");
    if (drop_cancelled()) break;
    TANDEM_TRY(ready(i));
    TANDEM_TRY(run_step(i));
  }
  return {};
}

Status Model::step(int64_t index) {
  if (!active_) return Status(Code::request_invalid, "[native] steps run within a pass; none was begun; call begin first");
  if (index < 0 || index >= static_cast<int64_t>(program_.steps.size()))
    return Status(Code::request_invalid, "[native] a step index is below the number of steps; given " + std::to_string(index) + " of " + std::to_string(program_.steps.size()));
  TANDEM_TRY(ready(static_cast<size_t>(index)));
  drop_cancelled();
  return run_step(static_cast<size_t>(index));
}

// All that the step reads was written in this pass.
Status Model::ready(size_t index) const {
  for (const Operand& operand : program_.steps[index].inputs)
    if (operand.kind == Operand::Kind::value && filled_[operand.index] == 0)
      return Status(Code::request_invalid, "[native] a value is written before it is read; step \"" + program_.steps[index].name + "\" reads \"" + program_.values[operand.index].name + "\"; run the step that writes it, or write it");
  return {};
}

Status Model::read(int64_t id, ValueData& out) const {
  if (!active_ || id < 0 || id >= static_cast<int64_t>(program_.values.size()))
    return Status(Code::request_invalid, "[native] a value of the pass begun is read; given value " + std::to_string(id) + (active_ ? "" : ", no pass was begun"));
  const Value& value = program_.values[static_cast<size_t>(id)];
  const size_t words = static_cast<size_t>(rows_of(value)) * static_cast<size_t>(value.columns);
  out.type = value.type;
  out.words.resize(words);
  if (words == 0) return {};
  if (gpu_ != nullptr && gpu_->holds(static_cast<uint32_t>(id))) return gpu_->read(static_cast<uint32_t>(id), out.words.data());
  std::memcpy(out.words.data(), memory_of(value), words * 4);
  return {};
}

Status Model::write(int64_t id, const ValueData& data) {
  if (!active_ || id < 0 || id >= static_cast<int64_t>(program_.values.size()))
    return Status(Code::request_invalid, "[native] a value of the pass begun is written; given value " + std::to_string(id) + (active_ ? "" : ", no pass was begun"));
  const Value& value = program_.values[static_cast<size_t>(id)];
  const size_t words = static_cast<size_t>(rows_of(value)) * static_cast<size_t>(value.columns);
  if (data.type != value.type || data.words.size() != words)
    return Status(Code::request_invalid, "[native] a value is written whole, in its type; \"" + value.name + "\" has " + std::to_string(words) + " elements, given " + std::to_string(data.words.size()));
  TANDEM_TRY(check_ids(id, data.words));
  if (words > 0 && gpu_ != nullptr && gpu_->holds(static_cast<uint32_t>(id))) TANDEM_TRY(gpu_->write(static_cast<uint32_t>(id), data.words.data()));
  else if (words > 0) std::memcpy(memory_of(value), data.words.data(), words * 4);
  filled_[static_cast<size_t>(id)] = 1;
  return {};
}

// Expert numbers that come from outside stay within the experts of every step that reads them.
Status Model::check_ids(int64_t id, const std::vector<uint32_t>& words) const {
  for (const Step& step : program_.steps) {
    if (step.op != "experts" || static_cast<int64_t>(step.inputs[1].index) != id) continue;
    const int64_t experts = program_.weights[step.inputs[3].index].shape[0];
    for (uint32_t word : words) {
      const int32_t expert = static_cast<int32_t>(word);
      if (expert < -1 || expert >= experts)
        return Status(Code::request_invalid, "[native] an expert id is -1 or below the number of experts; given " + std::to_string(expert) + " of " + std::to_string(experts));
    }
  }
  return {};
}

Status Model::finish(PassOutput& out) {
  if (!active_) return Status(Code::request_invalid, "[native] a pass is ended once; none was begun; call begin first");
  active_ = false;
  TANDEM_TRY(weights_.unchanged());
  drop_cancelled();
  if (gpu_ != nullptr) gpu_->take_samples(batch_, filled_, output_);
  for (size_t o = 0; o < batch_.outputs.size(); o++) {
    const OutputRow& row = batch_.outputs[o];
    if (!row.sampled || dead_[static_cast<size_t>(row.sequence)] != 0) output_.tokens[o] = -1;
  }
  if (batch_.want_logits) {
    const Value& logits = program_.values[program_.logits];
    const size_t count = static_cast<size_t>(rows_of(logits)) * static_cast<size_t>(logits.columns);
    output_.logits.assign(count, std::numeric_limits<float>::quiet_NaN());
    const bool there = count > 0 && filled_[program_.logits] != 0;
    if (there && gpu_ != nullptr && gpu_->holds(program_.logits)) TANDEM_TRY(gpu_->read(program_.logits, output_.logits.data()));
    else if (there) std::memcpy(output_.logits.data(), memory_of(logits), count * 4);
  }
  output_.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - started_).count();
  out = std::move(output_);
  return {};
}

std::vector<std::pair<std::string, std::variant<double, std::string>>> Model::describe() const {
  const LoadReport& report = weights_.report();
  const cuda::GpuModel* const gpu = gpu_.get();
  return {
      {"device", std::string("cpu")},
      {"gpus", gpu == nullptr ? std::string() : gpu->names()},
      {"gpuWeightBytes", gpu == nullptr ? 0.0 : static_cast<double>(gpu->weight_bytes())},
      {"gpuKvBytes", gpu == nullptr ? 0.0 : static_cast<double>(gpu->cache_bytes())},
      {"hotExperts", gpu == nullptr ? std::string() : gpu->shares().held()},
      {"streamedPrefill", gpu == nullptr ? std::string() : gpu->shares().streamed()},
      {"gpuBufferBytes", gpu == nullptr ? 0.0 : static_cast<double>(gpu->buffer_bytes())},
      {"isa", std::string(isa_name(isa_))},
      {"tiles", std::string(tile_engine_ ? tile_engine_->name : "")},
      {"threads", static_cast<double>(team_->pool().threads())},
      {"nodes", static_cast<double>(team_->pool().nodes())},
      {"splitBytes", static_cast<double>(weights_.split_bytes())},
      {"load", report.ways()},
      {"loaded", report.sentence()},
      {"weightBytes", static_cast<double>(weights_.bytes())},
      {"kvBytes", static_cast<double>(kv_memory_.size())},
      {"bufferBytes", static_cast<double>(buffers_.size()) + (gpu == nullptr ? 0.0 : static_cast<double>(gpu->pinned_bytes()))},
      {"mappedBytes", static_cast<double>(report.mapped)},
      {"hugeBytes", static_cast<double>(report.huge)},
      {"cacheBytes", static_cast<double>(report.from_cache)},
      {"diskBytes", static_cast<double>(report.from_disk)},
      {"loadSeconds", report.seconds},
  };
}

}  // namespace tandem
