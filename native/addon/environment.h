// What one JavaScript environment (the main thread, or a worker) has of native: the way back onto its thread, and the
// models it opened. Ends with the environment: no thread of ours calls into it afterwards.
#pragma once

#include <napi.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "core/executor.h"
#include "core/model.h"
#include "core/status.h"

namespace tandem {

// Runs functions on the JavaScript thread, in order. May be called from any thread, also after the environment has ended:
// the function is then dropped. Functions own no JavaScript values except through handles that live on that thread.
class Channel {
 public:
  void post(std::function<void(Napi::Env)> function);

 private:
  friend class Environment;
  std::mutex mutex_;
  std::vector<std::function<void(Napi::Env)>> queue_;
  napi_threadsafe_function wake_ = nullptr;  // null once closed
};

// One model's thread and state. `model` is made, used and freed on the executor's thread; the JavaScript thread reads it only
// between a successful load and dispose.
struct Worker {
  std::unique_ptr<Model> model;
  LoadProgress progress;
  std::atomic<bool> stop{false};
  std::atomic<bool> finished{false};  // the last job has run
  Executor executor;                  // last: its thread ends before the rest is destroyed

  // Frees the model after the jobs already posted, calls `then` on the executor's thread, ends the thread.
  void finish(std::function<void()> then);
};

class Environment {
 public:
  // One per environment, made when the addon is loaded into it.
  static Environment* create(Napi::Env env);
  static Environment* of(Napi::Env env) { return env.GetInstanceData<Environment>(); }

  const std::shared_ptr<Channel>& channel() const { return channel_; }
  // While a promise is pending the event loop stays alive.
  void retain();
  void release();
  // The environment ends all workers it knows before it goes.
  void add(std::shared_ptr<Worker> worker);
  // The worker of that address, or null.
  std::shared_ptr<Worker> find(const Worker* worker) const;

  Napi::FunctionReference model_constructor;

 private:
  explicit Environment(Napi::Env env) : env_(env) {}
  static void drain(napi_env env, napi_value, void* context, void*);
  static void end(void* self);
  void reap();

  Napi::Env env_;
  std::shared_ptr<Channel> channel_ = std::make_shared<Channel>();
  std::vector<std::shared_ptr<Worker>> workers_;
  int pending_ = 0;
};

// An Error with the code and message of the status.
Napi::Value to_error(Napi::Env env, const Status& status);
void throw_status(Napi::Env env, const Status& status);

// Runs a function that gives a Status; exceptions of the standard library become one.
Status guarded(const std::function<Status()>& function);

}  // namespace tandem
