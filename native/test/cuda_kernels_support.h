// What the tests of the GPU kernels share: random numbers, bounds, and a launch over the emulation in every order of threads.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "cuda/emulation/table.h"
#include "cuda/kernels/formats.h"
#include "cuda/kernels/shapes.h"
#include "test/harness.h"

namespace tandem::test {

// Deterministic; every test makes its own.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state_ ^= state_ << 13, state_ ^= state_ >> 7, state_ ^= state_ << 17;
    return state_ * 0x2545f4914f6cdd1du;
  }
  int64_t below(int64_t count) { return static_cast<int64_t>((next() >> 11) % static_cast<uint64_t>(count)); }
  float uniform() { return static_cast<float>(next() >> 40) * 0x1p-23f - 1.0f; }  // [−1, 1)
  std::vector<float> floats(int64_t count, float scale = 1) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& v : values) v = scale * uniform();
    return values;
  }

 private:
  uint64_t state_;
};

// A number that no kernel writes: what still holds it was not written, what lost it was written by mistake.
inline constexpr float kUntouched = -12345.678f;

// |y − ŷ| ≤ c·(ε·Σ|a·b| + ε·|ŷ|), non-finite values in the same places (src/ops/bound.ts).
inline bool within(double actual, double expected, double magnitude, double c = 16) {
  if (std::isnan(expected)) return std::isnan(actual);
  if (std::isinf(expected)) return actual == expected;
  return std::abs(actual - expected) <= 0x1p-110 + c * 0x1p-23 * (magnitude + std::abs(expected));
}

// Another place to run a kernel than the emulation (bench/gpu/kernels.cc); empty, or what went wrong.
inline std::string (*launch_elsewhere)(const char* name, cuda::Shape shape, const void* arguments, size_t bytes) = nullptr;

// Runs a kernel by name in all orders (elsewhere: as often); the outputs of all must have the same bits. False after a failure.
template <typename Arguments>
bool launch(const char* name, cuda::Shape shape, const Arguments& arguments, std::vector<float>& out) {
  using cuda::emulation::Order;
  const cuda::emulation::Entry* entry = cuda::emulation::find_entry(std::string("tandem_") + name);
  if (entry == nullptr || entry->argument_bytes != sizeof(Arguments)) {
    failed(__FILE__, __LINE__, std::string("no kernel ") + name + " with these arguments");
    return false;
  }
  const std::vector<float> before = out;
  std::vector<float> first;
  for (Order order : {Order::forward, Order::backward, Order::shuffled}) {
    std::memcpy(out.data(), before.data(), before.size() * sizeof(float));
    const std::string error = launch_elsewhere != nullptr ? launch_elsewhere(entry->name, shape, &arguments, sizeof arguments)
                                                          : entry->run({shape.x, shape.y, shape.z}, shape.threads, shape.shared, &arguments, order);
    if (!error.empty()) {
      failed(__FILE__, __LINE__, std::string(name) + ": " + error);
      return false;
    }
    if (order == Order::forward) first = out;
    else if (std::memcmp(first.data(), out.data(), out.size() * sizeof(float)) != 0) {
      failed(__FILE__, __LINE__, std::string(name) + " gives other bits when its threads run in another order");
      return false;
    }
  }
  return true;
}

inline void expect_that(bool condition, const char* file, int line, const std::string& what) {
  if (!condition) failed(file, line, what);
}
#define EXPECT_THAT(condition, what) ::tandem::test::expect_that((condition), __FILE__, __LINE__, (what))

}  // namespace tandem::test
