#include "cpu/probe.h"

#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>

#include "core/memory.h"
#include "cpu/device.h"

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
  const int64_t pieces = static_cast<int64_t>(std::max(bytes / kPiece, size_t{1}));
  Region region;
  TANDEM_TRY(region.allocate(static_cast<size_t>(pieces) * kPiece, true, "measuring the read bandwidth"));
  std::unique_ptr<CpuTeam> team;
  TANDEM_TRY(CpuTeam::create(threads, pthread_self(), team));
  ThreadPool& pool = team->pool();
  // Written once: pages that were never written all read the one page of zeros.
  pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) {
    std::memset(region.data() + static_cast<size_t>(begin) * kPiece, 0x5a, static_cast<size_t>(end - begin) * kPiece);
  });
  std::atomic<uint64_t> total{0};  // used, so that no compiler drops the reading
  double fastest = 0;  // seconds
  for (int round = 0; round < kRounds; round++) {
    const auto start = std::chrono::steady_clock::now();
    pool.parallel_for(pieces, 1, [&](int64_t begin, int64_t end, int) {
      total.fetch_add(sum(region.data() + static_cast<size_t>(begin) * kPiece, static_cast<size_t>(end - begin) * kPiece), std::memory_order_relaxed);
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    fastest = round == 0 ? seconds : std::min(fastest, seconds);
  }
  out.threads = pool.threads();
  out.bytes_per_second = static_cast<double>(pieces) * kPiece / fastest;
  return {};
}

}  // namespace tandem
