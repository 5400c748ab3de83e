// A loaded model: the Program bound to kernels, weights, buffers and a KV cache. Runs passes, whole or step by step.
//
// All methods but `cancel`, `arm`, `timings` and `describe` belong to one thread (the executor's).
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/batch.h"
#include "core/executor.h"
#include "core/kernel.h"
#include "core/memory.h"
#include "core/program.h"
#include "core/status.h"
#include "core/weights.h"
#include "cpu/device.h"
#include "cuda/gpu_info.h"
#include "cuda/gpu_model.h"

namespace tandem {

struct ModelOptions {
  std::vector<uint8_t> program;  // encodeProgram
  std::vector<FileInput> files;
  int64_t pages = 0;
  int64_t max_rows = 0;
  int64_t max_outputs = 0;
  int threads = 0;               // 0 = automatic
  std::string isa;               // "" = automatic
  LoadMode load = LoadMode::automatic;
  int64_t memory = 0;            // most bytes to take, 0 = what the machine has
  cuda::KernelFile kernels;      // of GPUs, where steps are placed on some
  cuda::ShareOptions shares;     // what they compute of experts on the CPU
  const std::atomic<bool>* stop = nullptr;  // when it becomes true a pass ends at its next step with Code::disposed
};

// Since load; may be read while a pass runs.
struct StepTiming {
  std::atomic<uint64_t> calls{0};
  std::atomic<uint64_t> nanoseconds{0};
};

class Model {
 public:
  // `owner`: handle of the thread that will run the passes.
  static Status load(ModelOptions options, std::thread::native_handle_type owner, LoadProgress& progress, std::unique_ptr<Model>& out);

  // A whole pass. The first step that fails ends it; the model stays usable.
  Status run(const uint8_t* batch, size_t size, uint32_t generation, PassOutput& out);

  // Lock-step: begin, steps in any order, read and write values between them, finish.
  Status begin(const uint8_t* batch, size_t size, uint32_t generation);
  Status step(int64_t index);
  // Steps [first, last) as a pass runs them; fewer where nobody is left who wants them.
  Status steps(int64_t first, int64_t last);
  // The dense value [rows, columns] of the pass begun; elements are f32 or i32 by `type`.
  struct ValueData {
    ElementType type = ElementType::f32;
    std::vector<uint32_t> words;
  };
  Status read(int64_t value, ValueData& out) const;
  Status write(int64_t value, const ValueData& data);
  Status finish(PassOutput& out);

  // The bytes of one page of the cache as they are, and back: for prefixes that outlive the process. Between passes.
  Status read_page(int64_t page, std::vector<uint8_t>& out) const;
  Status write_page(int64_t page, const std::vector<uint8_t>& bytes);

  // Any thread. `arm` names the next pass and gives its generation; `cancel` drops a slot's rows from the pass armed last
  // (also one that has not begun).
  uint32_t arm() { return generation_.fetch_add(1) + 1; }
  void cancel(int64_t slot);

  // How often each expert of each layer with a router was chosen since load. Any thread.
  struct ExpertVisits {
    std::vector<int32_t> layers;   // layer of each row of `counts`
    int64_t experts = 0;           // columns: the most of any layer
    std::vector<uint32_t> counts;  // [layers, experts], wrapping
  };
  ExpertVisits expert_visits() const;

  // What GPUs have computed of experts on the CPU since load. Any thread.
  cuda::ShareRunner::Counts share_counts() const { return gpu_ == nullptr ? cuda::ShareRunner::Counts() : gpu_->shares().counts(); }

  const Program& program() const { return program_; }
  const std::vector<StepTiming>& timings() const { return timings_; }
  std::vector<std::pair<std::string, std::variant<double, std::string>>> describe() const;

 private:
  struct Call;
  Model() = default;
  Status allocate(const ModelOptions& options);
  Status allocate_cache(const ModelOptions& options);
  Status bind_steps();
  bool is_gpu(size_t index) const { return gpu_ != nullptr && gpu_->runs(program_.steps[index]); }
  Status run_step(size_t index);
  Status run_gpu_step(size_t index);
  Status run_with_gpu();
  Status run_plain(const cuda::ShareRunner::PlainCall& call);
  Status ready(size_t index) const;
  void count_visits(size_t index, const int32_t* ids, int64_t count);
  bool drop_cancelled();
  int64_t rows_of(const Value& value) const;
  uint32_t* memory_of(const Value& value) const;
  Status check_page(int64_t page) const;
  size_t page_size() const;
  // Calls body(layer, bytes) for the parts of a page, in order.
  template <typename Body> Status for_page(Body&& body) const;
  Status check_ids(int64_t value, const std::vector<uint32_t>& words) const;

  Program program_;
  Isa isa_ = Isa::scalar;
  const TileEngine* tile_engine_ = nullptr;
  std::unique_ptr<CpuTeam> team_;
  WeightStore weights_;
  std::unique_ptr<cuda::GpuModel> gpu_;  // where steps are placed on GPUs: buffers are then its own
  Region buffers_;
  std::vector<uint8_t*> slots_;
  Region kv_memory_;
  KvCache kv_;
  Scratch scratch_;
  int64_t max_rows_ = 0, max_outputs_ = 0;
  std::vector<KernelFunction> kernels_;
  std::vector<StepContext> contexts_;
  std::vector<StepTiming> timings_;
  std::vector<size_t> routers_;  // steps
  int64_t most_experts_ = 0;
  std::vector<std::atomic<uint32_t>> visits_;  // [routers, most_experts]

  // The pass in hand.
  bool active_ = false;
  Batch batch_;
  PassOutput output_;
  std::vector<uint8_t> dead_;
  std::vector<uint8_t> filled_;  // per value: written in this pass
  uint32_t pass_ = 0;
  std::chrono::steady_clock::time_point started_;

  std::atomic<uint32_t> generation_{0};
  std::array<std::atomic<uint32_t>, kCancelSlots> cancelled_{};
  const std::atomic<bool>* stop_ = nullptr;
};

}  // namespace tandem
