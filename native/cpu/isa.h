// What this processor and its operating system can run.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "core/kernel.h"
#include "core/status.h"

namespace tandem {

struct CpuFeatures {
  std::string vendor, model;
  bool avx2 = false, fma = false, f16c = false, bmi = false, bmi2 = false, lzcnt = false, popcnt = false;
  bool avx512f = false, avx512bw = false, avx512vl = false, avx512dq = false, avx512cd = false;
  bool avx512vnni = false, avx512bf16 = false, avx512vbmi = false, avx512fp16 = false;
  bool amx_tile = false, amx_int8 = false, amx_bf16 = false;  // with the kernel's permission to use tiles
  std::string amx_problem;  // why a processor that names AMX is not used as one; else empty
  std::vector<std::string> names() const;
};

// Found out once per process. A feature counts only if the operating system saves its registers. Kernels of the avx512
// build ask here before they use BF16 (through a function compiled with a target attribute).
const CpuFeatures& cpu_features();

// Builds that run here, weakest first; always starts with scalar.
const std::vector<Isa>& available_isas();

// Whether the code of a build may run here. That of amx also where there are no tiles, as far as it needs none: its engine
// for AVX512-BF16 and its emulation (cpu/tiles.h).
bool runs_build(Isa isa);

// "" = TANDEM_ISA from the environment, or the strongest. Unknown or unsupported names are an error that lists the others.
Status choose_isa(std::string_view requested, Isa& out);

}  // namespace tandem
