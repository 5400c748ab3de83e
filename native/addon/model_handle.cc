#include "addon/model_handle.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

namespace tandem {

namespace {

Status wrong_argument(const std::string& rule) { return Status(Code::request_invalid, "[native] " + rule + "; something else was given; see binding.ts"); }

template <typename Array, typename T> Array typed(Napi::Env env, const std::vector<T>& data) {
  Array array = Array::New(env, data.size());
  if (array.IsEmpty()) return array;  // memory was refused, or the worker is being terminated
  if (!data.empty()) std::memcpy(array.Data(), data.data(), data.size() * sizeof(T));
  return array;
}

Napi::Value nothing(Napi::Env env, std::monostate&) { return env.Undefined(); }

Napi::Value pass_result(Napi::Env env, PassOutput& output) {
  Napi::Object result = Napi::Object::New(env);
  result.Set("tokens", typed<Napi::Int32Array>(env, output.tokens));
  result.Set("logprobs", typed<Napi::Float32Array>(env, output.logprobs));
  result.Set("maxTop", Napi::Number::New(env, static_cast<double>(output.max_top)));
  result.Set("topTokens", typed<Napi::Int32Array>(env, output.top_tokens));
  result.Set("topLogprobs", typed<Napi::Float32Array>(env, output.top_logprobs));
  if (!output.logits.empty()) result.Set("logits", typed<Napi::Float32Array>(env, output.logits));
  result.Set("milliseconds", Napi::Number::New(env, output.milliseconds));
  return result;
}

Napi::Value value_data(Napi::Env env, Model::ValueData& data) {
  if (data.type == ElementType::i32) return typed<Napi::Int32Array>(env, data.words);
  return typed<Napi::Float32Array>(env, data.words);
}

Napi::Value page_data(Napi::Env env, std::vector<uint8_t>& bytes) { return typed<Napi::Uint8Array>(env, bytes); }

using Bytes = std::shared_ptr<std::vector<uint8_t>>;

// A copy of the bytes of a Uint8Array. `rule` says what the value is, where it is something else.
Status copy_bytes(const Napi::Value& value, const char* rule, Bytes& out) {
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) return wrong_argument(rule);
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return guarded([&] {
    out = std::make_shared<std::vector<uint8_t>>(array.Data(), array.Data() + array.ByteLength());
    return Status();
  });
}

int64_t whole(const Napi::Value& value) { return value.IsNumber() ? value.As<Napi::Number>().Int64Value() : -1; }

// What the loader of a model says to JavaScript and hears from it. Lives on the JavaScript thread.
struct LoadWatch {
  Napi::FunctionReference on_progress;
  Napi::Reference<Napi::TypedArray> cancel;

  void look(Napi::Env env, Worker& worker) {
    const Napi::Int32Array flag = cancel.Value().As<Napi::Int32Array>();
    if (flag.ElementLength() > 0 && __atomic_load_n(flag.Data(), __ATOMIC_RELAXED) != 0) worker.progress.cancel.store(true);
    on_progress.Call({Napi::Number::New(env, static_cast<double>(worker.progress.loaded.load())),
                      Napi::Number::New(env, static_cast<double>(worker.progress.total.load()))});
  }
};

Status read_options(const Napi::Object& given, ModelOptions& out) {
  Bytes program;
  TANDEM_TRY(copy_bytes(given.Get("program"), "options.program is a Uint8Array", program));
  out.program = std::move(*program);
  if (!given.Get("files").IsArray()) return wrong_argument("options.files is an array");
  const Napi::Array files = given.Get("files").As<Napi::Array>();
  for (uint32_t i = 0; i < files.Length(); i++) {
    const Napi::Value file = files.Get(i);
    FileInput input;
    if (file.IsString()) {
      input.path = file.As<Napi::String>().Utf8Value();
    } else {
      Bytes bytes;
      TANDEM_TRY(copy_bytes(file, "a file is a path or a Uint8Array", bytes));
      input.bytes = std::move(*bytes);
      input.in_memory = true;
    }
    out.files.push_back(std::move(input));
  }
  out.pages = whole(given.Get("pages"));
  out.max_rows = whole(given.Get("maxRows"));
  out.max_outputs = whole(given.Get("maxOutputs"));
  const int64_t threads = whole(given.Get("threads"));
  if (threads < 0 || threads > 65536) return wrong_argument("options.threads is 0 to 65536");
  out.threads = static_cast<int>(threads);
  if (!given.Get("isa").IsString() || !given.Get("load").IsString()) return wrong_argument("options.isa and options.load are strings");
  out.isa = given.Get("isa").As<Napi::String>().Utf8Value();
  const std::string load = given.Get("load").As<Napi::String>().Utf8Value();
  if (load == "auto") out.load = LoadMode::automatic;
  else if (load == "mmap") out.load = LoadMode::mapped;
  else if (load == "pages") out.load = LoadMode::pages;
  else return wrong_argument("options.load is auto, mmap or pages");
  out.memory = given.Get("memory").IsUndefined() ? 0 : whole(given.Get("memory"));
  // Kernels of GPUs: left out where no step is placed on one.
  if (given.Get("kernels").IsString()) {
    out.kernels.path = given.Get("kernels").As<Napi::String>().Utf8Value();
    out.kernels.version = static_cast<int>(whole(given.Get("kernelsVersion")));
  }
  // What GPUs compute of experts on the CPU: all left out where they compute nothing of them.
  if (const Napi::Value slots = given.Get("hotSlots"); slots.IsTypedArray() && slots.As<Napi::TypedArray>().TypedArrayType() == napi_int32_array) {
    const Napi::Int32Array by_layer = slots.As<Napi::Int32Array>();
    out.shares.hot_slots.assign(by_layer.Data(), by_layer.Data() + by_layer.ElementLength());
    if (given.Get("hotPayBack").IsNumber()) out.shares.hot_pay_back = given.Get("hotPayBack").As<Napi::Number>().DoubleValue();
  }
  if (given.Get("streamFrom").IsNumber()) {
    out.shares.stream_from = whole(given.Get("streamFrom"));
    out.shares.stream_memory = static_cast<size_t>(std::max<int64_t>(whole(given.Get("streamMemory")), 0));
  }
  if (out.memory < 0) return wrong_argument("options.memory is a number of bytes, 0 for all there are");
  return {};
}

}  // namespace

Napi::Function ModelHandle::define(Napi::Env env) {
  return DefineClass(env, "NativeModel",
                     {InstanceMethod<&ModelHandle::run>("run"), InstanceMethod<&ModelHandle::cancel>("cancel"),
                      InstanceMethod<&ModelHandle::describe>("describe"), InstanceMethod<&ModelHandle::begin>("begin"),
                      InstanceMethod<&ModelHandle::step>("step"),
                      InstanceMethod<&ModelHandle::steps>("steps"), InstanceMethod<&ModelHandle::read>("read"),
                      InstanceMethod<&ModelHandle::write>("write"), InstanceMethod<&ModelHandle::end>("end"),
                      InstanceMethod<&ModelHandle::read_page>("readPage"), InstanceMethod<&ModelHandle::write_page>("writePage"),
                      InstanceMethod<&ModelHandle::timings>("timings"), InstanceMethod<&ModelHandle::expert_visits>("expertVisits"),
                      InstanceMethod<&ModelHandle::share_counts>("shareCounts"),
                      InstanceMethod<&ModelHandle::dispose>("dispose")});
}

Napi::Value ModelHandle::create(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Environment* environment = Environment::of(env);
  const auto deferred = Napi::Promise::Deferred::New(env);
  auto options = std::make_shared<ModelOptions>();
  Status status = info.Length() < 3 || !info[0].IsObject() || !info[1].IsFunction() || !info[2].IsTypedArray() ||
                          info[2].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array
                      ? wrong_argument("createModel takes options, a function and an Int32Array")
                      : guarded([&] { return read_options(info[0].As<Napi::Object>(), *options); });
  std::shared_ptr<Worker> worker;
  if (status.ok()) {
    status = guarded([&] {
      worker = std::make_shared<Worker>();
      return Status();
    });
  }
  if (!status.ok()) {
    deferred.Reject(to_error(env, status));
    return deferred.Promise();
  }
  environment->add(worker);
  environment->retain();
  options->stop = &worker->stop;

  // Jobs and posted functions hold the worker by its address: the environment keeps it until its thread has ended.
  Worker* const w = worker.get();
  const std::shared_ptr<Channel> channel = environment->channel();
  LoadWatch* const watch = new LoadWatch{Napi::Persistent(info[1].As<Napi::Function>()), Napi::Persistent(info[2].As<Napi::TypedArray>())};
  w->progress.on_advance = [w, channel, watch, last = std::make_shared<std::atomic<int64_t>>(0)] {
    // At most one message in 50 ms, whichever thread comes first.
    const int64_t now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
    int64_t before = last->load(std::memory_order_relaxed);
    if (now - before < 50 || !last->compare_exchange_strong(before, now)) return;
    channel->post([w, watch](Napi::Env env) { watch->look(env, *w); });
  };
  w->executor.post([w, channel, watch, options, deferred] {
    Status status = guarded([&] { return Model::load(std::move(*options), w->executor.handle(), w->progress, w->model); });
    w->progress.on_advance = nullptr;
    channel->post([w, watch, deferred, status](Napi::Env env) {
      Environment* environment = Environment::of(env);
      if (status.ok()) {
        watch->look(env, *w);
        deferred.Resolve(environment->model_constructor.New({Napi::External<Worker>::New(env, w)}));
      } else {
        w->finish(nullptr);
        deferred.Reject(to_error(env, status));
      }
      delete watch;
      environment->release();
    });
  });
  return deferred.Promise();
}

ModelHandle::ModelHandle(const Napi::CallbackInfo& info) : Napi::ObjectWrap<ModelHandle>(info) {
  environment_ = Environment::of(info.Env());
  if (info.Length() == 1 && info[0].IsExternal()) worker_ = environment_->find(info[0].As<Napi::External<Worker>>().Data());
  if (worker_ == nullptr) {
    disposed_ = true;
    throw_status(info.Env(), Status(Code::request_invalid, "[native] models are made by createModel; a constructor call was given; call createModel"));
  }
}

ModelHandle::~ModelHandle() {
  if (disposed_) return;
  worker_->stop.store(true);
  worker_->finish(nullptr);
}

Status ModelHandle::gone() { return Status(Code::disposed, "[native] a model is used before dispose; it was disposed; load it again"); }

Napi::Value ModelHandle::rejected(Napi::Env env, const Status& status) {
  const auto deferred = Napi::Promise::Deferred::New(env);
  deferred.Reject(to_error(env, status));
  return deferred.Promise();
}

template <typename Result>
Napi::Value ModelHandle::submit(Napi::Env env, std::function<Status(Model&, Result&)> job, Napi::Value (*convert)(Napi::Env, Result&)) {
  if (disposed_) return rejected(env, gone());
  const auto deferred = Napi::Promise::Deferred::New(env);
  environment_->retain();
  Ref();  // the object outlives its jobs
  worker_->executor.post([this, w = worker_.get(), channel = environment_->channel(), job = std::move(job), convert, deferred] {
    auto result = std::make_shared<Result>();
    const Status status = guarded([&] { return job(*w->model, *result); });
    channel->post([this, result, status, convert, deferred](Napi::Env env) {
      if (status.ok()) deferred.Resolve(convert(env, *result));
      else deferred.Reject(to_error(env, status));
      environment_->release();
      Unref();
    });
  });
  return deferred.Promise();
}

Napi::Value ModelHandle::run(const Napi::CallbackInfo& info) {
  Bytes batch;
  const Status status = copy_bytes(info[0], "a batch is a Uint8Array", batch);
  if (!status.ok()) return rejected(info.Env(), status);
  const uint32_t generation = disposed_ ? 0 : worker_->model->arm();
  return submit<PassOutput>(
      info.Env(), [batch, generation](Model& model, PassOutput& out) { return model.run(batch->data(), batch->size(), generation, out); }, pass_result);
}

Napi::Value ModelHandle::begin(const Napi::CallbackInfo& info) {
  Bytes batch;
  const Status status = copy_bytes(info[0], "a batch is a Uint8Array", batch);
  if (!status.ok()) return rejected(info.Env(), status);
  const uint32_t generation = disposed_ ? 0 : worker_->model->arm();
  return submit<std::monostate>(
      info.Env(), [batch, generation](Model& model, std::monostate&) { return model.begin(batch->data(), batch->size(), generation); }, nothing);
}

Napi::Value ModelHandle::step(const Napi::CallbackInfo& info) {
  const int64_t index = whole(info[0]);
  return submit<std::monostate>(info.Env(), [index](Model& model, std::monostate&) { return model.step(index); }, nothing);
}

Napi::Value ModelHandle::steps(const Napi::CallbackInfo& info) {
  const int64_t first = whole(info[0]);
  const int64_t last = whole(info[1]);
  return submit<std::monostate>(info.Env(), [first, last](Model& model, std::monostate&) { return model.steps(first, last); }, nothing);
}

Napi::Value ModelHandle::read(const Napi::CallbackInfo& info) {
  const int64_t value = whole(info[0]);
  return submit<Model::ValueData>(info.Env(), [value](Model& model, Model::ValueData& out) { return model.read(value, out); }, value_data);
}

Napi::Value ModelHandle::write(const Napi::CallbackInfo& info) {
  const int64_t value = whole(info[0]);
  const napi_typedarray_type type = info[1].IsTypedArray() ? info[1].As<Napi::TypedArray>().TypedArrayType() : napi_uint8_array;
  if (type != napi_float32_array && type != napi_int32_array)
    return rejected(info.Env(), wrong_argument("a value is a Float32Array or an Int32Array"));
  std::shared_ptr<Model::ValueData> data;
  const Status status = guarded([&] {
    data = std::make_shared<Model::ValueData>();
    data->type = type == napi_int32_array ? ElementType::i32 : ElementType::f32;
    const Napi::TypedArray array = info[1].As<Napi::TypedArray>();
    data->words.resize(array.ElementLength());
    if (!data->words.empty())
      std::memcpy(data->words.data(), static_cast<const uint8_t*>(array.ArrayBuffer().Data()) + array.ByteOffset(), array.ByteLength());
    return Status();
  });
  if (!status.ok()) return rejected(info.Env(), status);
  return submit<std::monostate>(info.Env(), [value, data](Model& model, std::monostate&) { return model.write(value, *data); }, nothing);
}

Napi::Value ModelHandle::read_page(const Napi::CallbackInfo& info) {
  const int64_t page = whole(info[0]);
  return submit<std::vector<uint8_t>>(
      info.Env(), [page](Model& model, std::vector<uint8_t>& out) { return model.read_page(page, out); }, page_data);
}

Napi::Value ModelHandle::write_page(const Napi::CallbackInfo& info) {
  const int64_t page = whole(info[0]);
  Bytes bytes;
  const Status status = copy_bytes(info[1], "the bytes of a page are a Uint8Array", bytes);
  if (!status.ok()) return rejected(info.Env(), status);
  return submit<std::monostate>(info.Env(), [page, bytes](Model& model, std::monostate&) { return model.write_page(page, *bytes); }, nothing);
}

Napi::Value ModelHandle::end(const Napi::CallbackInfo& info) {
  return submit<PassOutput>(info.Env(), [](Model& model, PassOutput& out) { return model.finish(out); }, pass_result);
}

void ModelHandle::cancel(const Napi::CallbackInfo& info) {
  if (!disposed_) worker_->model->cancel(whole(info[0]));
}

Napi::Value ModelHandle::describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (disposed_) {
    throw_status(env, gone());
    return env.Undefined();
  }
  Napi::Object object = Napi::Object::New(env);
  for (const auto& [key, value] : worker_->model->describe()) {
    if (const double* number = std::get_if<double>(&value)) object.Set(key, Napi::Number::New(env, *number));
    else object.Set(key, Napi::String::New(env, std::get<std::string>(value)));
  }
  return object;
}

Napi::Value ModelHandle::timings(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (disposed_) {
    throw_status(env, gone());
    return env.Undefined();
  }
  const std::vector<StepTiming>& timings = worker_->model->timings();
  Napi::Array list = Napi::Array::New(env, timings.size());
  for (size_t i = 0; i < timings.size(); i++) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("step", Napi::Number::New(env, static_cast<double>(i)));
    entry.Set("calls", Napi::Number::New(env, static_cast<double>(timings[i].calls.load())));
    entry.Set("microseconds", Napi::Number::New(env, static_cast<double>(timings[i].nanoseconds.load()) / 1000));
    list.Set(static_cast<uint32_t>(i), entry);
  }
  return list;
}

Napi::Value ModelHandle::expert_visits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (disposed_) {
    throw_status(env, gone());
    return env.Undefined();
  }
  Model::ExpertVisits visits;
  const Status status = guarded([&] {
    visits = worker_->model->expert_visits();
    return Status();
  });
  if (!status.ok()) {
    throw_status(env, status);
    return env.Undefined();
  }
  Napi::Object object = Napi::Object::New(env);
  object.Set("layers", typed<Napi::Int32Array>(env, visits.layers));
  object.Set("experts", Napi::Number::New(env, static_cast<double>(visits.experts)));
  object.Set("counts", typed<Napi::Uint32Array>(env, visits.counts));
  return object;
}

Napi::Value ModelHandle::share_counts(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (disposed_) {
    throw_status(env, gone());
    return env.Undefined();
  }
  const cuda::ShareRunner::Counts counts = worker_->model->share_counts();
  Napi::Object object = Napi::Object::New(env);
  const auto set = [&](const char* key, auto count) { object.Set(key, Napi::Number::New(env, static_cast<double>(count))); };
  set("slots", counts.slots);
  set("held", counts.held);
  set("hits", counts.hits);
  set("misses", counts.misses);
  set("uploads", counts.uploads);
  set("evictions", counts.evictions);
  set("failures", counts.failures);
  set("uploadedBytes", counts.bytes);
  set("streamedPasses", counts.streamed_passes);
  set("streamedBytes", counts.streamed_bytes);
  return object;
}

Napi::Value ModelHandle::dispose(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (disposed_) return disposal_.Value();
  disposed_ = true;
  const auto deferred = Napi::Promise::Deferred::New(env);
  disposal_ = Napi::Persistent(deferred.Promise());
  environment_->retain();
  Ref();
  worker_->finish([this, channel = environment_->channel(), deferred] {
    channel->post([this, deferred](Napi::Env env) {
      deferred.Resolve(env.Undefined());
      environment_->release();
      Unref();
    });
  });
  worker_.reset();
  return disposal_.Value();
}

}  // namespace tandem
