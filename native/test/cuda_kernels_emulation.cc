// The emulation itself: what a kernel does wrong is told, and what it lacks shows.
#include "cuda/kernels/mma.cuh"
#include "cuda/kernels/shared.cuh"
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

// Words that come by asynchronous copies, two groups of 512 bytes; `left`: of the groups, how many the first reading does not wait for.
template <int left>
static std::vector<uint32_t> copied(Order order, bool waits, bool barrier) {
  std::vector<uint32_t> out(256, 1);
  alignas(16) static uint32_t from[256];
  for (uint32_t i = 0; i < 256; i++) from[i] = i + 1;
  const std::string error = emulation::launch({1, 1, 1}, 64, [&] {
    uint32_t* const memory = dynamic_shared<uint32_t>();
    const unsigned thread = threadIdx.x;
    for (unsigned group = 0; group < 2; group++) {
      if (thread < 32) cp_async_16(memory + 128 * group + 4 * thread, from + 128 * group + 4 * thread, thread != 5);
      cp_async_commit();
    }
    if (waits) cp_async_wait<left>();
    if (barrier) __syncthreads();
    else __syncwarp();
    for (unsigned i = thread; i < 256; i += 64) out[i] = memory[i];
  }, order, 1024);
  EXPECT(error.empty());
  return out;
}

TEST(cuda_emulation_copies_when_waited_for) {
  for (Order order : {Order::forward, Order::backward, Order::shuffled}) {
    const std::vector<uint32_t> all = copied<0>(order, true, true), first = copied<1>(order, true, true), none = copied<0>(order, false, true);
    for (uint32_t i = 0; i < 256; i++) {
      const uint32_t want = i % 128 / 4 == 5 ? 0 : i + 1;
      EXPECT(all[i] == want && first[i] == (i < 128 ? want : 0xffffffffu) && none[i] == 0xffffffffu);
    }
  }
  EXPECT(copied<0>(Order::backward, true, false) != copied<0>(Order::forward, true, false));  // other threads' copies need a barrier
}

TEST(cuda_dynamic_shared_memory_is_of_the_launch) {
  float first = 0, last = 0;
  std::string error = emulation::launch({1, 1, 1}, 32, [&] {
    float* const memory = dynamic_shared<float>();
    if (threadIdx.x == 0) first = memory[0], last = memory[49999];
  }, Order::forward, 200000);
  EXPECT(error.empty() && std::isnan(first) && std::isnan(last));  // of no use before it is written
  error = emulation::launch({1, 1, 1}, 32, [] { dynamic_shared<float>(); });
  EXPECT(error.find("launched with some") != std::string::npos);
  error = emulation::launch({1, 1, 1}, 32, [] { cp_async_16(dynamic_shared<uint8_t>() + 8, nullptr, false); }, Order::forward, 64);
  EXPECT(error.find("aligned") != std::string::npos);
}

TEST(cuda_ldmatrix_gives_fragments) {
  const auto element = [](int r, int c) { return static_cast<uint32_t>(100 * r + c); };
  bool same = true;
  const std::string error = emulation::launch({1, 1, 1}, 32, [&] {
    __shared__ uint16_t memory[32][24];
    const int lane = threadIdx.x, g = lane / 4, q = lane % 4;
    for (int c = 0; c < 8; c++) memory[lane][c] = static_cast<uint16_t>(element(lane, c));
    __syncwarp();
    uint32_t four[4], turned[4], two[2], turned_two[2];
    ldmatrix(four, memory[lane]);
    ldmatrix_transposed(turned, memory[lane]);
    ldmatrix(two, lane < 16 ? memory[lane] : nullptr);
    ldmatrix_transposed(turned_two, lane < 16 ? memory[lane] : nullptr);
    for (int m = 0; m < 4; m++) {
      const uint32_t word = element(8 * m + g, 2 * q) | element(8 * m + g, 2 * q + 1) << 16;
      const uint32_t column = element(8 * m + 2 * q, g) | element(8 * m + 2 * q + 1, g) << 16;
      same = same && four[m] == word && turned[m] == column;
      if (m < 2) same = same && two[m] == word && turned_two[m] == column;
    }
  });
  EXPECT(error.empty() && same);
}

}  // namespace tandem::test
