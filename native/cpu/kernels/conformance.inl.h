// Ops that only the conformance suite calls (cpu/conformance.h): decoding and rounding, looked at from TypeScript.
#pragma once

#include <cstring>

#include "core/kernel.h"
#include "cpu/kernels/decode.inl.h"
#include "cpu/kernels/quantize.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// weights[0] is the matrix, outputs[0] takes its rows decoded.
static Status conformance_decode(StepContext& context) {
  const BoundWeight& weight = *context.weights[0];
  for (int64_t r = 0; r < weight.rows; r++)
    decode_row(*weight.format, weight.matrix(0) + r * weight.row_bytes, context.outputs[0].row(r), weight.columns, weight.row_scales(0, r));
  return {};
}

// inputs[0] is one row; outputs[0] takes the scales, outputs[1].data the codes as int8_t.
static Status conformance_quantize(StepContext& context) {
  const MatrixView& x = context.inputs[0];
  const int64_t block = activation_block(context.step->activation);
  int8_t* codes = reinterpret_cast<int8_t*>(context.outputs[1].data);
  for (int64_t at = 0; at < x.columns; at += block)
    quantize_block(x.data + at, block, codes + at, context.outputs[0].data + at / block, nullptr, nullptr, nullptr, nullptr);
  return {};
}

static void register_conformance() {
  register_kernel({"decode", "", TANDEM_ISA}, conformance_decode);
  register_kernel({"quantize", "", TANDEM_ISA}, conformance_quantize);
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
