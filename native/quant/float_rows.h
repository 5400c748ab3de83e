// Rows of plain floats: f32, f16, bf16, f8_e4m3. Rows may be unaligned (safetensors aligns nothing).
#pragma once

#include "half.h"

namespace tandem::quant {

struct F32 {
  uint8_t bits[4];
};
struct F16 {
  uint8_t bits[2];
};
struct Bf16 {
  uint8_t bits[2];
};
struct F8E4m3 {
  uint8_t bits;
};
static_assert(sizeof(F32) == 4 && sizeof(F16) == 2 && sizeof(Bf16) == 2 && sizeof(F8E4m3) == 1);

// Weights that share an f32 scale of f8_e4m3 (DeepSeek's `weight_scale_inv`).
static constexpr int kF8ScaleRows = 128;
static constexpr int kF8ScaleColumns = 128;

TANDEM_HD static inline void decode_row(const F32* row, float* out, int64_t k) {
  for (int64_t i = 0; i < k; i++) out[i] = bits_float(load_u32(row[i].bits));
}

TANDEM_HD static inline void decode_row(const F16* row, float* out, int64_t k) {
  for (int64_t i = 0; i < k; i++) out[i] = f16_to_f32(load_u16(row[i].bits));
}

TANDEM_HD static inline void decode_row(const Bf16* row, float* out, int64_t k) {
  for (int64_t i = 0; i < k; i++) out[i] = bf16_to_f32(load_u16(row[i].bits));
}

// `scales`: the ⌈k/128⌉ f32 scales of this row, aligned to nothing. Order of operations: value · scale, one f32 rounding.
TANDEM_HD static inline void decode_row(const F8E4m3* row, float* out, int64_t k, const uint8_t* scales) {
  for (int64_t i = 0; i < k; i++) out[i] = e4m3_to_f32(row[i].bits) * bits_float(load_u32(scales + 4 * (i / kF8ScaleColumns)));
}

}  // namespace tandem::quant
