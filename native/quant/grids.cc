#include "grids_expand.h"

namespace tandem::quant {

constinit const Grid<uint64_t, 2048> kGridIq1S = expand<uint64_t>(kIq1SData);
constinit const Grid<uint64_t, 256> kGridIq2Xxs = expand<uint64_t>(kIq2XxsData);
constinit const Grid<uint64_t, 512> kGridIq2Xs = expand<uint64_t>(kIq2XsData);
constinit const Grid<uint64_t, 1024> kGridIq2S = expand<uint64_t>(kIq2SData);
constinit const Grid<uint32_t, 256> kGridIq3Xxs = expand<uint32_t>(kIq3XxsData);
constinit const Grid<uint32_t, 512> kGridIq3S = expand<uint32_t>(kIq3SData);

}  // namespace tandem::quant
