#include "cuda/fake/work.h"

#include <cstdint>
#include <random>

namespace tandem::cuda {

using fake::rest;
using fake::state;

void StreamHandle::loop() {
  for (;;) {
    fake::Work work;
    {
      std::unique_lock lock(mutex);
      wake.wait(lock, [this] { return closed || !queue.empty(); });
      if (queue.empty()) return;
      work = std::move(queue.front());
      queue.pop_front();
    }
    while (!gone() && (state().stalled.load() || (work.ready && !work.ready()))) rest();
    if (!gone()) work.run();
    std::lock_guard lock(mutex);
    pending--;
  }
}

bool StreamHandle::gone() {
  std::lock_guard lock(mutex);
  return closed || state().lost.load() != 0;
}

bool StreamHandle::busy() {
  std::lock_guard lock(mutex);
  return pending > 0;
}

Result StreamHandle::add(fake::Work work) {
  if (capture) {
    const size_t index = capture->nodes.size();
    capture->nodes.push_back({std::move(work), capture->tips[this]});
    capture->tips[this] = {index};
    return 0;
  }
  std::lock_guard lock(mutex);
  queue.push_back(std::move(work));
  pending++;
  wake.notify_one();
  return 0;
}

void StreamHandle::close() {
  {
    std::lock_guard lock(mutex);
    closed = true;
    wake.notify_one();
  }
  if (thread.joinable()) thread.join();
}

namespace fake {

std::set<StreamHandle*>& streams() {
  static std::set<StreamHandle*>& all = *new std::set<StreamHandle*>;
  return all;
}

void run_nodes(const std::vector<Node>& nodes, StreamHandle* stream) {
  static std::atomic<uint32_t> seed{1};
  std::mt19937 random(seed.fetch_add(1));
  std::vector<bool> done(nodes.size(), false);
  for (size_t left = nodes.size(); left > 0;) {
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
      bool may = !done[i];
      for (size_t k = 0; may && k < nodes[i].after.size(); k++) may = done[nodes[i].after[k]];
      if (may && (!nodes[i].work.ready || nodes[i].work.ready())) ready.push_back(i);
    }
    if (stream->gone()) return;
    if (ready.empty() || state().stalled.load()) {
      rest();
      continue;
    }
    const size_t chosen = ready[random() % ready.size()];
    nodes[chosen].work.run();
    done[chosen] = true;
    left--;
  }
}

}  // namespace fake

}  // namespace tandem::cuda
