// What changes from pass to pass, as kernels read it (kernels/arguments.h): row counts, positions, pages, ids, output rows. Written
// once a pass into pinned memory and copied to every GPU before anything else; where it lies never changes, so graphs do not.
//
// The pages of all sequences lie one after the other, and a row names the place of its sequence's first one (table stride 1).
#pragma once

#include <vector>

#include "core/batch.h"
#include "cuda/arena.h"
#include "cuda/device.h"

namespace tandem::cuda {

class PassHeader {
 public:
  // `context`: most positions of a sequence.
  struct Limits {
    int64_t max_rows = 0, max_outputs = 0, page_tokens = 1, context = 0;
  };
  explicit PassHeader(Limits limits);

  // For launches that take `chunk` rows at once: where the number of rows of the first lies, the others' follow. Before `allocate`.
  size_t reserve_chunks(int64_t chunk);
  Status allocate(const std::vector<Device*>& devices);

  // `dead`: per sequence, 1: its rows are skipped. Sequences of `tiles` rows and more go over tiles (0: none does).
  Status fill(const Batch& batch, const uint8_t* dead, int64_t tiles);
  // Gives the copies to a GPU's stream.
  Status send(size_t device, Stream& stream) const;

  // On a device, all in the same order.
  const int32_t* counts(size_t device, size_t index) const { return ints(device, index); }
  const int32_t* tokens(size_t device) const { return ints(device, kTokens); }
  const int32_t* outputs(size_t device) const { return ints(device, kOutputs); }
  const int32_t* tile_count(size_t device) const { return ints(device, kTileCount); }
  const int32_t* positions(size_t device) const { return ints(device, positions_); }
  const int32_t* owners(size_t device) const { return ints(device, owners_); }
  const int32_t* ids(size_t device) const { return ints(device, ids_); }
  const int32_t* rows_out(size_t device) const { return ints(device, rows_out_); }
  const int32_t* tiles(size_t device) const { return ints(device, tiles_); }
  const int32_t* pages(size_t device) const { return reinterpret_cast<const int32_t*>(parts_[device].arena.at(parts_[device].pages)); }
  // Indexed as `pages`: 1 at the first page of sequences that are skipped; of those, and of sequences that go over tiles.
  const uint8_t* dead(size_t device) const { return reinterpret_cast<const uint8_t*>(parts_[device].arena.at(parts_[device].dead)); }
  const uint8_t* dead_or_tiled(size_t device) const { return reinterpret_cast<const uint8_t*>(parts_[device].arena.at(parts_[device].tiled)); }

  // Of the pass filled in last: positions that its longest row sees, tiles, and whether some sequence does not go over them.
  int64_t context() const { return context_; }
  int64_t tiles_used() const { return tiles_used_; }
  bool has_untiled() const { return has_untiled_; }
  const Limits& limits() const { return limits_; }

 private:
  struct Part {
    Arena arena;
    size_t fixed = 0, pages = 0, dead = 0, tiled = 0;
  };
  struct Chunks {
    int64_t rows;
    size_t index;
  };
  static constexpr size_t kTokens = 0, kOutputs = 1, kTileCount = 2;
  const int32_t* ints(size_t device, size_t index) const { return reinterpret_cast<const int32_t*>(parts_[device].arena.at(parts_[device].fixed)) + index; }

  Limits limits_;
  size_t positions_, owners_, ids_, rows_out_, tiles_, fixed_;  // places in the first block, in numbers
  size_t most_pages_;
  std::vector<Chunks> chunks_;
  std::vector<Part> parts_;  // a device each
  Pinned staging_;           // the first block, pages, dead, tiled
  size_t pages_used_ = 0;
  int64_t context_ = 0, tiles_used_ = 0;
  bool has_untiled_ = false;
};

}  // namespace tandem::cuda
