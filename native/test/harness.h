// A test is a function that registers itself; a failed expectation prints its line and the run goes on.
#pragma once

#include <cstdio>
#include <string>
#include <vector>

namespace tandem::test {

struct Test {
  const char* name;
  void (*body)();
};
std::vector<Test>& tests();
void failed(const char* file, int line, const std::string& what);

struct Register {
  Register(const char* name, void (*body)()) { tests().push_back({name, body}); }
};

}  // namespace tandem::test

#define TEST(name)                                                            \
  static void test_##name();                                                  \
  static ::tandem::test::Register register_##name(#name, test_##name);        \
  static void test_##name()
#define EXPECT(condition)                                                     \
  do {                                                                        \
    if (!(condition)) ::tandem::test::failed(__FILE__, __LINE__, #condition); \
  } while (0)
#define EXPECT_OK(expression)                                                            \
  do {                                                                                   \
    const ::tandem::Status status_ = (expression);                                       \
    if (!status_.ok()) ::tandem::test::failed(__FILE__, __LINE__, status_.message());    \
  } while (0)
