// Hand-over between a GPU and the CPU in the middle of a pass: words in memory that both see, nothing else. What is handed
// over lies in buffers of the pass; the words say when.
//
//     GPU, a stream                          CPU, the thread of the pass
//     copies to pinned memory
//     posted[lane] = n                  →    take(n): spins, then gives way, then sleeps
//     goes on with what needs no answer      computes
//     waits until done[lane] >= n       ←    done(n)
//     copies back
//
// Sections are numbered from 1 in each pass and the words go back to 0 between passes, so a captured graph, whose numbers are
// constants, serves every pass. Two lanes by parity let section n + 1 be posted before the answer of n is fetched (deferral); n + 2
// waits for n. An error on either side ends the pass: `abort` lets everything that waits go on, and `take` gives the reason.
// Knows no driver: who writes the other side's words is not its business.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>

#include "core/status.h"

namespace tandem::cuda {

class Mailbox {
 public:
  static constexpr uint32_t kLanes = 2;
  static constexpr size_t kLine = 128;  // a word has a line of its own: two sides never write the same one
  static constexpr size_t kBytes = kLanes * 2 * kLine;
  // Above every number, and in the half that comes after all of them where words are compared by (int32)(word - n) >= 0.
  static constexpr uint32_t kReleased = uint32_t{1} << 30;

  // Where the words of section n lie.
  static size_t posted_offset(uint32_t n) { return n % kLanes * 2 * kLine; }
  static size_t done_offset(uint32_t n) { return posted_offset(n) + kLine; }

  // `memory`: kBytes, aligned to kLine; outlives this.
  explicit Mailbox(uint8_t* memory) : memory_(memory) { begin(); }

  // Between passes, when neither side waits.
  void begin();

  struct Watch {
    // Asked now and then while nothing comes; not ok: the other side is gone, or nobody wants the pass any more.
    std::function<Status()> alive;
    // A card that answers nothing for so long hangs.
    std::chrono::milliseconds limit{60000};
  };
  // Until section n is posted. Not ok: `alive` said so, the limit passed, the pass was aborted, or n was skipped.
  Status take(uint32_t n, const Watch& watch);
  // All before it was written.
  void done(uint32_t n);
  // Keeps the first reason. Any thread.
  void abort(Status why);
  // Why it was aborted; ok where it was not.
  Status status() const;

 private:
  uint32_t* word(size_t offset) const { return reinterpret_cast<uint32_t*>(memory_ + offset); }
  uint8_t* memory_;
  std::atomic<bool> aborted_{false};
  mutable std::mutex mutex_;
  Status why_;
};

}  // namespace tandem::cuda
