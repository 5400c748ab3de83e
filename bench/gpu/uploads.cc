// Experts on their way to a card (decisions 016 and 017): pinned, pageable, through a ring of pinned places as `Upload` has it; and what
// pinning costs. Sizes: an expert of Qwen3-30B, one matrix of DeepSeek-V3 and a whole expert of it, q4_k.
#include <algorithm>
#include <cstring>
#include <vector>

#include "measure.h"
#include "pieces.h"

namespace tandem::bench {

using namespace cuda;

namespace {

// Bytes a second through two pinned places of `bytes`: one is filled while the other is on its way.
Status through_ring(Device& device, const uint8_t* from, Address to, size_t bytes, size_t pieces, double& rate) {
  struct Place {
    Pinned memory;
    Stream stream;
  };
  Place places[2];
  for (Place& place : places) {
    TANDEM_TRY(device.pin(bytes, "a ring", place.memory));
    TANDEM_TRY(device.stream(place.stream));
  }
  const auto all = [&]() -> Status {
    for (size_t i = 0; i < pieces; i++) {
      Place& place = places[i % 2];
      TANDEM_TRY(finish(place.stream));
      std::memcpy(place.memory.data(), from + i * bytes, bytes);
      TANDEM_TRY(place.stream.copy_in(to + i * bytes, place.memory.data(), bytes));
    }
    return finish(places[(pieces + 1) % 2].stream);
  };
  double seconds = 0;
  TANDEM_TRY(time_work(places[(pieces + 1) % 2].stream, 3, all, seconds));
  rate = static_cast<double>(bytes * pieces) / seconds;
  return {};
}

}  // namespace

Status uploads(Device& device, bool small, Pieces& pieces) {
  const std::vector<size_t> sizes = small ? std::vector<size_t>{4096} : std::vector<size_t>{2654208, 8257536, 24772608};
  const size_t total = small ? 1 << 16 : size_t{512} << 20;
  std::vector<uint8_t> pageable(total);
  for (size_t i = 0; i < total; i += 8) pageable[i] = static_cast<uint8_t>(i * 2654435761u >> 24);
  Pinned pinned;
  Memory memory;
  Stream stream;
  TANDEM_TRY(device.allocate(total, "experts", memory));
  TANDEM_TRY(device.stream(stream));
  const double start = now();
  TANDEM_TRY(device.pin(total, "experts", pinned));
  const double pinning = (now() - start) / static_cast<double>(total) * (1 << 30);
  say("pinning               %.2f s a GiB", pinning);
  pieces.tell("pinningSecondsAGiB", number(pinning));
  std::memcpy(pinned.data(), pageable.data(), total);
  for (const size_t bytes : sizes) {
    TANDEM_TRY(pieces.run(std::to_string(bytes) + " bytes", [&](Fields& found) -> Status {
      const size_t count = total / bytes;
      double seconds = 0, ring = 0, rates[2] = {};
      for (int kind = 0; kind < 2; kind++) {
        const uint8_t* const from = kind == 0 ? pinned.data() : pageable.data();
        const auto all = [&]() -> Status {
          for (size_t i = 0; i < count; i++) TANDEM_TRY(stream.copy_in(memory.get() + i * bytes, from + i * bytes, bytes));
          return {};
        };
        TANDEM_TRY(time_work(stream, 5, all, seconds));
        rates[kind] = static_cast<double>(bytes * count) / seconds;
      }
      TANDEM_TRY(through_ring(device, pageable.data(), memory.get(), bytes, count, ring));
      say("uploads of %5.1f MB    %.1f GB/s pinned, %.1f pageable, %.1f through a ring", static_cast<double>(bytes) / 1e6, rates[0] / 1e9, rates[1] / 1e9, ring / 1e9);
      found = {{"pinnedBytesPerSecond", number(rates[0])}, {"pageable", number(rates[1])}, {"ring", number(ring)}};
      return {};
    }));
  }
  return {};
}

}  // namespace tandem::bench
