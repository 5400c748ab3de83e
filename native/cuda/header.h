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

  // A sequence of a pass that goes over tiles: where its pages begin, the positions its last row sees, its tiles.
  struct Tiled {
    int64_t place, context, first_tile, tiles;
  };
  // Rows that follow each other.
  struct Range {
    int64_t first, rows;
  };

  // For launches that take `chunk` rows at once: where the number of rows of the first lies, the others' follow. Before `allocate`.
  size_t reserve_chunks(int64_t chunk);
  // For launches that take a tiled sequence's context `positions` at once; sequences have `tiles` rows or more. Before `allocate`.
  size_t reserve_context(int64_t positions, int64_t tiles);
  Status allocate(const std::vector<Device*>& devices);
  // Of all devices.
  size_t bytes() const {
    size_t total = 0;
    for (const Part& part : parts_) total += part.arena.size();
    return total;
  }

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

  // Chunk `chunk` of the context of tiled sequence `sequence`: kernels/arguments.h, MlaChunkArguments, and after it how many tiles
  // the sequence has.
  const int32_t* context_chunk(size_t device, size_t reserved, size_t sequence, int64_t chunk) const {
    return ints(device, contexts_[reserved].index + (sequence * contexts_[reserved].most + static_cast<size_t>(chunk)) * kContextWords);
  }
  static constexpr size_t kContextWords = 5;

  // Of the pass filled in last: positions that its longest row sees, tiles, and the sequences that go over them and those that do not.
  int64_t context() const { return context_; }
  int64_t tiles_used() const { return tiles_used_; }
  const std::vector<Tiled>& tiled() const { return tiled_; }
  const std::vector<Range>& untiled() const { return untiled_; }
  bool has_untiled() const { return !untiled_.empty(); }
  // Where the pages of a row's sequence begin.
  int32_t owner(int64_t row) const { return reinterpret_cast<const int32_t*>(staging_.data())[owners_ + static_cast<size_t>(row)]; }
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
  struct Contexts {
    int64_t positions;
    size_t sequences, most, index;  // chunks of a sequence at most
  };
  static constexpr size_t kTokens = 0, kOutputs = 1, kTileCount = 2;
  const int32_t* ints(size_t device, size_t index) const { return reinterpret_cast<const int32_t*>(parts_[device].arena.at(parts_[device].fixed)) + index; }

  Limits limits_;
  size_t positions_, owners_, ids_, rows_out_, tiles_, fixed_;  // places in the first block, in numbers
  size_t most_pages_;
  std::vector<Chunks> chunks_;
  std::vector<Contexts> contexts_;
  size_t first_context_ = 0;  // where chunks of contexts begin, behind all that every pass has
  std::vector<Part> parts_;  // a device each
  Pinned staging_;           // the first block, pages, dead, tiled
  size_t pages_used_ = 0;
  int64_t context_ = 0, tiles_used_ = 0;
  std::vector<Tiled> tiled_;
  std::vector<Range> untiled_;
};

}  // namespace tandem::cuda
