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

// Four sums, so that no addition waits for the one before.
uint64_t sum(const uint8_t* data, size_t bytes) {
  uint64_t sums[4] = {0, 0, 0, 0};
  for (size_t at = 0; at + 32 <= bytes; at += 32) {
    uint64_t words[4];
    std::memcpy(words, data + at, 32);
    for (int i = 0; i < 4; i++) sums[i] += words[i];
  }
  return sums[0] + sums[1] + sums[2] + sums[3];
}

}  // namespace

Status measure_read_bandwidth(int threads, size_t bytes, Bandwidth& out) {
  const int64_t pieces = static_cast<int64_t>(std::max(bytes / kPiece, size_t{1}));
  Region region;
  TANDEM_TRY(region.allocate(static_cast<size_t>(pieces) * kPiece, true, "measuring the read bandwidth"));
  CpuTeam team(threads, pthread_self());
  ThreadPool& pool = team.pool();
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
