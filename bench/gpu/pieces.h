// A part in pieces: a child does them one after the other and tells its parent what each found; the parent never touches the card. A
// piece that takes the child with it (a lost card, a crash, a launch without end) is one failed piece, and another child goes on behind
// it. What was found is printed whatever happens, also where the part is ended from outside (SIGTERM).
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/status.h"
#include "cuda/device.h"

namespace tandem::bench {

// Fields of an object of JSON; values as in measure.h.
using Fields = std::vector<std::pair<const char*, std::string>>;

class Pieces {
 public:
  // A lost card ends the child; where pieces open it themselves, every failure does.
  void on(cuda::Device& device) { device_ = &device; }
  // Does a piece, unless an earlier child began it. It fails where `work` does; what `work` found is told either way. Not ok: nothing can
  // follow in this process.
  Status run(const std::string& name, const std::function<Status(Fields& found)>& work);
  // Of the whole part.
  void tell(const char* key, const std::string& value);

 private:
  friend int in_pieces(int, const std::function<Status(Pieces&)>&);
  void send(char kind, const std::string& text);

  cuda::Device* device_ = nullptr;
  int pipe_ = -1;
  size_t begun_ = 0, next_ = 0;  // begun by earlier children; the next of this one
  size_t failed_ = 0;            // where there is no parent
};

// For `body`: a machine without a card, and the first one where there are some.
Status no_card(const cuda::Gpus& gpus);
Status open_card(const cuda::KernelFile& kernels, std::unique_ptr<cuda::Device>& out);

// The main of a part. `body` opens what it needs and runs pieces, the same ones in every child. JSON on stdout: fields told, `pieces`,
// `failed`, `problem`, and `results`, an object a piece with `name`, `passed`, `problem` and what it found. A piece, and what comes before the
// first one, may take `seconds`. Exit code: 0 all passed, 1 not so, 3 no card. TANDEM_BENCH_ALONE=1: without children and JSON, as
// debuggers, profilers and sanitizers like it.
int in_pieces(int seconds, const std::function<Status(Pieces&)>& body);

// The parts of gpu_card. `small`: sizes for the fake driver.
Status copies(cuda::Device& device, bool small, Pieces& pieces);
Status uploads(cuda::Device& device, bool small, Pieces& pieces);
Status hand_overs(cuda::Device& device, bool small, Pieces& pieces);
Status timings(cuda::Device& device, bool small, const std::string& only, Pieces& pieces);

}  // namespace tandem::bench
