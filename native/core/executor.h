// The result of a pass, and the one thread that runs a model's passes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "core/status.h"

namespace tandem {

// What a pass gives back. The executor sizes and fills it before the first step (tokens -1, numbers NaN); `sample` writes
// row o at tokens[o], logprobs[o] and top_*[o * max_top ...], for its first `top_logprobs` places. Tokens of sequences
// that were cancelled are set to -1 after the last step.
struct PassOutput {
  std::vector<int32_t> tokens;        // [O]
  std::vector<float> logprobs;        // [O] log-softmax of the raw logits, natural log
  int64_t max_top = 0;                // largest top_logprobs of the batch
  std::vector<int32_t> top_tokens;    // [O, max_top], padded with -1
  std::vector<float> top_logprobs;    // [O, max_top], padded with NaN
  std::vector<float> logits;          // [O, V] when asked
  double milliseconds = 0;
};

// A thread with a queue of jobs. Jobs run one after the other in the order they came; the thread sleeps between them.
class Executor {
 public:
  // Throws std::system_error where the system refuses a thread.
  Executor();
  ~Executor() { join(); }
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // False when closed: the job was not taken. Jobs must not throw.
  bool post(std::function<void()> job);
  // Takes no more jobs; the thread ends after those it has.
  void close();
  // Closes and waits for the thread's end. Not from the thread itself.
  void join();
  std::thread::native_handle_type handle() { return thread_.native_handle(); }

 private:
  void loop();
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool closed_ = false;
  std::thread thread_;
};

}  // namespace tandem
