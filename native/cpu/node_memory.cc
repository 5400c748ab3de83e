#include "cpu/node_memory.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "core/kernel.h"

namespace tandem {

namespace {

constexpr int kPreferred = 1, kInterleave = 3;  // MPOL_* of <linux/mempolicy.h>
constexpr size_t kPage = 4096;
constexpr int kBits = 8 * sizeof(unsigned long);

// Whole pages within [data, data + size).
void set_policy(void* data, size_t size, int mode, const std::vector<int>& nodes) {
  const uintptr_t first = (reinterpret_cast<uintptr_t>(data) + kPage - 1) & ~(kPage - 1), last = (reinterpret_cast<uintptr_t>(data) + size) & ~(kPage - 1);
  if (first >= last) return;
  std::vector<unsigned long> mask;
  for (int node : nodes) {
    const size_t word = static_cast<size_t>(node / kBits);
    if (mask.size() <= word) mask.resize(word + 1);
    mask[word] |= 1ul << (node % kBits);
  }
  // The kernel reads one bit less than it is told.
  syscall(SYS_mbind, first, last - first, mode, mask.data(), mask.size() * kBits + 1, 0);
}

}  // namespace

void place_on_node(void* data, size_t size, int node) { set_policy(data, size, kPreferred, {node}); }

void place_on_all(void* data, size_t size, const TeamPlan& plan) {
  if (plan.memory_nodes.size() > 1) set_policy(data, size, kInterleave, plan.memory_nodes);
}

std::vector<int64_t> split_rows(int64_t rows, const TeamPlan& plan) {
  const int64_t units = rows / BoundWeight::kNodeRows, nodes = plan.nodes();
  if (nodes < 2 || units < nodes) return {};
  // A node without threads (tests have such) counts as if it had one.
  std::vector<int64_t> threads(static_cast<size_t>(nodes));
  for (int node : plan.node_of) threads[static_cast<size_t>(node)]++;
  int64_t all = 0, before = 0;
  for (int64_t& count : threads) all += count = std::max<int64_t>(count, 1);
  std::vector<int64_t> bounds{0};
  for (int64_t count : threads) bounds.push_back((before += count) == all ? rows : units * before / all * BoundWeight::kNodeRows);
  return bounds;
}

}  // namespace tandem
