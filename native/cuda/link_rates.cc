#include "cuda/link_rates.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "cuda/device.h"

namespace tandem::cuda {

namespace {

using Clock = std::chrono::steady_clock;

// More than any cache of a card; of a full card an eighth of what is free.
constexpr size_t kBytes = size_t{256} << 20, kLeastBytes = size_t{1} << 20, kUploadBytes = size_t{64} << 20;
// Neighbours come and go: the fastest of some rounds counts.
constexpr auto kTime = std::chrono::milliseconds(40);
constexpr int kLeastRounds = 3;

template <typename Give> Status time(Stream& stream, size_t bytes, double& rate, const Give& give) {
  TANDEM_TRY(give());
  TANDEM_TRY(stream.finish_alone("a copy that is measured"));
  const auto begin = Clock::now();
  for (int round = 0; round < kLeastRounds || Clock::now() - begin < kTime; round++) {
    const auto start = Clock::now();
    TANDEM_TRY(give());
    TANDEM_TRY(stream.finish_alone("a copy that is measured"));
    rate = std::max(rate, static_cast<double>(bytes) / std::chrono::duration<double>(Clock::now() - start).count());
  }
  return {};
}

}  // namespace

Status measure_links(int ordinal, const KernelFile& kernels, LinkRates& out) {
  std::unique_ptr<Device> device;
  TANDEM_TRY(Device::open(ordinal, kernels, device));
  size_t free = 0;
  TANDEM_TRY(device->free_memory(free));
  const size_t bytes = std::clamp(free / 8 / kLeastBytes * kLeastBytes, kLeastBytes, kBytes), upload = std::min(bytes, kUploadBytes);
  Stream stream;
  Memory from, to;
  Pinned pinned;
  TANDEM_TRY(device->stream(stream));
  TANDEM_TRY(device->allocate(bytes, "bytes to measure copies with", from));
  TANDEM_TRY(device->allocate(bytes, "bytes to measure copies with", to));
  TANDEM_TRY(device->pin(upload, "bytes to measure copies with", pinned));
  const std::vector<uint8_t> pageable(upload, 1);
  TANDEM_TRY(stream.fill(from.get(), 1, bytes));
  TANDEM_TRY(time(stream, 2 * bytes, out.copy, [&] { return stream.copy_within(to.get(), from.get(), bytes); }));
  TANDEM_TRY(time(stream, upload, out.pinned, [&] { return stream.copy_in(to.get(), pinned.data(), upload); }));
  return time(stream, upload, out.pageable, [&] { return stream.copy_in(to.get(), pageable.data(), upload); });
}

}  // namespace tandem::cuda
