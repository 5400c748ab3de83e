#include "cuda/upload_ring.h"

#include <algorithm>
#include <chrono>
#include <string>

namespace tandem::cuda {

namespace {

// Until a place is looked at again.
constexpr auto kLook = std::chrono::microseconds(200);

}  // namespace

UploadRing::~UploadRing() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  wake_.notify_all();
  due_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  if (stream_) (void)reset();  // nothing reads the places any more
}

Status UploadRing::open(Device& device, const Options& options) {
  options_ = options;
  TANDEM_TRY(device.pin(options.places * options.place_bytes, "the buffers of uploads", memory_));
  TANDEM_TRY(device.pin(sizeof(uint32_t), "the word of uploads", word_));
  TANDEM_TRY(device.stream(stream_));
  for (int i = 0; i < options.threads; i++) threads_.emplace_back([this] { fill_pieces(); });
  threads_.emplace_back([this] { give_pieces(); });
  return {};
}

void UploadRing::push(Job job) {
  {
    std::lock_guard lock(mutex_);
    const size_t number = jobs_.size(), first = pieces_.size();
    for (size_t at = 0; at < job.bytes; at += options_.place_bytes) pieces_.push_back({number, at, std::min(options_.place_bytes, job.bytes - at), false});
    jobs_.push_back({std::move(job), pieces_.size() - first, first});
  }
  wake_.notify_all();
}

void UploadRing::fill_pieces() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (closed_) return;
    const bool wanted = !dropped_ && error_.ok() && claimed_ < pieces_.size();
    if (!wanted) {
      wake_.wait(lock);
      continue;
    }
    if (claimed_ >= landed() + options_.places) {
      wake_.wait_for(lock, kLook);
      continue;
    }
    const size_t index = claimed_++;
    const Piece piece = pieces_[index];
    const Fill fill = jobs_[piece.job].job.fill;
    filling_++;
    lock.unlock();
    fill(piece.offset, piece.bytes, memory_.data() + index % options_.places * options_.place_bytes);
    lock.lock();
    filling_--;
    if (!dropped_) pieces_[index].filled = true;
    if (may_give()) due_.notify_one();
    told_.notify_all();
  }
}

bool UploadRing::may_give() const {
  return !dropped_ && error_.ok() && given_ < pieces_.size() && pieces_[given_].filled && (options_.by_itself || turn_);
}

void UploadRing::give_pieces() {
  std::unique_lock lock(mutex_);
  for (;;) {
    due_.wait(lock, [this] { return closed_ || may_give(); });
    if (closed_) return;
    const size_t index = given_;
    const Piece piece = pieces_[index];
    const Pending of = jobs_[piece.job];
    giving_ = true;
    lock.unlock();
    const Status status = give(index, piece, of);
    lock.lock();
    giving_ = turn_ = false;
    error_ = status;
    if (status.ok()) {
      given_++;
      bytes_ += piece.bytes;
      if (given_ == of.first + of.pieces) jobs_given_++;
    }
    told_.notify_all();
  }
}

Status UploadRing::give(size_t index, const Piece& piece, const Pending& of) {
  if (index == of.first && of.job.after != nullptr) TANDEM_TRY(stream_.wait(*of.job.after));
  TANDEM_TRY(stream_.copy_in(of.job.to + piece.offset, memory_.data() + index % options_.places * options_.place_bytes, piece.bytes));
  TANDEM_TRY(stream_.write_value(word_.address(), static_cast<uint32_t>(index + 1)));
  if (index + 1 < of.first + of.pieces || of.job.done == nullptr) return {};
  return stream_.record(*of.job.done);
}

void UploadRing::turn() {
  std::lock_guard lock(mutex_);
  if (giving_ || given_ != landed() || given_ == pieces_.size() || !pieces_[given_].filled) return;
  turn_ = true;
  due_.notify_one();
}

Status UploadRing::arrived(size_t& jobs) {
  std::unique_lock lock(mutex_);
  told_.wait(lock, [this] { return !giving_; });
  const size_t there = landed();
  if (error_.ok() && there < given_) {
    bool done = false;
    error_ = stream_.query(done);  // tells what went wrong meanwhile
  }
  jobs = 0;
  while (jobs < jobs_.size() && jobs_[jobs].first + jobs_[jobs].pieces <= there) jobs++;
  return error_;
}

Status UploadRing::wait_given(size_t jobs, const std::function<Status()>& alive) {
  std::unique_lock lock(mutex_);
  while (error_.ok() && jobs_given_ < jobs) {
    if (told_.wait_for(lock, std::chrono::milliseconds(1)) == std::cv_status::no_timeout) continue;
    lock.unlock();
    if (alive) TANDEM_TRY(alive());
    lock.lock();
  }
  return error_;
}

Status UploadRing::reset() {
  std::unique_lock lock(mutex_);
  dropped_ = true;
  told_.wait(lock, [this] { return filling_ == 0 && !giving_; });
  const auto end = std::chrono::steady_clock::now() + kSettle;
  const Status hangs(Code::native_failed, "[native] uploads end when a pass does; they did not within " + std::to_string(kSettle.count() / 1000) + " s; look at nvidia-smi and dmesg");
  const Status status = stream_.finish([&] { return std::chrono::steady_clock::now() < end ? Status() : hangs; });
  if (!status.ok() && status.message() == hangs.message()) stream_.device().give_up(hangs);
  __atomic_store_n(reinterpret_cast<uint32_t*>(word_.data()), 0u, __ATOMIC_RELEASE);
  jobs_.clear();
  pieces_.clear();
  claimed_ = given_ = jobs_given_ = 0;
  error_ = {};
  dropped_ = turn_ = false;
  return status;
}

uint64_t UploadRing::uploaded_bytes() const {
  std::lock_guard lock(mutex_);
  return bytes_;
}

}  // namespace tandem::cuda
