#include "core/kernel.h"
#include "test/harness.h"

namespace tandem {

TEST(scratch_gives_each_its_own_memory) {
  Scratch scratch;
  uint8_t* a = static_cast<uint8_t*>(scratch.take(100));
  uint8_t* b = static_cast<uint8_t*>(scratch.take(3 << 20));
  uint8_t* c = static_cast<uint8_t*>(scratch.take(100));
  EXPECT(a != nullptr && b != nullptr && c != nullptr && a != c);
  EXPECT(reinterpret_cast<uintptr_t>(a) % 64 == 0 && reinterpret_cast<uintptr_t>(b) % 64 == 0 && reinterpret_cast<uintptr_t>(c) % 64 == 0);
  a[99] = b[0] = b[(3 << 20) - 1] = c[0] = 1;
}

// The scratch of attention grows with the context: a step of each token may need a little more than the one before.
TEST(scratch_does_not_keep_a_block_for_every_size) {
  Scratch scratch;
  size_t need = size_t{2} << 20;
  for (int pass = 0; pass < 500; pass++, need += 4096) {
    scratch.reset();
    EXPECT(scratch.take(1000) != nullptr && scratch.take(need) != nullptr);
  }
  EXPECT(scratch.capacity() < 4 * need);
}

}  // namespace tandem
