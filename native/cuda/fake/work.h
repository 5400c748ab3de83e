// Streams of the fake driver, each a thread, and what they are given: one piece of work after the other, or the nodes of a graph.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "cuda/fake/state.h"

namespace tandem::cuda {

namespace fake {

// One piece of work. `ready` false: it cannot begin yet.
struct Work {
  std::function<bool()> ready;
  std::function<void()> run;
};

struct Node {
  Work work;
  std::vector<size_t> after;
};

struct Capture {
  std::vector<Node> nodes;
  std::map<StreamHandle*, std::vector<size_t>> tips;  // what the next node of a stream comes after
  StreamHandle* origin = nullptr;
};

}  // namespace fake

struct StreamHandle {
  std::mutex mutex;
  std::condition_variable wake;
  std::deque<fake::Work> queue;
  bool closed = false;
  int pending = 0;
  std::shared_ptr<fake::Capture> capture;
  std::thread thread{[this] { loop(); }};

  void loop();
  // It was closed, or the device lost.
  bool gone();
  bool busy();
  // For later, or into the capture.
  Result add(fake::Work work);
  void close();
};

struct EventHandle {
  std::shared_ptr<std::atomic<bool>> done = std::make_shared<std::atomic<bool>>(true);
  std::shared_ptr<fake::Capture> capture;
  std::vector<size_t> after;
};
struct GraphHandle {
  std::vector<fake::Node> nodes;
};
struct GraphExecHandle {
  std::shared_ptr<std::vector<fake::Node>> nodes;
};

namespace fake {

// Made and not destroyed.
std::set<StreamHandle*>& streams();

// Nodes in an order of chance among those that may begin.
void run_nodes(const std::vector<Node>& nodes, StreamHandle* stream);

inline Result make(StreamHandle* stream, std::function<void()> run, std::function<bool()> ready = {}) {
  return stream->add({std::move(ready), std::move(run)});
}

}  // namespace fake

}  // namespace tandem::cuda
