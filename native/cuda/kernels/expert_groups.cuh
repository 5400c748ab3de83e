// Visits in the order of their experts, and tiles of up to 128 of them, by one block.
//
// Every warp has a run of visits that follow each other. It counts how many of them each expert has; the counts of all experts and warps are
// summed up, experts first; then each warp writes its visits to where they belong, 32 at a time, by how many before them have the same
// expert. The order is that of visits, whatever the order of threads. More experts than fit into the counts: in several rounds.
#pragma once

#include "cuda/kernels/arguments.h"
#include "cuda/kernels/dialect.cuh"

namespace tandem::cuda {

static constexpr int kGroupWarps = 8, kGroupExperts = 1024;  // of a round

struct ExpertCounts {
  int32_t visits[kGroupWarps][kGroupExperts];
  int32_t sums[2][kGroupWarps];
};

// Sums over all threads before this one, of two numbers; and over all.
static TANDEM_DEVICE void sums_before(int32_t (&memory)[2][kGroupWarps], const int32_t (&own)[2], int32_t (&before)[2], int32_t (&all)[2]) {
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  int32_t sums[2] = {own[0], own[1]};
  for (int step = 1; step < 32; step *= 2) {
    TANDEM_UNROLL
    for (int i = 0; i < 2; i++) {
      const int32_t left = __shfl_sync(kAllLanes, sums[i], lane - step);
      if (lane >= step) sums[i] += left;
    }
  }
  TANDEM_UNROLL
  for (int i = 0; i < 2; i++) {
    if (lane == 31) memory[i][warp] = sums[i];
  }
  __syncthreads();
  TANDEM_UNROLL
  for (int i = 0; i < 2; i++) {
    before[i] = sums[i] - own[i], all[i] = 0;
    for (int w = 0; w < kGroupWarps; w++) {
      if (w < warp) before[i] += memory[i][w];
      all[i] += memory[i][w];
    }
  }
  __syncthreads();
}

// 256 threads, one block.
static TANDEM_DEVICE void expert_groups(const ExpertGroupsArguments& a) {
  __shared__ ExpertCounts counts;
  const int thread = threadIdx.x, lane = thread & 31, warp = thread >> 5;
  const int64_t visits = *a.rows * a.topk, share = (visits + 32 * kGroupWarps - 1) / (32 * kGroupWarps) * 32;
  const int64_t begin = warp * share, end = begin + share < visits ? begin + share : visits;
  int32_t placed = 0, tiles = 0;  // of the rounds before
  if (thread == 0) a.offsets[0] = 0;
  for (int64_t base = 0; base < a.experts; base += kGroupExperts) {
    const int experts = static_cast<int>(a.experts - base < kGroupExperts ? a.experts - base : kGroupExperts);
    for (int e = thread; e < kGroupWarps * kGroupExperts; e += 32 * kGroupWarps) (&counts.visits[0][0])[e] = 0;
    __syncthreads();
    for (int64_t v = begin + lane; v < end; v += 32) {
      const int64_t e = a.ids[v] - base;
      if (e >= 0 && e < experts) atomicAdd(&counts.visits[warp][e], 1);
    }
    __syncthreads();
    // A thread has experts that follow each other.
    const int per = (experts + 32 * kGroupWarps - 1) / (32 * kGroupWarps), first = thread * per, last = first + per < experts ? first + per : experts;
    int32_t own[2] = {}, before[2], all[2];
    for (int e = first; e < last; e++) {
      int32_t count = 0;
      for (int w = 0; w < kGroupWarps; w++) count += counts.visits[w][e];
      own[0] += count, own[1] += (count + kExpertTile - 1) / kExpertTile;
    }
    sums_before(counts.sums, own, before, all);
    int32_t at = placed + before[0], tile = tiles + before[1];
    for (int e = first; e < last; e++) {
      const int32_t start = at;
      for (int w = 0; w < kGroupWarps; w++) {
        const int32_t count = counts.visits[w][e];
        counts.visits[w][e] = at;  // from now on where the warp's next visit goes
        at += count;
      }
      for (int32_t v = start; v < at; v += kExpertTile, tile++) {
        a.tiles[2 * tile] = static_cast<int32_t>(base + e);
        a.tiles[2 * tile + 1] = v;
      }
      a.offsets[base + e + 1] = at;
    }
    placed += all[0], tiles += all[1];
    __syncthreads();
    for (int64_t v = begin; v < end; v += 32) {
      const int64_t id = v + lane < end ? a.ids[v + lane] - base : -1;
      const bool here = id >= 0 && id < experts;
      const uint32_t same = __match_any_sync(kAllLanes, here ? static_cast<int32_t>(id) : -1);
      const int32_t place = here ? counts.visits[warp][id] : 0;
      __syncwarp();
      if (here) {
        const int earlier = __popc(same & ((1u << lane) - 1));
        a.order[place + earlier] = static_cast<int32_t>(v + lane);
        if (same >> lane == 1) counts.visits[warp][id] = place + earlier + 1;  // the last of them
      }
      __syncwarp();
    }
    __syncthreads();
  }
  if (thread == 0) *a.tile_count = tiles;
}

}  // namespace tandem::cuda
