// Asks streams for errors while a graph waits for the CPU, on a thread of its own: such a call may be held up by another model of the
// process that gives memory back, which waits for all work of the card, so for this graph; and the thread of the pass is the one
// that the graph waits for. It reads what was found, and calls no driver.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/device.h"

namespace tandem::cuda {

class ErrorWatch {
 public:
  // `streams` outlive this. Every so often they are asked.
  explicit ErrorWatch(std::vector<Stream>& streams, std::chrono::milliseconds between = std::chrono::seconds(1)) : streams_(streams), between_(between) {}
  ~ErrorWatch();
  ErrorWatch(const ErrorWatch&) = delete;
  ErrorWatch& operator=(const ErrorWatch&) = delete;

  void begin();
  // The first error found since `begin`.
  Status status() const;
  // Nobody asks any more when this returns. Not while the graph waits for the CPU.
  void end();

 private:
  void work();
  Status ask();

  std::vector<Stream>& streams_;
  std::chrono::milliseconds between_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, told_;
  std::thread thread_;
  uint64_t watch_ = 0;  // how often it began
  bool on_ = false, asks_ = false, closed_ = false, parked_ = false;
  Status found_;
};

}  // namespace tandem::cuda
