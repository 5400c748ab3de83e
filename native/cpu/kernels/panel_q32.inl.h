// Panels of weights in blocks of 32 with q8_32 activations.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

const PanelKernel* panel_q32(WeightFormat) { return nullptr; }

// Reached through `find_panel`; a kernel file so that it is compiled once per ISA and not into each of its users.
static void register_panel_q32() {}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
