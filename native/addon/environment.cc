#include "addon/environment.h"

#include <algorithm>
#include <exception>
#include <new>
#include <utility>

namespace tandem {

void Channel::post(std::function<void(Napi::Env)> function) {
  std::lock_guard lock(mutex_);
  if (wake_ == nullptr) return;
  queue_.push_back(std::move(function));
  // One wake-up empties the whole queue.
  if (queue_.size() == 1) napi_call_threadsafe_function(wake_, nullptr, napi_tsfn_nonblocking);
}

void Worker::finish(std::function<void()> then) {
  executor.post([this, then = std::move(then)] {
    model.reset();
    if (then) then();
    finished.store(true);
  });
  executor.close();
}

Environment* Environment::create(Napi::Env env) {
  Environment* self = new Environment(env);
  env.SetInstanceData<Environment>(self);
  napi_threadsafe_function wake = nullptr;
  napi_value name = Napi::String::New(env, "tandem");
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, self, drain, &wake) != napi_ok) return nullptr;
  napi_unref_threadsafe_function(env, wake);
  self->channel_->wake_ = wake;
  // Hooks run in reverse order: this one before the thread-safe function's own, which frees it.
  napi_add_env_cleanup_hook(env, end, self);
  return self;
}

void Environment::end(void* pointer) {
  Environment* self = static_cast<Environment*>(pointer);
  {
    std::lock_guard lock(self->channel_->mutex_);
    self->channel_->wake_ = nullptr;
    self->channel_->queue_.clear();
  }
  for (const auto& worker : self->workers_) {
    worker->stop.store(true);
    worker->progress.cancel.store(true);
    worker->finish(nullptr);
  }
  for (const auto& worker : self->workers_) worker->executor.join();
  self->workers_.clear();
}

// A worker that is being terminated still empties its queue, but no call into JavaScript succeeds any more.
static bool runs_javascript(napi_env env) {
  napi_value value = nullptr;
  return napi_get_undefined(env, &value) == napi_ok && napi_coerce_to_bool(env, value, &value) == napi_ok;
}

void Environment::drain(napi_env raw, napi_value, void* context, void*) {
  if (raw == nullptr || !runs_javascript(raw)) return;  // what is queued goes with the environment
  Environment* self = static_cast<Environment*>(context);
  std::vector<std::function<void(Napi::Env)>> functions;
  {
    std::lock_guard lock(self->channel_->mutex_);
    functions.swap(self->channel_->queue_);
  }
  Napi::Env env(raw);
  for (const auto& function : functions) {
    Napi::HandleScope scope(env);
    function(env);
    if (env.IsExceptionPending()) napi_fatal_exception(env, env.GetAndClearPendingException().Value());
  }
  self->reap();
}

void Environment::retain() {
  if (pending_++ == 0) napi_ref_threadsafe_function(env_, channel_->wake_);
}

void Environment::release() {
  if (--pending_ == 0) napi_unref_threadsafe_function(env_, channel_->wake_);
}

void Environment::add(std::shared_ptr<Worker> worker) {
  reap();
  workers_.push_back(std::move(worker));
}

std::shared_ptr<Worker> Environment::find(const Worker* worker) const {
  for (const auto& known : workers_)
    if (known.get() == worker) return known;
  return nullptr;
}

// Threads that have run their last job end at once; joining them does not wait.
void Environment::reap() {
  const auto gone = std::remove_if(workers_.begin(), workers_.end(), [](const std::shared_ptr<Worker>& worker) {
    if (!worker->finished.load()) return false;
    worker->executor.join();
    return true;
  });
  workers_.erase(gone, workers_.end());
}

Napi::Value to_error(Napi::Env env, const Status& status) {
  Napi::Object error = Napi::Error::New(env, status.message()).Value();
  error.Set("code", Napi::String::New(env, code_name(status.code())));
  return error;
}

void throw_status(Napi::Env env, const Status& status) { napi_throw(env, to_error(env, status)); }

Status guarded(const std::function<Status()>& function) {
  try {
    return function();
  } catch (const std::bad_alloc&) {
    return Status(Code::out_of_memory, "[native] memory was refused; close other programs or use fewer KV pages");
  } catch (const std::exception& error) {
    return Status(Code::native_failed, std::string("[native] an unexpected failure; ") + error.what() + "; please report it");
  }
}

}  // namespace tandem
