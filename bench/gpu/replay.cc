// Whole models on a card, without Node: `gpu_replay TAPE ROOT KERNELS VERSION [small]`, the tape as bench/gpu/record.ts writes it. A model is
// run as the CPU alone computes it, then in every split: its logits are held against those of the CPU; passes that run as graphs
// have to give the bits of single launches; and what a pass takes is told. `small`: nothing is timed, over the fake driver.
#include <pthread.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "core/model.h"
#include "measure.h"
#include "pieces.h"

namespace tandem::bench {

namespace {

constexpr uint32_t kMagic = 0x55504754, kVersion = 1;
constexpr int kRepeats = 20;

class Tape {
 public:
  bool open(const char* path) {
    std::ifstream file(path, std::ios::binary);
    bytes_.assign(std::istreambuf_iterator<char>(file), {});
    return bytes_.size() > 12 && u32() == kMagic && u32() == kVersion;
  }
  uint32_t u32() { return word<uint32_t>(); }
  float f32() { return word<float>(); }
  std::vector<uint8_t> bytes() {
    const size_t size = u32();
    if (size > bytes_.size() - at_) std::abort();  // a tape that is cut off
    std::vector<uint8_t> out(bytes_.begin() + static_cast<long>(at_), bytes_.begin() + static_cast<long>(at_ + size));
    at_ += (size + 3) / 4 * 4;
    return out;
  }
  std::string text() {
    const std::vector<uint8_t> all = bytes();
    return {all.begin(), all.end()};
  }

 private:
  template <typename T> T word() {
    T value = 0;
    if (at_ + sizeof value > bytes_.size()) std::abort();
    std::memcpy(&value, bytes_.data() + at_, sizeof value);
    at_ += sizeof value;
    return value;
  }
  std::vector<uint8_t> bytes_;
  size_t at_ = 0;
};

struct Pass {
  bool decode;
  std::vector<uint8_t> batch;
};

struct Split {
  std::string name;
  float tolerance;
  uint32_t gpus;
  std::vector<uint8_t> program;
};

struct Case {
  std::string name;
  std::vector<FileInput> files;
  int64_t pages, rows, outputs;
  std::vector<Pass> passes;
  std::vector<Split> splits;
};

Case read_case(Tape& tape, const std::string& root) {
  Case one;
  one.name = tape.text();
  for (uint32_t left = tape.u32(); left > 0; left--) {
    FileInput file;
    file.in_memory = tape.u32() == 0;
    if (file.in_memory) file.bytes = tape.bytes();
    else file.path = root + "/" + tape.text();
    one.files.push_back(std::move(file));
  }
  one.pages = tape.u32(), one.rows = tape.u32(), one.outputs = tape.u32();
  for (uint32_t left = tape.u32(); left > 0; left--) {
    const bool decode = tape.u32() != 0;
    one.passes.push_back({decode, tape.bytes()});
  }
  for (uint32_t left = tape.u32(); left > 0; left--) {
    Split split;
    split.name = tape.text();
    split.tolerance = tape.f32();
    split.gpus = tape.u32();
    split.program = tape.bytes();
    one.splits.push_back(std::move(split));
  }
  return one;
}

Status load(const Case& one, const Split& split, const cuda::KernelFile& kernels, std::unique_ptr<Model>& model) {
  ModelOptions options;
  options.program = split.program;
  options.files = one.files;
  options.pages = one.pages, options.max_rows = one.rows, options.max_outputs = one.outputs;
  options.kernels = kernels;
  LoadProgress progress;
  return Model::load(std::move(options), pthread_self(), progress, model);
}

// Logits of all passes, one after the other.
Status run_all(Model& model, const Case& one, bool graphs, std::vector<std::vector<float>>& logits) {
  setenv("TANDEM_CUDA_GRAPHS", graphs ? "1" : "0", 1);
  logits.clear();
  for (const Pass& pass : one.passes) {
    PassOutput out;
    TANDEM_TRY(model.run(pass.batch.data(), pass.batch.size(), model.arm(), out));
    logits.push_back(std::move(out.logits));
  }
  return {};
}

// Milliseconds of the first prompt and of the last pass, the median of some.
Status time_passes(Model& model, const Case& one, double& prompt, double& token) {
  setenv("TANDEM_CUDA_GRAPHS", "1", 1);
  for (const bool decode : {false, true}) {
    const Pass& pass = decode ? one.passes.back() : one.passes.front();
    std::vector<double> times;
    for (int i = 0; i < kRepeats; i++) {
      PassOutput out;
      const double start = now();
      TANDEM_TRY(model.run(pass.batch.data(), pass.batch.size(), model.arm(), out));
      times.push_back(now() - start);
    }
    (decode ? token : prompt) = median(times) * 1e3;
  }
  return {};
}

// The largest difference over the largest logit; infinite where one side is not finite.
double distance(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  double most = 0, scale = 0;
  for (size_t p = 0; p < a.size(); p++) {
    if (a[p].size() != b[p].size() || a[p].empty()) return INFINITY;
    for (size_t i = 0; i < a[p].size(); i++) {
      const double difference = std::abs(static_cast<double>(a[p][i]) - b[p][i]);
      if (!(difference <= most)) most = std::isnan(difference) ? INFINITY : difference;
      scale = std::max(scale, static_cast<double>(std::abs(b[p][i])));
    }
  }
  return scale == 0 ? INFINITY : most / scale;
}

bool same_bits(const std::vector<std::vector<float>>& a, const std::vector<std::vector<float>>& b) {
  for (size_t p = 0; p < a.size(); p++)
    if (a[p].size() != b[p].size() || std::memcmp(a[p].data(), b[p].data(), a[p].size() * 4) != 0) return false;
  return true;
}

struct Judgement {
  double distance = 0, prompt = 0, token = 0;
  bool graphs = true;
};

// Of a split with cards; `expected`: logits of the CPU.
Status judge(const Case& one, const Split& split, const cuda::KernelFile& kernels, bool small, const std::vector<std::vector<float>>& expected, Judgement& found) {
  std::unique_ptr<Model> model;
  TANDEM_TRY(load(one, split, kernels, model));
  std::vector<std::vector<float>> single, graph;
  TANDEM_TRY(run_all(*model, one, false, single));
  TANDEM_TRY(run_all(*model, one, true, graph));
  if (!small) TANDEM_TRY(time_passes(*model, one, found.prompt, found.token));
  found.graphs = same_bits(single, graph);
  found.distance = distance(single, expected);
  if (!found.graphs) return Status(Code::native_failed, "[bench] graphs give the bits of single launches; they do not");
  if (!(found.distance <= split.tolerance)) return Status(Code::native_failed, "[bench] logits are those of the CPU; they are " + number(found.distance) + " away");
  return {};
}

// What the CPU alone computes: the first split.
Status of_cpu(const Case& one, const cuda::KernelFile& kernels, std::vector<std::vector<float>>& logits) {
  std::unique_ptr<Model> model;
  TANDEM_TRY(load(one, one.splits.front(), kernels, model));
  return run_all(*model, one, false, logits);
}

Status replay(const char* path, const std::string& root, const cuda::KernelFile& kernels, bool small, const std::string& only, Pieces& pieces) {
  Tape tape;
  if (!tape.open(path)) return Status(Code::request_invalid, std::string("[bench] a tape is written by bench/gpu/record.mjs of this version; ") + path + " is none");
  const cuda::Gpus gpus = cuda::list_gpus(kernels, false);
  if (gpus.list.empty()) return no_card(gpus);
  for (uint32_t left = tape.u32(); left > 0; left--) {
    const Case one = read_case(tape, root);
    if (one.name.find(only) == std::string::npos) continue;
    std::vector<std::vector<float>> expected;
    for (size_t s = 1; s < one.splits.size(); s++) {
      const Split& split = one.splits[s];
      if (split.gpus > gpus.list.size()) {
        say("%-28s %-9s left out: %u GPUs", one.name.c_str(), split.name.c_str(), split.gpus);
        continue;
      }
      TANDEM_TRY(pieces.run(one.name + ": " + split.name, [&](Fields& found) -> Status {
        if (expected.empty()) TANDEM_TRY(of_cpu(one, kernels, expected));
        Judgement is;
        const Status status = judge(one, split, kernels, small, expected, is);
        found = {{"distance", number(is.distance)}, {"graphIsEager", is.graphs ? "true" : "false"}, {"promptMilliseconds", number(is.prompt)}, {"tokenMilliseconds", number(is.token)}};
        if (status.ok()) say("%-28s %-9s passed: %.1e from the CPU; prompt %.2f ms, token %.3f ms", one.name.c_str(), split.name.c_str(), is.distance, is.prompt, is.token);
        return status;
      }));
    }
  }
  return {};
}

}  // namespace

}  // namespace tandem::bench

int main(int count, char** arguments) {
  using namespace tandem;
  if (count < 5) {
    std::fprintf(stderr, "usage: gpu_replay TAPE ROOT KERNELS VERSION [small] [only=TEXT]\n");
    return 2;
  }
  bool small = false;
  std::string only;
  for (int i = 5; i < count; i++) {
    if (std::strcmp(arguments[i], "small") == 0) small = true;
    if (std::strncmp(arguments[i], "only=", 5) == 0) only = arguments[i] + 5;
  }
  return bench::in_pieces(120, [&](bench::Pieces& pieces) { return bench::replay(arguments[1], arguments[2], {arguments[3], std::atoi(arguments[4])}, small, only, pieces); });
}
