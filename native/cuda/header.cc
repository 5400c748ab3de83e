#include "cuda/header.h"

#include <algorithm>
#include <cstring>
#include <string>

namespace tandem::cuda {

namespace {

constexpr int64_t kTileRows = 64;
// Entries of page lists, all sequences together: 2^20 positions of 1024 sequences.
constexpr int64_t kMostPages = int64_t{1} << 24;

}  // namespace

PassHeader::PassHeader(Limits limits) : limits_(limits) {
  const size_t rows = static_cast<size_t>(limits.max_rows);
  positions_ = 4;
  owners_ = positions_ + rows;
  ids_ = owners_ + rows;
  rows_out_ = ids_ + rows;
  tiles_ = rows_out_ + static_cast<size_t>(limits.max_outputs);
  fixed_ = tiles_ + 2 * rows;
  const int64_t each = limits.context / limits.page_tokens + 1;
  most_pages_ = static_cast<size_t>(std::min(limits.max_rows * each, kMostPages));
}

size_t PassHeader::reserve_chunks(int64_t chunk) {
  for (const Chunks& known : chunks_)
    if (known.rows == chunk) return known.index;
  chunks_.push_back({chunk, fixed_});
  fixed_ += static_cast<size_t>((limits_.max_rows + chunk - 1) / chunk);
  return chunks_.back().index;
}

size_t PassHeader::reserve_context(int64_t positions, int64_t tiles) {
  const size_t sequences = static_cast<size_t>(limits_.max_rows / std::max<int64_t>(tiles, 1));
  for (Contexts& known : contexts_) {
    if (known.positions != positions) continue;
    known.sequences = std::max(known.sequences, sequences);
    return static_cast<size_t>(&known - contexts_.data());
  }
  contexts_.push_back({positions, sequences, static_cast<size_t>((limits_.context + positions - 1) / positions), 0});
  return contexts_.size() - 1;
}

Status PassHeader::allocate(const std::vector<Device*>& devices) {
  first_context_ = fixed_;
  for (Contexts& contexts : contexts_) {
    contexts.index = fixed_;
    fixed_ += contexts.sequences * contexts.most * kContextWords;
  }
  parts_.resize(devices.size());
  for (size_t d = 0; d < devices.size(); d++) {
    Part& part = parts_[d];
    part.fixed = part.arena.reserve(fixed_ * 4);
    part.pages = part.arena.reserve(most_pages_ * 4);
    part.dead = part.arena.reserve(most_pages_);
    part.tiled = part.arena.reserve(most_pages_);
    TANDEM_TRY(part.arena.allocate(*devices[d], "what a pass is told"));
  }
  return devices[0]->pin(fixed_ * 4 + most_pages_ * 6, "what a pass is told", staging_);
}

Status PassHeader::fill(const Batch& batch, const uint8_t* dead, int64_t tiles) {
  int32_t* const fixed = reinterpret_cast<int32_t*>(staging_.data());
  int32_t* const pages = fixed + fixed_;
  uint8_t* const skipped = reinterpret_cast<uint8_t*>(pages + most_pages_);
  uint8_t* const untiled = skipped + most_pages_;
  const int64_t rows = static_cast<int64_t>(batch.tokens.size());
  fixed[kTokens] = static_cast<int32_t>(rows);
  fixed[kOutputs] = static_cast<int32_t>(batch.outputs.size());
  std::copy(batch.positions.begin(), batch.positions.end(), fixed + positions_);
  std::copy(batch.tokens.begin(), batch.tokens.end(), fixed + ids_);
  for (size_t o = 0; o < batch.outputs.size(); o++) fixed[rows_out_ + o] = static_cast<int32_t>(batch.outputs[o].row);
  for (const Chunks& chunk : chunks_)
    for (int64_t first = 0, j = 0; first < limits_.max_rows; first += chunk.rows, j++)
      fixed[chunk.index + static_cast<size_t>(j)] = static_cast<int32_t>(std::clamp<int64_t>(rows - first, 0, chunk.rows));
  pages_used_ = 0;
  context_ = tiles_used_ = 0;
  tiled_.clear();
  untiled_.clear();
  for (size_t s = 0; s < batch.sequences.size(); s++) {
    const Sequence& sequence = batch.sequences[s];
    const int64_t context = sequence.first_position + sequence.rows;
    if (context > limits_.context)
      return Status(Code::request_invalid, "[native] a sequence on a GPU has up to " + std::to_string(limits_.context) + " positions; one of the pass has " + std::to_string(context) + "; load with a longer context");
    const size_t used = static_cast<size_t>((context + limits_.page_tokens - 1) / limits_.page_tokens);
    const size_t count = std::max<size_t>(std::min(used, sequence.pages.size()), 1);
    if (pages_used_ + count > most_pages_)
      return Status(Code::request_invalid, "[native] the pages of all sequences of a pass fit into " + std::to_string(most_pages_) + " places on a GPU; " +
                                               std::to_string(batch.sequences.size()) + " sequences need more; run fewer at once");
    for (size_t i = 0; i < count; i++) pages[pages_used_ + i] = i < sequence.pages.size() ? sequence.pages[i] : 0;
    const bool tiled = tiles > 0 && sequence.rows >= tiles;
    skipped[pages_used_] = dead[s];
    untiled[pages_used_] = dead[s] != 0 || tiled;
    const bool adjacent = !untiled_.empty() && untiled_.back().first + untiled_.back().rows == sequence.first_row;
    if (tiled) tiled_.push_back({static_cast<int64_t>(pages_used_), context, tiles_used_, (sequence.rows + kTileRows - 1) / kTileRows});
    else if (adjacent) untiled_.back().rows += sequence.rows;
    else untiled_.push_back({sequence.first_row, sequence.rows});
    std::fill_n(fixed + owners_ + static_cast<size_t>(sequence.first_row), static_cast<size_t>(sequence.rows), static_cast<int32_t>(pages_used_));
    for (int64_t first = 0; tiled && first < sequence.rows; first += kTileRows) {
      int32_t* const tile = fixed + tiles_ + 2 * static_cast<size_t>(tiles_used_++);
      tile[0] = static_cast<int32_t>(sequence.first_row + first);
      tile[1] = static_cast<int32_t>(std::min(kTileRows, sequence.rows - first));
    }
    context_ = std::max(context_, context);
    pages_used_ += count;
  }
  fixed[kTileCount] = static_cast<int32_t>(tiles_used_);
  for (const Contexts& contexts : contexts_) {
    for (size_t s = 0; s < std::min(tiled_.size(), contexts.sequences); s++) {
      const Tiled& sequence = tiled_[s];
      int32_t* to = fixed + contexts.index + s * contexts.most * kContextWords;
      for (int64_t first = 0; first < sequence.context; first += contexts.positions, to += kContextWords) {
        const int64_t positions = std::min(contexts.positions, sequence.context - first);
        to[0] = static_cast<int32_t>(sequence.place), to[1] = static_cast<int32_t>(first), to[2] = static_cast<int32_t>(positions);
        to[3] = first + positions == sequence.context, to[4] = static_cast<int32_t>(sequence.tiles);
      }
    }
  }
  return {};
}

Status PassHeader::send(size_t device, Stream& stream) const {
  const Part& part = parts_[device];
  const uint8_t* const fixed = staging_.data();
  const uint8_t* const pages = fixed + fixed_ * 4;
  TANDEM_TRY(stream.copy_in(part.arena.at(part.fixed), fixed, first_context_ * 4));
  for (const Contexts& contexts : contexts_) {
    const size_t used = std::min(tiled_.size(), contexts.sequences) * contexts.most * kContextWords * 4;
    if (used > 0) TANDEM_TRY(stream.copy_in(part.arena.at(part.fixed) + contexts.index * 4, fixed + contexts.index * 4, used));
  }
  TANDEM_TRY(stream.copy_in(part.arena.at(part.pages), pages, pages_used_ * 4));
  TANDEM_TRY(stream.copy_in(part.arena.at(part.dead), pages + most_pages_ * 4, pages_used_));
  return stream.copy_in(part.arena.at(part.tiled), pages + most_pages_ * 5, pages_used_);
}

}  // namespace tandem::cuda
