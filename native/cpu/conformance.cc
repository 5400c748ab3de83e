#include "cpu/conformance.h"

#include <atomic>

#include "core/kernel.h"
#include "cpu/device.h"
#include "cpu/isa.h"
#include "cpu/pool.h"
#include "quant/formats.h"

namespace tandem {

namespace {

Status invalid(const std::string& rule, const std::string& given) {
  return Status(Code::request_invalid, "[native] " + rule + "; " + given + "; see binding.ts");
}

Status kernel_of(const char* op, const std::string& format, const std::string& isa_text, Isa& isa, KernelFunction& kernel) {
  TANDEM_TRY(choose_isa(isa_text, isa));
  ensure_kernels();
  kernel = find_kernel(op, format, isa);
  if (kernel == nullptr) return invalid("there is a kernel", describe_kernels(op));
  return {};
}

// A scale as the format stores it; those of bf16 and e8m0 are given as numbers they hold.
void append_scale(const quant::FormatInfo& format, float scale, std::vector<uint8_t>& out) {
  const uint32_t bits = quant::float_bits(scale);
  if (format.scale_bytes == 1) return out.push_back(static_cast<uint8_t>(bits >> 23));
  for (int i = 4 - format.scale_bytes; i < 4; i++) out.push_back(static_cast<uint8_t>(bits >> (8 * i)));
}

}  // namespace

Status conformance_decode(const std::string& format, const uint8_t* bytes, size_t size, int64_t rows, int64_t columns,
                          const std::vector<float>& scales, const std::string& isa_text, std::vector<float>& out) {
  const quant::FormatInfo* info = quant::find_format(format);
  if (info == nullptr) return invalid("a format is one that native knows", format);
  if (rows < 0 || columns < 1 || rows > (1 << 20) || columns > (1 << 24) || columns % info->block_size != 0)
    return invalid("rows and columns are whole blocks", std::to_string(rows) + " x " + std::to_string(columns));
  const int64_t row_bytes = quant::row_bytes(*info, columns);
  if (size != static_cast<size_t>(rows * row_bytes)) return invalid("bytes are those of the rows", std::to_string(size));
  Isa isa;
  KernelFunction kernel;
  TANDEM_TRY(kernel_of("decode", format, isa_text, isa, kernel));

  BoundWeight weight;
  weight.format = info;
  weight.rows = rows;
  weight.columns = columns;
  weight.row_bytes = row_bytes;
  const std::atomic<const uint8_t*> outer{bytes};
  weight.outer = &outer;
  std::vector<uint8_t> stored;
  for (float scale : scales) append_scale(*info, scale, stored);
  const uint8_t* table = stored.data();
  if (info->scale_rows > 0) {
    const int64_t across = (columns + info->scale_columns - 1) / info->scale_columns;
    const int64_t needed = (rows + info->scale_rows - 1) / info->scale_rows * across;
    weight.scale_stride = across * info->scale_bytes;
    if (static_cast<int64_t>(scales.size()) != needed) return invalid("scales are those of the matrix", std::to_string(scales.size()));
    weight.scales = &table;
  }
  out.resize(static_cast<size_t>(rows * columns));
  ThreadPool pool(PoolOptions{});
  Scratch scratch;
  StepContext context;
  context.weights = {&weight};
  context.inputs = {{}};
  context.outputs = {{out.data(), rows, columns, columns}};
  context.pool = &pool;
  context.scratch = &scratch;
  context.isa = isa;
  return kernel(context);
}

Status conformance_quantize(const std::string& format, const std::vector<float>& x, const std::string& isa_text, std::vector<int8_t>& codes,
                            std::vector<float>& scales) {
  const int64_t columns = static_cast<int64_t>(x.size());
  const int64_t block = format == "q8_256" ? 256 : 32;
  if (format != "q8_32" && format != "q8_256") return invalid("an activation format with codes is q8_32 or q8_256", format);
  if (columns == 0 || columns % block != 0) return invalid("columns are whole blocks", std::to_string(columns));
  Isa isa;
  KernelFunction kernel;
  TANDEM_TRY(kernel_of("quantize", "", isa_text, isa, kernel));
  Step step;
  step.activation = block == 256 ? Activation::q8_256 : Activation::q8_32;
  std::vector<float> input = x;
  codes.resize(x.size());
  scales.resize(static_cast<size_t>(columns / block));
  ThreadPool pool(PoolOptions{});
  Scratch scratch;
  StepContext context;
  context.step = &step;
  context.inputs = {{input.data(), 1, columns, columns}};
  context.weights = {nullptr};
  context.outputs = {{scales.data(), 1, columns / block, columns / block}, {reinterpret_cast<float*>(codes.data()), 1, columns, columns}};
  context.pool = &pool;
  context.scratch = &scratch;
  context.isa = isa;
  return kernel(context);
}

}  // namespace tandem
