// From steps to kernels: what a step launches on its GPU, bound once when a model is loaded. One file a family of ops
// (launch_*.cc); a step that has no kernel is refused there, by name.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/program.h"
#include "core/status.h"
#include "cuda/gpu_cache.h"
#include "cuda/gpu_weights.h"
#include "cuda/header.h"
#include "cuda/kernels/arguments.h"
#include "cuda/kernels/shapes.h"
#include "cuda/pass.h"
#include "cuda/sampling.h"

namespace tandem::cuda {

// Gives a step's kernels to a stream, for so many rows at most; the rows that there are, are read from the header.
using Launch = std::function<Status(Stream& stream, PassRows rows)>;

// What the steps of one GPU share. Places are known when steps are bound, addresses when they are launched.
struct GpuPart {
  GpuPart(const Program& program, size_t index, Device* device, PassHeader* header) : program(&program), index(index), device(device), header(header), weights(program) {}

  const Program* program;
  size_t index;                        // in Schedule::devices
  Device* device;
  PassHeader* header;
  const PassRunner* runner = nullptr;  // set before anything is launched
  GpuWeights weights;
  GpuCache cache;
  size_t scratch_bytes = 0;            // the most that a step wants; steps of a stream follow each other
  Memory scratch;
  std::optional<size_t> numbers;       // row_numbers
  std::unique_ptr<Sampling> sampling;  // where `sample` is placed here

  // Where the numbers 0 … max_rows lie: row counts that are known when a launch is given. Before `weights.allocate`.
  size_t row_numbers();
  void want_scratch(size_t bytes) { scratch_bytes = bytes > scratch_bytes ? bytes : scratch_bytes; }
  // What scratch memory holds behind a `linear` on tiles: all rows of its x, rounded. The step that follows right behind it in a pass may use them.
  struct Rounded {
    const Step* by = nullptr;
    uint32_t value = 0;
    int64_t start = 0, columns = 0, tiles = 0;
    ColumnOrder order = ColumnOrder::plain;
    bool serves(const Rounded& next) const {
      return by != nullptr && by + 1 == next.by && value == next.value && start == next.start && columns == next.columns && tiles == next.tiles && order == next.order;
    }
  };
  Rounded rounded;
  float* scratch_at(size_t offset) const { return reinterpret_cast<float*>(scratch.get() + offset); }
};

// An operand or result: columns [start, start + columns) of a value.
struct ValueView {
  const GpuPart* part = nullptr;
  uint32_t value = 0;
  int64_t start = 0, columns = 0, stride = 0;
  Rows rows = Rows::tokens;

  float* at(PassRows pass) const { return reinterpret_cast<float*>(part->runner->address(value, pass)) + start; }
  int32_t* ints(PassRows pass) const { return reinterpret_cast<int32_t*>(at(pass)); }
  int64_t count(PassRows pass) const { return rows == Rows::tokens ? pass.tokens : pass.outputs; }
  const int32_t* live() const { return rows == Rows::tokens ? part->header->tokens(part->index) : part->header->outputs(part->index); }
};

// A step that is being bound.
struct Binding {
  const Step& step;
  GpuPart& part;

  // FORMAT_UNSUPPORTED naming the step.
  Status refuse(const std::string& rule, const std::string& given) const;
  // `shared`: bytes of dynamic shared memory that its launches ask for (Shape::shared).
  Status kernel(const std::string& name, FunctionHandle*& out, unsigned shared = 0) const { return part.device->function("tandem_" + name, out, shared); }
  // Of a weight operand: its format, which kernels read.
  Status format(size_t operand, std::string& out) const;
  bool has(size_t operand) const { return operand < step.inputs.size() && step.inputs[operand].kind != Operand::Kind::none; }
  ValueView input(size_t operand) const;
  ValueView output(size_t index) const;
  const GpuMatrix& matrix(size_t operand, bool tables = false) const { return part.weights.matrix(step.inputs[operand].index, tables); }
  // Null where the operand is left out.
  const GpuFloats* floats(size_t operand) const { return has(operand) ? &part.weights.floats(step.inputs[operand].index) : nullptr; }
};

// Rows that a launch takes at once where its intermediates are large, and where the device finds how many each launch has.
struct RowChunks {
  int64_t rows = 1;
  size_t counts = 0;

  // As many as fit into kScratchBytes, at least one.
  static constexpr int64_t kScratchBytes = int64_t{128} << 20;
  static RowChunks of(GpuPart& part, int64_t bytes_a_row);
  const int32_t* live(const GpuPart& part, int64_t chunk) const { return part.header->counts(part.index, counts + static_cast<size_t>(chunk)); }
};

// Products of a few rows with a matrix, by how many there are (many: launch_tiles.h).
struct LinearKernels {
  const quant::FormatInfo* info = nullptr;
  FunctionHandle *one = nullptr, *eight = nullptr;
  Status find(const Binding& binding, const std::string& format);
  Status launch(Stream& stream, const LinearArguments& arguments, int64_t rows, int64_t batches) const;
};

template <typename Arguments> Status launch_kernel(Stream& stream, FunctionHandle* function, Shape shape, Arguments arguments) {
  void* list[] = {&arguments};
  return stream.launch(function, {shape.x, shape.y, shape.z}, {shape.threads, 1, 1}, shape.shared, list);
}

// The kernels of a step.
Status bind_step(const Binding& binding, Launch& out);

// By family.
Status bind_linear(const Binding& binding, Launch& out);
Status bind_embed(const Binding& binding, Launch& out);
Status bind_gather(const Binding& binding, Launch& out);
Status bind_elementwise(const Binding& binding, Launch& out);
Status bind_rms_norm(const Binding& binding, Launch& out);
Status bind_rope(const Binding& binding, Launch& out);
Status bind_router(const Binding& binding, Launch& out);
Status bind_rank_experts(const Binding& binding, Launch& out);
Status bind_append(const Binding& binding, Launch& out);
Status bind_attention(const Binding& binding, Launch& out);
Status bind_mla(const Binding& binding, Launch& out);
Status bind_experts(const Binding& binding, Launch& out);
Status bind_sample(const Binding& binding, Launch& out);

}  // namespace tandem::cuda
