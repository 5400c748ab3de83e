#include "cpu/probe.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>

#include "core/kernel.h"
#include "core/memory.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/node_memory.h"

namespace tandem {

namespace {

// A piece is long enough for the prefetchers to be at full speed nearly all of the time, short enough to share out evenly.
constexpr size_t kPiece = size_t{4} << 20;
constexpr int kRounds = 7;

// 16 bytes that every target loads at once. Eight sums, so that no addition waits for the one before: from L1 this reads
// some 100 GB/s a thread, so it is memory that sets the pace (a plain loop over words stops at 26).
typedef uint64_t Lane __attribute__((vector_size(16), may_alias));
constexpr size_t kLanes = 8;

uint64_t sum(const uint8_t* data, size_t bytes) {
  const Lane* at = reinterpret_cast<const Lane*>(data);  // pieces are aligned to pages
  Lane sums[kLanes] = {};
  for (const Lane* end = at + bytes / sizeof(Lane); at < end; at += kLanes)
    for (size_t i = 0; i < kLanes; i++) sums[i] += at[i];
  for (size_t i = 1; i < kLanes; i++) sums[0] += sums[i];
  return sums[0][0] + sums[0][1];
}

}  // namespace

Status measure_read_bandwidth(int threads, size_t bytes, Bandwidth& out) {
  std::unique_ptr<CpuTeam> team;
  TANDEM_TRY(CpuTeam::create(threads, pthread_self(), team));
  ThreadPool& pool = team->pool();
  const TeamPlan& plan = team->plan();
  const int nodes = pool.nodes();
  // Pieces of a node follow each other; all have as many.
  const int64_t share = std::max<int64_t>(static_cast<int64_t>(bytes / kPiece) / nodes, 1), pieces = share * nodes;
  Region region;
  TANDEM_TRY(region.allocate(static_cast<size_t>(pieces) * kPiece, true, "measuring the read bandwidth"));
  std::vector<int64_t> bounds{0};
  for (int node = 0; node < nodes; node++) {
    if (plan.memory_nodes.size() > 1)
      place_on_node(region.data() + static_cast<size_t>(bounds.back()) * kPiece, static_cast<size_t>(share) * kPiece, plan.system_node[static_cast<size_t>(node)]);
    bounds.push_back(bounds.back() + share);
  }
  // Written once: pages that were never written all read the one page of zeros.
  pool.parallel_for_nodes(bounds.data(), 1, [&](int64_t begin, int64_t end, int) {
    std::memset(region.data() + static_cast<size_t>(begin) * kPiece, 0x5a, static_cast<size_t>(end - begin) * kPiece);
  });
  std::atomic<uint64_t> total{0};  // used, so that no compiler drops the reading
  // Bytes per second of the items within `limits`, read by the threads of one node, or (-1) by all.
  const auto measure = [&](const std::vector<int64_t>& limits, int only) {
    double fastest = 0;  // seconds
    for (int round = 0; round < kRounds; round++) {
      pool.range(0).reset_by_node(limits.data(), 1);
      const auto start = std::chrono::steady_clock::now();
      pool.run([&](int thread) {
        if (only >= 0 && pool.team().node_of[static_cast<size_t>(thread)] != only) return;
        int64_t begin, end;
        while (pool.range(0).next(thread, begin, end))
          total.fetch_add(sum(region.data() + static_cast<size_t>(begin) * kPiece, static_cast<size_t>(end - begin) * kPiece), std::memory_order_relaxed);
      });
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      fastest = round == 0 ? seconds : std::min(fastest, seconds);
    }
    return static_cast<double>(limits.back() - limits.front()) * kPiece / fastest;
  };
  out.threads = pool.threads();
  out.bytes_per_second = measure(bounds, -1);
  out.nodes.clear();
  for (int node = 0; nodes > 1 && node < nodes; node++) {
    const int count = pool.team().first[static_cast<size_t>(node) + 1] - pool.team().first[static_cast<size_t>(node)];
    if (count == 0) continue;
    std::vector<int64_t> alone(static_cast<size_t>(nodes) + 1);
    for (int i = 0; i <= nodes; i++) alone[static_cast<size_t>(i)] = bounds[static_cast<size_t>(std::clamp(i, node, node + 1))];
    out.nodes.push_back({plan.system_node[static_cast<size_t>(node)], count, measure(alone, node)});
  }
  return {};
}

Status measure_peaks(int threads, std::vector<Peak>& out) {
  ensure_kernels();
  std::unique_ptr<CpuTeam> team;
  TANDEM_TRY(CpuTeam::create(threads, pthread_self(), team));
  ThreadPool& pool = team->pool();
  for (const char* name : {"avx2_int8", "avx2_f32", "avx512_int8", "avx512_f32", "avx512_bf16", "amx_int8", "amx_bf16"}) {
    const KernelFunction kernel = find_kernel("peak", name, available_isas().back());
    if (kernel == nullptr) continue;
    std::vector<float> operations(static_cast<size_t>(pool.threads()));
    const auto run = [&](int64_t rounds) {
      const auto start = std::chrono::steady_clock::now();
      pool.run([&](int thread) {
        StepContext context;
        context.inputs = {{nullptr, rounds, 0, 0}};
        context.outputs = {{&operations[static_cast<size_t>(thread)], 1, 1, 1}};
        (void)kernel(context);  // has nothing to fail at
      });
      return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    };
    run(1000);
    if (operations[0] == 0) continue;
    // Some milliseconds: long beside starting the threads, short beside a time slice that a neighbour may take.
    const int64_t rounds = static_cast<int64_t>(1e5 * std::clamp(5e-3 / run(100000), 1e-2, 1e4));
    double fastest = run(rounds);
    for (int round = 1; round < kRounds; round++) fastest = std::min(fastest, run(rounds));
    out.push_back({name, pool.threads(), static_cast<double>(rounds) * operations[0] * pool.threads() / fastest});
  }
  return {};
}

}  // namespace tandem
