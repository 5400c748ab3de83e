#include "cuda/error_watch.h"

namespace tandem::cuda {

ErrorWatch::~ErrorWatch() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

// A pass takes milliseconds: the thread is woken by the first of many alone.
void ErrorWatch::begin() {
  std::lock_guard lock(mutex_);
  on_ = true;
  watch_++;
  found_ = {};
  if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  else if (parked_) wake_.notify_one();
}

Status ErrorWatch::status() const {
  std::lock_guard lock(mutex_);
  return found_;
}

void ErrorWatch::end() {
  std::unique_lock lock(mutex_);
  on_ = false;
  told_.wait(lock, [this] { return !asks_; });
}

void ErrorWatch::work() {
  std::unique_lock lock(mutex_);
  while (!closed_) {
    parked_ = !on_;
    if (parked_) {
      wake_.wait(lock, [this] { return on_ || closed_; });
      continue;
    }
    const uint64_t watch = watch_;
    wake_.wait_for(lock, between_, [this] { return closed_; });
    if (closed_ || !on_ || watch != watch_) continue;
    asks_ = true;
    lock.unlock();
    const Status status = ask();
    lock.lock();
    asks_ = false;
    if (found_.ok()) found_ = status;
    told_.notify_all();
  }
}

Status ErrorWatch::ask() {
  for (Stream& stream : streams_) {
    bool done = false;
    TANDEM_TRY(stream.query(done));
  }
  return {};
}

}  // namespace tandem::cuda
