#include "cuda/launch.h"

#include <algorithm>
#include <numeric>

#include "cuda/kernels/formats.h"

namespace tandem::cuda {

namespace {

#define TANDEM_FORMAT_NAME(X, name, Block) #name,
constexpr const char* kFormats[] = {TANDEM_CUDA_FORMATS(TANDEM_FORMAT_NAME, 0)};
#undef TANDEM_FORMAT_NAME

struct Family {
  const char* op;
  Status (*bind)(const Binding&, Launch&);
};
constexpr Family kFamilies[] = {
    {"embed", bind_embed},         {"rms-norm", bind_rms_norm}, {"linear", bind_linear}, {"rope", bind_rope},     {"kv-append", bind_append},
    {"mla-append", bind_append},   {"attention", bind_attention}, {"mla", bind_mla},     {"router", bind_router}, {"experts", bind_experts},
    {"glu", bind_elementwise},     {"add", bind_elementwise},   {"gather-rows", bind_gather}, {"rank-experts", bind_rank_experts},
    {"sample", bind_sample},
};

}  // namespace

size_t GpuPart::row_numbers() {
  if (numbers) return *numbers;
  std::vector<int32_t> all(static_cast<size_t>(header->limits().max_rows) + 1);
  std::iota(all.begin(), all.end(), 0);
  numbers = weights.constants(all.data(), all.size() * 4);
  return *numbers;
}

Status Binding::refuse(const std::string& rule, const std::string& given) const {
  return Status(Code::format_unsupported, "[native] " + rule + "; step \"" + step.name.substr(0, 200) + "\" (" + step.op + ", " + step.device + ") " + given + "; place it on cpu");
}

Status Binding::format(size_t operand, std::string& out) const {
  out = part.program->weights[step.inputs[operand].index].format;
  if (std::find(std::begin(kFormats), std::end(kFormats), out) != std::end(kFormats)) return {};
  std::string known;
  for (const char* name : kFormats) known += std::string(known.empty() ? "" : " ") + name;
  return refuse("weights on a GPU are of a format that its kernels read: " + known, "has " + out);
}

ValueView Binding::input(size_t operand) const {
  const Operand& o = step.inputs[operand];
  const Value& value = part.program->values[o.index];
  return {&part, o.index, o.start, o.columns, value.columns, value.rows};
}

ValueView Binding::output(size_t index) const {
  const uint32_t id = step.outputs[index];
  const Value& value = part.program->values[id];
  return {&part, id, 0, value.columns, value.columns, value.rows};
}

RowChunks RowChunks::of(GpuPart& part, int64_t bytes_a_row) {
  const int64_t rows = std::clamp<int64_t>(kScratchBytes / std::max<int64_t>(bytes_a_row, 1), 1, part.header->limits().max_rows);
  part.want_scratch(static_cast<size_t>(rows * bytes_a_row));
  return {rows, part.header->reserve_chunks(rows)};
}

Status bind_step(const Binding& binding, Launch& out) {
  const Step& step = binding.step;
  if (step.activation != Activation::f32 || step.middle != Activation::f32)
    return binding.refuse("kernels of GPUs round no activations", std::string("asks for ") + activation_name(step.activation != Activation::f32 ? step.activation : step.middle));
  for (const Family& family : kFamilies)
    if (step.op == family.op) return family.bind(binding, out);
  return binding.refuse("every step on a GPU has a kernel", "has none");
}

}  // namespace tandem::cuda
