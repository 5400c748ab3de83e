// The CPU as a device: its kernels and how strong a build of them may run here.
#pragma once

namespace tandem {

// Registers every kernel of every ISA this binary was built with. Once per process; further calls do nothing.
void register_cpu_kernels();

}  // namespace tandem
