// The addon's entry: what NativeBinding of src/backend/native/binding.ts promises. Only this folder includes napi.h.
#include <napi.h>

#include <cstring>

#include "addon/environment.h"
#include "addon/model_handle.h"
#include "core/model_file.h"
#include "cpu/conformance.h"
#include "cpu/isa.h"
#include "cpu/probe.h"
#include "cpu/tiles.h"
#include "cpu/topology.h"
#include "cuda/gpu_info.h"
#include "cuda/link_rates.h"

namespace tandem {

namespace {

Napi::Value machine(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const CpuFeatures& features = cpu_features();
  const Topology topology = read_topology();
  const Memory memory = read_memory();
  Isa isa;
  const TileEngine* tiles = nullptr;
  Status status = choose_isa("", isa);
  if (status.ok()) status = choose_tiles(isa, tiles);
  if (!status.ok()) {
    throw_status(env, status);
    return env.Undefined();
  }
  const auto number = [env](double value) { return Napi::Number::New(env, value); };
  Napi::Array isas = Napi::Array::New(env);
  for (Isa each : available_isas()) isas.Set(isas.Length(), Napi::String::New(env, isa_name(each)));
  Napi::Array names = Napi::Array::New(env);
  for (const std::string& name : features.names()) names.Set(names.Length(), Napi::String::New(env, name));
  Napi::Object object = Napi::Object::New(env);
  object.Set("vendor", Napi::String::New(env, features.vendor));
  object.Set("model", Napi::String::New(env, features.model));
  object.Set("isas", isas);
  object.Set("isa", Napi::String::New(env, isa_name(isa)));
  object.Set("tiles", Napi::String::New(env, tiles ? tiles->name : ""));
  object.Set("amxProblem", Napi::String::New(env, features.amx_problem));
  object.Set("features", names);
  object.Set("logicalCores", number(topology.logical));
  object.Set("physicalCores", number(topology.physical));
  object.Set("usableCores", number(topology.usable));
  object.Set("defaultThreads", number(topology.automatic));
  object.Set("numaNodes", number(static_cast<double>(topology.nodes.size())));
  object.Set("memoryBytes", number(static_cast<double>(memory.total)));
  object.Set("availableBytes", number(static_cast<double>(memory.available)));
  return object;
}

bool is_array(const Napi::Value& value, napi_typedarray_type type) {
  return value.IsTypedArray() && value.As<Napi::TypedArray>().TypedArrayType() == type;
}

Napi::Value fail(const Napi::Env& env, const Status& status) {
  throw_status(env, status);
  return env.Undefined();
}

Status wrong_arguments(const char* signature) {
  return Status(Code::request_invalid, std::string("[native] arguments are ") + signature + "; something else was given; see binding.ts");
}

Napi::Value decode_rows(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 6 || !info[0].IsString() || !is_array(info[1], napi_uint8_array) || !info[2].IsNumber() || !info[3].IsNumber() ||
      !(info[4].IsNull() || is_array(info[4], napi_float32_array)) || !info[5].IsString())
    return fail(env, wrong_arguments("(format, Uint8Array, rows, columns, Float32Array | null, isa)"));
  const Napi::Uint8Array bytes = info[1].As<Napi::Uint8Array>();
  std::vector<float> out;
  const Status status = guarded([&] {
    std::vector<float> scales;
    if (!info[4].IsNull()) {
      const Napi::Float32Array given = info[4].As<Napi::Float32Array>();
      scales.assign(given.Data(), given.Data() + given.ElementLength());
    }
    return conformance_decode(info[0].As<Napi::String>().Utf8Value(), bytes.Data(), bytes.ByteLength(), info[2].As<Napi::Number>().Int64Value(),
                              info[3].As<Napi::Number>().Int64Value(), scales, info[5].As<Napi::String>().Utf8Value(), out);
  });
  if (!status.ok()) return fail(env, status);
  Napi::Float32Array result = Napi::Float32Array::New(env, out.size());
  if (!out.empty()) std::memcpy(result.Data(), out.data(), out.size() * 4);
  return result;
}

Napi::Value quantize(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 3 || !info[0].IsString() || !is_array(info[1], napi_float32_array) || !info[2].IsString())
    return fail(env, wrong_arguments("(format, Float32Array, isa)"));
  const Napi::Float32Array given = info[1].As<Napi::Float32Array>();
  std::vector<float> scales;
  std::vector<int8_t> codes;
  const Status status = guarded([&] {
    const std::vector<float> x(given.Data(), given.Data() + given.ElementLength());
    return conformance_quantize(info[0].As<Napi::String>().Utf8Value(), x, info[2].As<Napi::String>().Utf8Value(), codes, scales);
  });
  if (!status.ok()) return fail(env, status);
  Napi::Int8Array code_array = Napi::Int8Array::New(env, codes.size());
  if (!codes.empty()) std::memcpy(code_array.Data(), codes.data(), codes.size());
  Napi::Float32Array scale_array = Napi::Float32Array::New(env, scales.size());
  if (!scales.empty()) std::memcpy(scale_array.Data(), scales.data(), scales.size() * 4);
  Napi::Object result = Napi::Object::New(env);
  result.Set("codes", code_array);
  result.Set("scales", scale_array);
  return result;
}

Napi::Value read_bandwidth(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 2 || !info[0].IsNumber() || !info[1].IsNumber() || info[0].As<Napi::Number>().Int64Value() < 0 ||
      info[0].As<Napi::Number>().Int64Value() > 65536 || info[1].As<Napi::Number>().Int64Value() < 0)
    return fail(env, wrong_arguments("(threads, bytes)"));
  Bandwidth measured;
  const Status status = guarded([&] {
    return measure_read_bandwidth(info[0].As<Napi::Number>().Int32Value(), static_cast<size_t>(info[1].As<Napi::Number>().Int64Value()), measured);
  });
  if (!status.ok()) return fail(env, status);
  Napi::Object result = Napi::Object::New(env);
  result.Set("threads", Napi::Number::New(env, measured.threads));
  result.Set("bytesPerSecond", Napi::Number::New(env, measured.bytes_per_second));
  Napi::Array nodes = Napi::Array::New(env);
  for (const Bandwidth::Node& node : measured.nodes) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("node", Napi::Number::New(env, node.id));
    entry.Set("threads", Napi::Number::New(env, node.threads));
    entry.Set("bytesPerSecond", Napi::Number::New(env, node.bytes_per_second));
    nodes.Set(nodes.Length(), entry);
  }
  result.Set("nodes", nodes);
  return result;
}

Napi::Value peaks(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsNumber() || info[0].As<Napi::Number>().Int64Value() < 0 || info[0].As<Napi::Number>().Int64Value() > 65536)
    return fail(env, wrong_arguments("(threads)"));
  std::vector<Peak> measured;
  const Status status = guarded([&] { return measure_peaks(info[0].As<Napi::Number>().Int32Value(), measured); });
  if (!status.ok()) return fail(env, status);
  Napi::Array result = Napi::Array::New(env);
  for (const Peak& peak : measured) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("name", Napi::String::New(env, peak.name));
    entry.Set("threads", Napi::Number::New(env, peak.threads));
    entry.Set("operationsPerSecond", Napi::Number::New(env, peak.operations_per_second));
    result.Set(result.Length(), entry);
  }
  return result;
}

Napi::Value drop_cache(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 1 || !info[0].IsString()) return fail(env, wrong_arguments("(path)"));
  const Status status = guarded([&] {
    ModelFile file;
    TANDEM_TRY(file.open(info[0].As<Napi::String>().Utf8Value()));
    file.drop(0, file.size());
    return Status();
  });
  return status.ok() ? env.Undefined() : fail(env, status);
}

Napi::Value gpus(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 3 || !info[0].IsString() || !info[1].IsNumber() || !info[2].IsBoolean()) return fail(env, wrong_arguments("(kernels, version, free)"));
  cuda::Gpus found;
  const Status status = guarded([&] {
    found = cuda::list_gpus({info[0].As<Napi::String>().Utf8Value(), info[1].As<Napi::Number>().Int32Value()}, info[2].As<Napi::Boolean>().Value());
    return Status();
  });
  if (!status.ok()) return fail(env, status);
  const auto number = [env](double value) { return Napi::Number::New(env, value); };
  Napi::Array list = Napi::Array::New(env);
  for (const cuda::GpuInfo& gpu : found.list) {
    Napi::Object entry = Napi::Object::New(env);
    entry.Set("device", Napi::String::New(env, "cuda:" + std::to_string(gpu.ordinal)));
    entry.Set("name", Napi::String::New(env, gpu.name));
    entry.Set("bus", Napi::String::New(env, gpu.bus));
    entry.Set("capability", Napi::String::New(env, std::to_string(gpu.major) + "." + std::to_string(gpu.minor)));
    entry.Set("memoryBytes", number(static_cast<double>(gpu.memory)));
    if (gpu.free >= 0) entry.Set("freeBytes", number(static_cast<double>(gpu.free)));
    entry.Set("multiprocessors", number(gpu.multiprocessors));
    entry.Set("bandwidth", number(gpu.bandwidth));
    entry.Set("bf16", number(gpu.bf16));
    entry.Set("refused", Napi::String::New(env, gpu.refused));
    list.Set(list.Length(), entry);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("cuda", Napi::String::New(env, found.version == 0 ? "" : cuda::version_name(found.version)));
  result.Set("problem", Napi::String::New(env, found.problem));
  result.Set("gpus", list);
  return result;
}

Napi::Value gpu_rates(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (info.Length() != 3 || !info[0].IsString() || !info[1].IsNumber() || !info[2].IsNumber()) return fail(env, wrong_arguments("(kernels, version, ordinal)"));
  cuda::LinkRates rates;
  const Status status = guarded([&] {
    return cuda::measure_links(info[2].As<Napi::Number>().Int32Value(), {info[0].As<Napi::String>().Utf8Value(), info[1].As<Napi::Number>().Int32Value()}, rates);
  });
  if (!status.ok()) return fail(env, status);
  Napi::Object result = Napi::Object::New(env);
  result.Set("copy", Napi::Number::New(env, rates.copy));
  result.Set("pinned", Napi::Number::New(env, rates.pinned));
  result.Set("pageable", Napi::Number::New(env, rates.pageable));
  return result;
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  Environment* environment = Environment::create(env);
  if (environment == nullptr) {
    throw_status(env, Status(Code::native_failed, "[native] the addon can wake JavaScript; Node refused a thread-safe function; restart the process"));
    return exports;
  }
  environment->model_constructor = Napi::Persistent(ModelHandle::define(env));
  exports.Set("version", Napi::String::New(env, TANDEM_VERSION));
  exports.Set("machine", Napi::Function::New<machine>(env, "machine"));
  exports.Set("gpus", Napi::Function::New<gpus>(env, "gpus"));
  exports.Set("gpuRates", Napi::Function::New<gpu_rates>(env, "gpuRates"));
  exports.Set("createModel", Napi::Function::New<ModelHandle::create>(env, "createModel"));
  exports.Set("decodeRows", Napi::Function::New<decode_rows>(env, "decodeRows"));
  exports.Set("quantize", Napi::Function::New<quantize>(env, "quantize"));
  exports.Set("peaks", Napi::Function::New<peaks>(env, "peaks"));
  exports.Set("dropCache", Napi::Function::New<drop_cache>(env, "dropCache"));
  exports.Set("readBandwidth", Napi::Function::New<read_bandwidth>(env, "readBandwidth"));
  return exports;
}

}  // namespace

NODE_API_MODULE(tandem, initialize)

}  // namespace tandem
