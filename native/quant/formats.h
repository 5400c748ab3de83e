// All weight formats by name: the native twin of src/formats/quants/index.ts.
//
// Every decode gives the f32 bits of the TypeScript decoder. The products inside a block are exact in f32, so the one
// rounding is that of the last sum (or of f8_e4m3's product with its scale) and contraction to fma changes nothing.
// Where a result is NaN its payload is not specified.
//
// For code that looks formats up by name. A file compiled for one instruction set includes the header of its format
// instead: those use nothing of the standard library that a linker could merge with the code of other files.
#pragma once

#include <string_view>

#include "float_rows.h"
#include "int4_g32.h"
#include "iq1_m.h"
#include "iq1_s.h"
#include "iq2_s.h"
#include "iq2_xs.h"
#include "iq2_xxs.h"
#include "iq3_s.h"
#include "iq3_xxs.h"
#include "iq4_nl.h"
#include "iq4_xs.h"
#include "mxfp4.h"
#include "mxfp4_g32.h"
#include "q2_k.h"
#include "q3_k.h"
#include "q4_0.h"
#include "q4_1.h"
#include "q4_k.h"
#include "q5_0.h"
#include "q5_1.h"
#include "q5_k.h"
#include "q6_k.h"
#include "q8_0.h"

namespace tandem::quant {

struct FormatInfo {
  const char* name;
  int block_size;   // weights in a block; the columns of a tensor are a multiple
  int block_bytes;
  int scale_rows;   // weights that share a scale of a tensor of its own, 0 × 0 where the format has none
  int scale_columns;
  // Decodes k weights. `scales`: the ⌈k/scale_columns⌉ scales of this row, as stored and aligned to nothing; else unused.
  void (*decode_row)(const void* row, float* out, int64_t k, const uint8_t* scales);
  int scale_bytes = 0;   // of one scale: f32 4, bf16 2, e8m0 1

  // Scales of column k (a multiple of scale_columns) and after, given those of the row; null stays null.
  constexpr const uint8_t* scales_at(const uint8_t* scales, int64_t k) const {
    return scales == nullptr ? nullptr : scales + k / scale_columns * scale_bytes;
  }
};

template <typename Block>
static inline void decode_row_of(const void* row, float* out, int64_t k, const uint8_t*) {
  decode_row(static_cast<const Block*>(row), out, k);
}

template <typename Block>
static inline void decode_scaled_row_of(const void* row, float* out, int64_t k, const uint8_t* scales) {
  decode_row(static_cast<const Block*>(row), out, k, scales);
}

static constexpr FormatInfo kFormats[] = {
    {"f32", 1, sizeof(F32), 0, 0, decode_row_of<F32>},
    {"f16", 1, sizeof(F16), 0, 0, decode_row_of<F16>},
    {"bf16", 1, sizeof(Bf16), 0, 0, decode_row_of<Bf16>},
    {"q8_0", 32, sizeof(BlockQ8_0), 0, 0, decode_row_of<BlockQ8_0>},
    {"q4_0", 32, sizeof(BlockQ4_0), 0, 0, decode_row_of<BlockQ4_0>},
    {"q4_1", 32, sizeof(BlockQ4_1), 0, 0, decode_row_of<BlockQ4_1>},
    {"q5_0", 32, sizeof(BlockQ5_0), 0, 0, decode_row_of<BlockQ5_0>},
    {"q5_1", 32, sizeof(BlockQ5_1), 0, 0, decode_row_of<BlockQ5_1>},
    {"iq4_nl", 32, sizeof(BlockIq4Nl), 0, 0, decode_row_of<BlockIq4Nl>},
    {"q2_k", 256, sizeof(BlockQ2K), 0, 0, decode_row_of<BlockQ2K>},
    {"q3_k", 256, sizeof(BlockQ3K), 0, 0, decode_row_of<BlockQ3K>},
    {"q4_k", 256, sizeof(BlockQ4K), 0, 0, decode_row_of<BlockQ4K>},
    {"q5_k", 256, sizeof(BlockQ5K), 0, 0, decode_row_of<BlockQ5K>},
    {"q6_k", 256, sizeof(BlockQ6K), 0, 0, decode_row_of<BlockQ6K>},
    {"iq4_xs", 256, sizeof(BlockIq4Xs), 0, 0, decode_row_of<BlockIq4Xs>},
    {"f8_e4m3", 1, sizeof(F8E4m3), kF8ScaleRows, kF8ScaleColumns, decode_scaled_row_of<F8E4m3>, 4},
    {"iq2_xxs", 256, sizeof(BlockIq2Xxs), 0, 0, decode_row_of<BlockIq2Xxs>},
    {"iq2_xs", 256, sizeof(BlockIq2Xs), 0, 0, decode_row_of<BlockIq2Xs>},
    {"iq2_s", 256, sizeof(BlockIq2S), 0, 0, decode_row_of<BlockIq2S>},
    {"iq3_xxs", 256, sizeof(BlockIq3Xxs), 0, 0, decode_row_of<BlockIq3Xxs>},
    {"iq3_s", 256, sizeof(BlockIq3S), 0, 0, decode_row_of<BlockIq3S>},
    {"iq1_s", 256, sizeof(BlockIq1S), 0, 0, decode_row_of<BlockIq1S>},
    {"iq1_m", 256, sizeof(BlockIq1M), 0, 0, decode_row_of<BlockIq1M>},
    {"mxfp4", 32, sizeof(BlockMxfp4), 0, 0, decode_row_of<BlockMxfp4>},
    {"mxfp4_g32", 32, sizeof(BlockMxfp4G32), 1, 32, decode_scaled_row_of<BlockMxfp4G32>, 1},
    {"int4_g32", 32, sizeof(BlockInt4G32), 1, 32, decode_scaled_row_of<BlockInt4G32>, 2},
};

// The format of that name, or nullptr.
static inline const FormatInfo* find_format(std::string_view name) {
  for (const FormatInfo& format : kFormats) {
    if (name == format.name) return &format;
  }
  return nullptr;
}

// The format in which the scales of a format with scales apart are stored. e8m0 is not one of weights.
static constexpr FormatInfo kE8m0Scales = {"e8m0", 1, 1, 0, 0, nullptr};
static inline const FormatInfo* scale_format(const FormatInfo& format) {
  return format.scale_bytes == 1 ? &kE8m0Scales : find_format(format.scale_bytes == 2 ? "bf16" : "f32");
}

// Bytes of a row of `columns` weights.
static inline int64_t row_bytes(const FormatInfo& format, int64_t columns) {
  return columns / format.block_size * format.block_bytes;
}

}  // namespace tandem::quant
