#include <thread>

#include "cuda/mailbox.h"
#include "test/harness.h"

namespace tandem::cuda {

namespace {

// What a stream does with the words, on a thread: posts sections in turn, waits for the answers of `behind` sections before.
struct FakeStream {
  alignas(128) uint8_t memory[Mailbox::kBytes] = {};
  uint32_t* word(size_t offset) { return reinterpret_cast<uint32_t*>(memory + offset); }
  void post(uint32_t n) { __atomic_store_n(word(Mailbox::posted_offset(n)), n, __ATOMIC_RELEASE); }
  bool answered(uint32_t n) { return static_cast<int32_t>(__atomic_load_n(word(Mailbox::done_offset(n)), __ATOMIC_ACQUIRE) - n) >= 0; }
  void wait(uint32_t n) {
    while (!answered(n)) std::this_thread::yield();
  }
};

}  // namespace

TEST(cuda_mailbox_hands_over_in_turn) {
  for (const uint32_t behind : {0u, 1u}) {  // 1: deferral
    FakeStream gpu;
    Mailbox mailbox(gpu.memory);
    constexpr uint32_t kSections = 50;
    int question[2] = {}, answer[2] = {};
    long sum = 0;
    for (int pass = 0; pass < 3; pass++) {
      mailbox.begin();
      std::thread stream([&] {
        for (uint32_t n = 1; n <= kSections + behind; n++) {
          if (n <= kSections) {
            question[n % 2] = static_cast<int>(n);
            gpu.post(n);
          }
          if (n <= behind) continue;
          gpu.wait(n - behind);
          sum += answer[(n - behind) % 2];
        }
      });
      for (uint32_t n = 1; n <= kSections; n++) {
        EXPECT_OK(mailbox.take(n, {}));
        answer[n % 2] = question[n % 2] * 3;
        mailbox.done(n);
      }
      stream.join();
    }
    EXPECT(sum == 3L * 3 * kSections * (kSections + 1) / 2);
    EXPECT_OK(mailbox.status());
  }
}

TEST(cuda_mailbox_ends_where_the_gpu_stalls) {
  FakeStream gpu;
  Mailbox mailbox(gpu.memory);
  Mailbox::Watch watch;
  watch.limit = std::chrono::milliseconds(20);
  const Status status = mailbox.take(1, watch);
  EXPECT(status.code() == Code::native_failed && status.message().find("handed nothing over for 20 ms (section 1)") != std::string::npos);
  int asked = 0;
  watch.alive = [&] { return ++asked == 3 ? Status(Code::disposed, "gone") : Status(); };
  watch.limit = std::chrono::hours(1);
  EXPECT(mailbox.take(1, watch).code() == Code::disposed);
}

TEST(cuda_mailbox_abort_frees_both_sides) {
  FakeStream gpu;
  Mailbox mailbox(gpu.memory);
  std::thread stream([&] {
    for (const uint32_t n : {1u, 2u, 1000000u}) gpu.wait(n);
  });
  std::thread other([&] { mailbox.abort(Status(Code::out_of_memory, "first")); });
  const Status status = mailbox.take(1, {});
  other.join();
  mailbox.abort(Status(Code::aborted, "second"));
  stream.join();
  EXPECT(status.code() == Code::out_of_memory && mailbox.status().message() == "first");
  mailbox.done(2);
  EXPECT(gpu.answered(3));  // what was released stays so
  mailbox.begin();
  EXPECT(mailbox.status().ok() && !gpu.answered(1));
  gpu.post(1);
  EXPECT_OK(mailbox.take(1, {}));
}

TEST(cuda_mailbox_notices_a_skipped_section) {
  FakeStream gpu;
  Mailbox mailbox(gpu.memory);
  gpu.post(3);
  EXPECT(mailbox.take(1, {}).message().find("section 3 came where 1 was due") != std::string::npos);
}

}  // namespace tandem::cuda
