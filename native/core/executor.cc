#include "core/executor.h"

#include <pthread.h>

#include <utility>

namespace tandem {

Executor::Executor() : thread_([this] { loop(); }) {}

void Executor::loop() {
  pthread_setname_np(pthread_self(), "tandem-exec");
  for (;;) {
    std::function<void()> job;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return closed_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
    }
    job();
  }
}

bool Executor::post(std::function<void()> job) {
  std::lock_guard lock(mutex_);
  if (closed_) return false;
  jobs_.push_back(std::move(job));
  wake_.notify_one();
  return true;
}

void Executor::close() {
  std::lock_guard lock(mutex_);
  closed_ = true;
  wake_.notify_one();
}

void Executor::join() {
  close();
  if (thread_.joinable()) thread_.join();
}

}  // namespace tandem
