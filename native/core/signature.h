// Do the operands and attributes of every step fit its op? Kernels rely on it: after this check they may index as the op's
// contract (docs/reference/ops.md) says without looking again.
#pragma once

#include "core/program.h"
#include "core/status.h"

namespace tandem {

Status check_signatures(const Program& program);

}  // namespace tandem
