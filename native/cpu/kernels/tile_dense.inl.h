// A small product of two matrices that are in bf16 already, on a tile unit: what attention multiplies (attention_units.inl.h).
#pragma once

#include "cpu/kernels/tile_unit.inl.h"
#include "cpu/tiles.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

#if TANDEM_ISA_LEVEL >= 3

// Up to 32 rows × 32 columns in tiles 0 … 3; rows of `a` in 4 and 5, columns of the panel in 6 and 7.
template <int strips, int blocks, typename Unit>
static void dense_tiles(Unit& unit, const DenseProduct& p, int64_t row) {
  constexpr int64_t kPanelStride = 128, kSumStride = 128;  // bytes: 32 columns of pairs, 32 sums
  float* c = p.c + row * 32;
  if (p.add) {
    unit.template load<0>(c, kSumStride);
    if constexpr (blocks > 1) unit.template load<1>(c + 16, kSumStride);
    if constexpr (strips > 1) unit.template load<2>(c + 16 * 32, kSumStride);
    if constexpr (strips > 1 && blocks > 1) unit.template load<3>(c + 16 * 32 + 16, kSumStride);
  } else {
    unit.template zero<0>();
    if constexpr (blocks > 1) unit.template zero<1>();
    if constexpr (strips > 1) unit.template zero<2>();
    if constexpr (strips > 1 && blocks > 1) unit.template zero<3>();
  }
  const uint16_t *a = p.a + row * p.a_stride, *panel = p.panel;
  for (int64_t k = 0; k < p.k; k += 32, a += 32, panel += 32 * 32) {
    unit.template load<4>(a, 2 * p.a_stride);
    unit.template load<6>(panel, kPanelStride);
    unit.template dot_bf16<0, 4, 6>();
    if constexpr (blocks > 1) {
      unit.template load<7>(panel + 32, kPanelStride);
      unit.template dot_bf16<1, 4, 7>();
    }
    if constexpr (strips > 1) {
      unit.template load<5>(a + 16 * p.a_stride, 2 * p.a_stride);
      unit.template dot_bf16<2, 5, 6>();
      if constexpr (blocks > 1) unit.template dot_bf16<3, 5, 7>();
    }
  }
  unit.template store<0>(c, kSumStride);
  if constexpr (blocks > 1) unit.template store<1>(c + 16, kSumStride);
  if constexpr (strips > 1) unit.template store<2>(c + 16 * 32, kSumStride);
  if constexpr (strips > 1 && blocks > 1) unit.template store<3>(c + 16 * 32 + 16, kSumStride);
}

template <typename Unit>
static void tile_dense(const DenseProduct& product) {
  Unit unit;
  TileConfig config;
  for (int t = 0; t < 8; t++) config.shape(t, 16, 64);
  unit.configure(config);
  const bool wide = product.columns > 16;
  for (int64_t row = 0; row < product.m; row += 32) {
    const bool two = row + 16 < product.m;
    if (two && wide) dense_tiles<2, 2>(unit, product, row);
    else if (two) dense_tiles<2, 1>(unit, product, row);
    else if (wide) dense_tiles<1, 2>(unit, product, row);
    else dense_tiles<1, 1>(unit, product, row);
  }
  unit.release();
}

#endif

}  // namespace tandem::TANDEM_ISA_NAMESPACE
