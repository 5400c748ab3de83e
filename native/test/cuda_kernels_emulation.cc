// The emulation itself: what a kernel does wrong is told, and what it lacks shows.
#include "cuda/kernels/mma.cuh"
#include "test/cuda_kernels_support.h"

namespace tandem::test {

using namespace tandem::cuda;
using emulation::Order;

// Sum over a block by shared memory; `waits`: with the barrier that it needs.
static std::vector<int> neighbours(bool waits, Order order) {
  std::vector<int> out(128, -1);
  const std::string error = emulation::launch({2, 1, 1}, 64, [&] {
    __shared__ int memory[64];
    memory[threadIdx.x] = static_cast<int>(threadIdx.x + 100 * blockIdx.x);
    if (waits) __syncthreads();
    else __syncwarp();
    out[blockIdx.x * 64 + threadIdx.x] = memory[63 - threadIdx.x];
  }, order);
  EXPECT(error.empty());
  return out;
}

TEST(cuda_emulation_shows_a_missing_barrier) {
  for (Order order : {Order::forward, Order::backward, Order::shuffled}) {
    const std::vector<int> out = neighbours(true, order);
    for (int i = 0; i < 128; i++) EXPECT(out[static_cast<size_t>(i)] == 63 - i % 64 + 100 * (i / 64));
  }
  EXPECT(neighbours(false, Order::forward) != neighbours(false, Order::backward));
}

TEST(cuda_emulation_tells_who_does_not_arrive) {
  std::string error = emulation::launch({1, 1, 1}, 64, [] {
    if (threadIdx.x != 40) __syncthreads();
  });
  EXPECT(error.find("__syncthreads") != std::string::npos);
  error = emulation::launch({1, 1, 1}, 32, [] {
    if (threadIdx.x < 16) __shfl_xor_sync(kAllLanes, 1, 1);
    else __syncwarp();
  });
  EXPECT(error.find("same operation") != std::string::npos);
  alignas(16) static const uint8_t bytes[32] = {};
  error = emulation::launch({1, 1, 1}, 32, [] { load_16<16>(bytes + threadIdx.x); });
  EXPECT(error.find("aligned") != std::string::npos && error.find("thread 1") != std::string::npos);
  EXPECT(!emulation::launch({1, 1, 1}, 48, [] {}).empty());
  EXPECT(neighbours(true, Order::forward)[0] == 63);  // and the next launch begins anew
}

TEST(cuda_mma_is_a_product) {
  Random random(1);
  float a[16][16], b[16][8], d[16][8];
  for (auto& row : a) for (float& v : row) v = static_cast<float>(random.below(17) - 8);
  for (auto& row : b) for (float& v : row) v = static_cast<float>(random.below(17) - 8);
  const std::string error = emulation::launch({1, 1, 1}, 32, [&] {
    const int g = threadIdx.x / 4, q = threadIdx.x % 4 * 2;
    const uint32_t left[4] = {pack_bf16(a[g][q], a[g][q + 1]), pack_bf16(a[g + 8][q], a[g + 8][q + 1]), pack_bf16(a[g][q + 8], a[g][q + 9]), pack_bf16(a[g + 8][q + 8], a[g + 8][q + 9])};
    const uint32_t right[2] = {pack_bf16(b[q][g], b[q + 1][g]), pack_bf16(b[q + 8][g], b[q + 9][g])};
    float sums[4] = {1, 2, 3, 4};
    mma_bf16(sums, left, right);
    d[g][q] = sums[0] - 1, d[g][q + 1] = sums[1] - 2, d[g + 8][q] = sums[2] - 3, d[g + 8][q + 1] = sums[3] - 4;
  });
  EXPECT(error.empty());
  for (int r = 0; r < 16; r++) {
    for (int c = 0; c < 8; c++) {
      float sum = 0;
      for (int k = 0; k < 16; k++) sum += a[r][k] * b[k][c];
      EXPECT(d[r][c] == sum);
    }
  }
}

}  // namespace tandem::test
