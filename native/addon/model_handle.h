// The JavaScript object of a loaded model (NativeModel of src/backend/native/binding.ts).
#pragma once

#include <napi.h>

#include <functional>
#include <memory>

#include "addon/environment.h"

namespace tandem {

class ModelHandle : public Napi::ObjectWrap<ModelHandle> {
 public:
  static Napi::Function define(Napi::Env env);
  // createModel(options, onProgress, cancel): a promise of a handle.
  static Napi::Value create(const Napi::CallbackInfo& info);

  // Called by the engine with an External of the worker; never by users.
  explicit ModelHandle(const Napi::CallbackInfo& info);
  ~ModelHandle() override;

 private:
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value begin(const Napi::CallbackInfo& info);
  Napi::Value step(const Napi::CallbackInfo& info);
  Napi::Value steps(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value read_page(const Napi::CallbackInfo& info);
  Napi::Value write_page(const Napi::CallbackInfo& info);
  Napi::Value end(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);
  void cancel(const Napi::CallbackInfo& info);
  Napi::Value describe(const Napi::CallbackInfo& info);
  Napi::Value expert_visits(const Napi::CallbackInfo& info);
  Napi::Value share_counts(const Napi::CallbackInfo& info);
  Napi::Value timings(const Napi::CallbackInfo& info);

  // Runs `job` on the executor's thread and settles the promise on this one.
  template <typename Result>
  Napi::Value submit(Napi::Env env, std::function<Status(Model&, Result&)> job, Napi::Value (*convert)(Napi::Env, Result&));
  Napi::Value rejected(Napi::Env env, const Status& status);
  static Status gone();

  std::shared_ptr<Worker> worker_;
  Environment* environment_ = nullptr;
  bool disposed_ = false;
  Napi::Reference<Napi::Promise> disposal_;
};

}  // namespace tandem
