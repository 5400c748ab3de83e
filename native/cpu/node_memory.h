// Where memory lies on a machine with several NUMA nodes: raw system calls, no library. All of it is a wish: a full node
// gives way to another, a kernel without NUMA refuses, and nothing but speed changes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/team_plan.h"

namespace tandem {

// Pages of [data, data + size) that are touched from now on come from system node `node`.
void place_on_node(void* data, size_t size, int node);

// The same, from the nodes of a team in turn: for what all threads use. Nothing where the team has one.
void place_on_all(void* data, size_t size, const TeamPlan& plan);

// Bounds of `rows` rows over the nodes of a team, in proportion to their threads, at multiples of BoundWeight::kNodeRows:
// [nodes + 1]. Empty where there are too few rows or one node.
std::vector<int64_t> split_rows(int64_t rows, const TeamPlan& plan);

}  // namespace tandem
