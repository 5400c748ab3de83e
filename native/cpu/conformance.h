// Single kernels run on given numbers, for the suite that compares every instruction set with TypeScript.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "core/status.h"

namespace tandem {

// Decodes `rows` rows of `columns` weights with the kernels of one ISA. `scales`: of the whole matrix, where the format has them.
Status conformance_decode(const std::string& format, const uint8_t* bytes, size_t size, int64_t rows, int64_t columns,
                          const std::vector<float>& scales, const std::string& isa, std::vector<float>& out);

// Rounds one row to an activation format (q8_32, q8_256).
Status conformance_quantize(const std::string& format, const std::vector<float>& x, const std::string& isa, std::vector<int8_t>& codes,
                            std::vector<float>& scales);

}  // namespace tandem
