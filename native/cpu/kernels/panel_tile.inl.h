// What panels of all formats share.
#pragma once

#include "cpu/kernels/dot_tile.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

// A pointer that stays in a register of its own. Compilers add offsets to several in one vector, through memory; the read
// behind those writes would wait until all work before it is done.
template <typename T>
static inline __attribute__((always_inline)) T* by_itself(T* p) {
  asm("" : "+r"(p));
  return p;
}

}  // namespace tandem::TANDEM_ISA_NAMESPACE
