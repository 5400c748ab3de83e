// Rows of weights cut into units of work, node by node: a thread walks what its NUMA node holds.
//
//     rows     node 0 [0 ............ b1)   node 1 [b1 ........ N)
//     items    g0: u u u | g1: u u u | …    g0: u u | g1: u u | …      g: the matrices that are walked together
#pragma once

#include <cstdint>

#include "core/kernel.h"
#include "cpu/pool.h"
#include "cpu/team_plan.h"

namespace tandem {

class NodeUnits {
 public:
  // Units of `unit` rows of `groups` matrices, each with the rows of `weight`.
  NodeUnits(const BoundWeight& weight, int64_t unit, int64_t groups) : unit_(unit) {
    split_ = weight.node_rows != nullptr;
    nodes_ = split_ ? weight.nodes : 1;
    rows_[0] = items_[0] = 0;
    for (int node = 0; node < nodes_; node++) {
      rows_[node + 1] = split_ ? weight.node_rows[node + 1] : weight.rows;
      items_[node + 1] = items_[node] + groups * units_of(node);
    }
  }

  int64_t count() const { return items_[nodes_]; }

  // Hands out items one by one.
  void reset(WorkRange& range) const {
    if (split_) range.reset_by_node(items_, 1);
    else range.reset(items_[nodes_], 1);
  }

  // Rows [begin, end) of a group, all on one node.
  struct Unit {
    int64_t group, begin, end;
  };
  Unit at(int64_t item) const {
    int node = 0;
    while (item >= items_[node + 1]) node++;
    const int64_t i = item - items_[node], units = units_of(node), begin = rows_[node] + i % units * unit_;
    return {i / units, begin, begin + unit_ < rows_[node + 1] ? begin + unit_ : rows_[node + 1]};
  }

 private:
  int64_t units_of(int node) const { return (rows_[node + 1] - rows_[node] + unit_ - 1) / unit_; }
  int64_t unit_;
  bool split_;
  int nodes_;
  int64_t rows_[kMaxNodes + 1], items_[kMaxNodes + 1];
};

}  // namespace tandem
