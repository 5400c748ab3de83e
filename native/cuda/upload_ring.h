// Bytes of the machine to a GPU beside its passes: threads copy them into places of pinned memory, a stream of its own takes them
// from there, in order. A place is filled again when it has arrived; the stream says so by a word.
//
//     push(job)  →  threads: piece i into place i mod N  →  one thread: to the GPU's stream  →  word = i + 1
//
// By turns (`turn`): the passes' thread lets one piece go at a time, when nothing else waits behind it on the link.
// By itself: pieces are given as soon as they are filled.
//
// One thread gives to the driver, and holds no lock meanwhile: a call may be held up by another model of the process that gives memory
// back, which waits for all work of the card, so for a graph that waits for the passes' thread. `turn` calls no driver.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/device.h"

namespace tandem::cuda {

class UploadRing {
 public:
  struct Options {
    size_t places = 4, place_bytes = size_t{512} << 10;
    int threads = 1;
    bool by_itself = false;
  };
  // Bytes [offset, offset + bytes) of a job, by any thread. Must not fail.
  using Fill = std::function<void(size_t offset, size_t bytes, uint8_t* to)>;
  struct Job {
    Address to = 0;
    size_t bytes = 0;
    Fill fill;
    const Event* after = nullptr;  // recorded: what is there was used
    const Event* done = nullptr;   // recorded behind its last piece
  };

  UploadRing() = default;
  ~UploadRing();
  UploadRing(const UploadRing&) = delete;
  UploadRing& operator=(const UploadRing&) = delete;
  // OUT_OF_MEMORY with numbers.
  Status open(Device& device, const Options& options);

  void push(Job job);
  // By turns: the next piece may go, if one is filled and the one before has arrived.
  void turn();
  // Jobs pushed since `reset` that have arrived. The first error of either side. Not while a graph waits for the CPU.
  Status arrived(size_t& jobs);
  // Waits until so many were given. `alive` may end it.
  Status wait_given(size_t jobs, const std::function<Status()>& alive);
  // Drops what was not given, waits for the rest, and forgets errors. Not ok: the device is lost. Not while a graph waits for the CPU.
  Status reset();

  uint64_t uploaded_bytes() const;
  size_t pinned_bytes() const { return memory_.size(); }

 private:
  struct Piece {
    size_t job = 0, offset = 0, bytes = 0;
    bool filled = false;
  };
  struct Pending {
    Job job;
    size_t pieces = 0, first = 0;  // places in pieces_
  };
  void fill_pieces();
  void give_pieces();
  bool may_give() const;
  Status give(size_t index, const Piece& piece, const Pending& of);
  // Pieces that have arrived, by the stream's word.
  size_t landed() const { return __atomic_load_n(reinterpret_cast<const uint32_t*>(word_.data()), __ATOMIC_ACQUIRE); }

  Options options_;
  Pinned memory_, word_;
  Stream stream_;
  mutable std::mutex mutex_;
  std::condition_variable wake_, due_, told_;  // for those that fill, for the one that gives, for those that wait for it
  std::vector<std::thread> threads_;
  // Since `reset`.
  std::vector<Pending> jobs_;
  std::vector<Piece> pieces_;
  size_t claimed_ = 0, given_ = 0, jobs_given_ = 0;
  int filling_ = 0;
  bool closed_ = false, dropped_ = false, turn_ = false, giving_ = false;
  uint64_t bytes_ = 0;
  Status error_;
};

}  // namespace tandem::cuda
