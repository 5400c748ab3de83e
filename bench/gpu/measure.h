// What the parts of bench/gpu share: results as JSON, lines for people, launches that are timed as a graph.
#pragma once

#include <chrono>
#include <cstdio>
#include <functional>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "cuda/device.h"

namespace tandem::bench {

// Values of JSON are their text.
inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.5g", value);
  return value == value && value <= 1e300 && value >= -1e300 ? text : "null";
}
inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += static_cast<unsigned char>(c) < 32 ? ' ' : c;
  }
  return out + '"';
}
inline std::string object(std::initializer_list<std::pair<const char*, std::string>> fields) {
  std::string out;
  for (const auto& [key, value] : fields) out += (out.empty() ? "{" : ", ") + quoted(key) + ": " + value;
  return out.empty() ? "{}" : out + "}";
}
inline std::string array(const std::vector<std::string>& items, const char* between = ", ") {
  std::string out;
  for (const std::string& item : items) out += (out.empty() ? "" : between) + item;
  return "[" + out + "]";
}

// A line of the table; JSON is alone on stdout.
template <typename... Values> void say(const char* format, Values... values) {
  std::fprintf(stderr, format, values...);
  std::fputc('\n', stderr);
}
inline void say(const char* text) { std::fprintf(stderr, "%s\n", text); }

inline double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double median(std::vector<double> all);

// Until the stream has done all; a card that takes longer than `seconds` hangs.
Status finish(cuda::Stream& stream, double seconds = 30);

// Seconds of a piece of work that is given to the stream, with its end: the median of `rounds`, after one that is not counted.
Status time_work(cuda::Stream& stream, int rounds, const std::function<Status()>& work, double& seconds);

// Seconds of one launch among many in a graph, so many that the graph takes some milliseconds. `launch(stream, i)` gives the i-th: it
// takes other memory than those just before it, where a cache would hold that.
Status time_launches(cuda::Device& device, const std::function<Status(cuda::Stream&, int)>& launch, double& seconds);

// The rates that kernels are held against, a second: bytes of a copy on the card (read and written), and operations of bf16 of the matrix
// instruction in a loop that loads nothing (by the card's clocks where the driver does not take that loop).
struct Ceilings {
  double copy = 0, bf16 = 0;
};
Status measure_ceilings(cuda::Device& device, bool small, Ceilings& out);

// A module of text: kernels that only a measurement needs. Null where the driver has no compiler for it.
class Text {
 public:
  Status load(cuda::Device& device, const char* ptx, const char* name);
  cuda::FunctionHandle* function() const { return function_; }
  const std::string& problem() const { return problem_; }

 private:
  cuda::ModuleHandle* module_ = nullptr;  // lives as long as the context
  cuda::FunctionHandle* function_ = nullptr;
  std::string problem_;
};

// A call of the driver that Tandem does not use; null where it has none.
void* driver_call(const char* symbol);

}  // namespace tandem::bench
