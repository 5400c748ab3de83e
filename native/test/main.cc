// The native test binary: `native_tests [PART-OF-A-NAME]`. Exit code 1 when an expectation failed.
#include <chrono>
#include <cstring>

#include "test/harness.h"

namespace tandem::test {

static int failures = 0;

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

void failed(const char* file, int line, const std::string& what) {
  if (failures++ < 20) std::printf("%s:%d: failed: %s\n", file, line, what.c_str());
}

}  // namespace tandem::test

int main(int count, char** arguments) {
  using namespace tandem::test;
  int run = 0;
  for (const Test& test : tests()) {
    if (count > 1 && std::strstr(test.name, arguments[1]) == nullptr) continue;
    const auto start = std::chrono::steady_clock::now();
    const int before = failures;
    test.body();
    run++;
    std::printf("%s %s (%.0f ms)\n", failures == before ? "ok    " : "FAILED", test.name,
                std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
    std::fflush(stdout);
  }
  std::printf("%d tests, %d failures\n", run, failures);
  return failures == 0 && run > 0 ? 0 : 1;
}
