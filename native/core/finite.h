// Are all weights of some rows finite? Looks at what can hold a NaN: floats themselves, the scales of block formats, the
// NaN codes of f8. Runs on rows just read, while they are in the cache.
#pragma once

#include <cstdint>

#include "quant/formats.h"

namespace tandem {

// `rows` points at `count` rows of `row_bytes` each. Gives the first bad row, or -1.
int64_t first_non_finite_row(const quant::FormatInfo& format, const uint8_t* rows, int64_t count, int64_t row_bytes);

}  // namespace tandem
