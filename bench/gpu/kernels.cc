// The tests of the GPU kernels (native/test/cuda_kernels_*.cc) on a card: `gpu_kernels KERNELS VERSION [PARTS,OF,NAMES]`. The same cases and
// bounds as over the emulation; every launch goes to the card three times and has to give the same bits each time.
//
// The tests know plain pointers alone. So all their memory, the stack too, lies in one pinned piece, which the card reads and
// writes at the same addresses.
#include <pthread.h>

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <sstream>

#include "cuda/device.h"
#include "measure.h"
#include "pieces.h"
#include "test/cuda_kernels_support.h"

namespace {

constexpr size_t kPinned = size_t{1} << 29, kStack = size_t{8} << 20;
constexpr double kSeconds = 20;  // of a launch

// Places of powers of two, given back into lists. Only the thread of the tests takes from it.
class Pool {
 public:
  void open(uint8_t* begin, uint8_t* end) { next_ = begin_ = begin, end_ = end; }
  void* take(size_t bytes) {
    const std::lock_guard lock(mutex_);
    const int kind = kind_of(bytes);
    if (free_[kind] != nullptr) {
      void* const found = free_[kind];
      std::memcpy(&free_[kind], found, sizeof(void*));
      return found;
    }
    const size_t size = kHead + (size_t{1} << kind);
    if (next_ == nullptr || static_cast<size_t>(end_ - next_) < size) return nullptr;
    std::memcpy(next_, &kind, sizeof kind);
    void* const given = next_ + kHead;
    next_ += size;
    return given;
  }
  bool holds(const void* at) const { return begin_ != nullptr && at >= begin_ && at < end_; }
  bool give_back(void* at) {
    if (!holds(at)) return false;
    uint8_t* const place = static_cast<uint8_t*>(at);
    const std::lock_guard lock(mutex_);
    int kind;
    std::memcpy(&kind, place - kHead, sizeof kind);
    std::memcpy(place, &free_[kind], sizeof(void*));
    free_[kind] = at;
    return true;
  }

 private:
  static constexpr size_t kHead = 16;
  static int kind_of(size_t bytes) {
    int kind = 4;
    while ((size_t{1} << kind) < bytes) kind++;
    return kind;
  }
  std::mutex mutex_;
  uint8_t *begin_ = nullptr, *next_ = nullptr, *end_ = nullptr;
  void* free_[48] = {};
};

Pool& pool() {
  static Pool& one = *static_cast<Pool*>(new (std::malloc(sizeof(Pool))) Pool);
  return one;
}
thread_local bool in_tests = false;

}  // namespace

void* operator new(size_t bytes) {
  void* const at = in_tests ? pool().take(bytes == 0 ? 1 : bytes) : std::malloc(bytes == 0 ? 1 : bytes);
  if (at == nullptr) throw std::bad_alloc();
  return at;
}
void operator delete(void* at) noexcept {
  if (at != nullptr && !pool().give_back(at)) std::free(at);
}
void operator delete(void* at, size_t) noexcept { operator delete(at); }

namespace tandem::test {

// Of the test that runs: how many expectations failed, and what the first of them said.
static int failures = 0;
static std::string first;

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

void failed(const char* file, int line, const std::string& what) {
  in_tests = false;  // what is kept outlives the memory of tests
  const char* const name = std::strrchr(file, '/');
  const std::string text = std::string(name == nullptr ? file : name + 1) + ":" + std::to_string(line) + ": " + what;
  if (failures++ == 0) first = text;
  if (failures <= 4) std::fprintf(stderr, "%s\n", text.c_str());
  in_tests = true;
}

}  // namespace tandem::test

namespace tandem::bench {

using namespace cuda;

namespace {

struct Run {
  KernelFile kernels;
  std::string part;
  Pieces* pieces = nullptr;
  std::unique_ptr<Device> device;
  Stream stream;
  Status status;
};
Run* current = nullptr;
const uint8_t* stack_begin = nullptr;

// Pointers among the arguments of a kernel that the card cannot follow: words of the size of an address that are none of ours. Above a
// number of 32 bits may lie anything.
bool strays(const void* arguments, size_t bytes) {
  for (size_t at = 0; at + 8 <= bytes; at += 8) {
    uint64_t word;
    std::memcpy(&word, static_cast<const uint8_t*>(arguments) + at, 8);
    const uint8_t* const place = reinterpret_cast<const uint8_t*>(word);
    const bool stack = place >= stack_begin && place < stack_begin + kStack;
    if (word >> 40 != 0 && word >> 47 == 0 && (word & 0xffffffffu) >= 65536 && !stack && !pool().holds(place)) return true;
  }
  return false;
}

std::string launch_there(const char* name, Shape shape, const void* arguments, size_t bytes) {
  if (strays(arguments, bytes)) return "an argument points to memory that the card does not see";
  in_tests = false;  // what the device keeps outlives the memory of tests
  FunctionHandle* function = nullptr;
  Status status = current->device->function(name, function, shape.shared);
  void* list[] = {const_cast<void*>(arguments)};
  if (status.ok()) status = current->stream.launch(function, {shape.x, shape.y, shape.z}, {shape.threads, 1, 1}, shape.shared, list);
  if (status.ok()) status = finish(current->stream, kSeconds);
  in_tests = true;
  return status.message();
}

// `parts`: parts of names, with commas between; empty: all of the kernels.
bool wanted(const char* name, const std::string& parts) {
  if (parts.empty()) return std::strncmp(name, "cuda_", 5) == 0;
  std::stringstream list(parts);
  for (std::string part; std::getline(list, part, ',');)
    if (std::strstr(name, part.c_str()) != nullptr) return true;
  return false;
}

// A piece a test. Memory of tests is taken inside of their bodies alone.
void all(Run& run) {
  for (const test::Test& each : test::tests()) {
    if (!wanted(each.name, run.part)) continue;
    run.status = run.pieces->run(each.name, [&](Fields& found) -> Status {
      test::failures = 0;
      const double start = now();
      in_tests = true;
      each.body();
      in_tests = false;
      found.push_back({"milliseconds", number((now() - start) * 1e3)});
      if (test::failures > 0) return Status(Code::native_failed, std::to_string(test::failures) + " expectations, first " + test::first);
      say("ok     %s (%.0f ms)", each.name, (now() - start) * 1e3);
      return {};
    });
    if (!run.status.ok()) return;
  }
}

void* on_pinned_stack(void* run) {
  all(*static_cast<Run*>(run));
  return nullptr;
}

Status run_all(Run& run, Pinned& memory) {
  TANDEM_TRY(open_card(run.kernels, run.device));
  run.pieces->on(*run.device);
  TANDEM_TRY(run.device->stream(run.stream));
  TANDEM_TRY(run.device->pin(kPinned, "the memory of tests", memory));
  if (memory.address() != reinterpret_cast<Address>(memory.data()))
    return Status(Code::native_failed, "[bench] a card sees pinned memory where the machine does; this one does not");
  pool().open(memory.data() + kStack, memory.data() + kPinned);
  current = &run;
  stack_begin = memory.data();
  test::launch_elsewhere = launch_there;
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstack(&attributes, memory.data(), kStack);
  pthread_t thread;
  const int code = pthread_create(&thread, &attributes, on_pinned_stack, &run);
  if (code != 0) return Status(Code::native_failed, "[bench] a thread begins on a stack of its own; it did not (" + std::to_string(code) + ")");
  pthread_join(thread, nullptr);
  return run.status;
}

}  // namespace

}  // namespace tandem::bench

int main(int count, char** arguments) {
  using namespace tandem;
  if (count < 3) {
    std::fprintf(stderr, "usage: gpu_kernels KERNELS VERSION [PARTS,OF,NAMES]\n");
    return 2;
  }
  bench::Run run;
  run.kernels = {arguments[1], std::atoi(arguments[2])};
  if (count > 3) run.part = arguments[3];
  cuda::Pinned memory;
  return bench::in_pieces(60, [&](bench::Pieces& pieces) {
    run.pieces = &pieces;
    return bench::run_all(run, memory);
  });
}
