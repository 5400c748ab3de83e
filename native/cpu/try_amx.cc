// Is the AMX unit what CPUID says? One product, under a guard against SIGILL.
//
// Instructions are written as assembly: this file is compiled for every processor.
#include "cpu/tiles.h"

#if defined(__x86_64__)

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>

#include <cstring>

namespace tandem {

namespace {

sigjmp_buf escape;
pthread_t trying;
struct sigaction before;

void on_illegal(int signal, siginfo_t* info, void* context) {
  if (pthread_equal(pthread_self(), trying)) siglongjmp(escape, 1);
  // Another thread's: as it would have been without us.
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(signal, info, context);
  } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
    before.sa_handler(signal);
  } else {
    sigaction(SIGILL, &before, nullptr);  // the instruction is tried again, and ends the process
  }
}

struct alignas(64) Config {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tile 0 += tile 1 · tile 2: a[m][k] = m + 1 everywhere, b = 1 in even and 2 in odd columns.
const char* product() {
  alignas(64) Config config;
  for (int t = 0; t < 3; t++) {
    config.row_bytes[t] = 64;
    config.rows[t] = 16;
  }
  alignas(64) uint16_t a[16][32], b[16][32];
  alignas(64) float c[16][16];
  const auto bf16 = [](float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return static_cast<uint16_t>(bits >> 16);
  };
  for (int r = 0; r < 16; r++) {
    for (int i = 0; i < 32; i++) {
      a[r][i] = bf16(static_cast<float>(r + 1));
      b[r][i] = bf16(static_cast<float>(1 + i % 2));
    }
    for (int i = 0; i < 16; i++) c[r][i] = static_cast<float>(i);
  }
  const int64_t stride = 64;
  asm volatile(
      "ldtilecfg %[config]\n\t"
      "tileloadd (%[c],%[stride],1), %%tmm0\n\t"
      "tileloadd (%[a],%[stride],1), %%tmm1\n\t"
      "tileloadd (%[b],%[stride],1), %%tmm2\n\t"
      "tdpbf16ps %%tmm2, %%tmm1, %%tmm0\n\t"
      "tilestored %%tmm0, (%[c],%[stride],1)\n\t"
      "tilerelease"
      :
      : [config] "m"(config), [a] "r"(a), [b] "r"(b), [c] "r"(c), [stride] "r"(stride)
      : "memory");
  for (int r = 0; r < 16; r++) {
    for (int i = 0; i < 16; i++) {
      if (c[r][i] != static_cast<float>(48 * (r + 1) + i)) return "the AMX unit gave a wrong product";
    }
  }
  return "";
}

}  // namespace

const char* try_amx() {
  struct sigaction action;
  std::memset(&action, 0, sizeof action);
  action.sa_sigaction = on_illegal;
  action.sa_flags = SA_SIGINFO;
  sigemptyset(&action.sa_mask);
  trying = pthread_self();
  if (sigaction(SIGILL, nullptr, &before) != 0 || sigaction(SIGILL, &action, nullptr) != 0) return "the AMX unit could not be tried";
  // `volatile`: lives across the jump.
  const char* volatile problem = "an AMX instruction was refused";
  if (sigsetjmp(escape, 1) == 0) problem = product();
  sigaction(SIGILL, &before, nullptr);
  return problem;
}

}  // namespace tandem

#else

namespace tandem {
const char* try_amx() { return "this processor is no x86-64"; }
}  // namespace tandem

#endif
