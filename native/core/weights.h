// Weights in memory: reads or maps what the Program uses, checks it, and binds every weight to its bytes.
//
// `pages`: byte ranges are read in parallel into one anonymous region with huge pages; each tensor starts at a multiple of 64.
// `mapped`: files are mapped read-only; tensors lie as the file has them, aligned to nothing. What fits into memory is paged in at
// load, the rest when it is touched.
// `automatic`: pages where all fits; else routed experts stay mapped and the rest goes into pages; else all is mapped.
// Where the team has several NUMA nodes, the matrices of `linear` and `experts` that are in the region lie by rows: every node has
// its rows of each, in memory of its own; what all threads use is spread over the nodes.
// Small tensors (norms, biases, routers) and scale tensors are read in every mode, so they are always aligned to 64; so are
// matrices that are stored column by column, which are turned in the region.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/kernel.h"
#include "core/loading.h"
#include "core/memory.h"
#include "core/program.h"
#include "core/status.h"
#include "core/weight_reader.h"
#include "cpu/team_plan.h"

namespace tandem {

// Weights that another device takes from where they are bound, once: they are not read into memory, and not counted as taking it.
struct RemoteWeights {
  std::vector<bool> weights;  // by id; empty: none
  uint64_t bytes = 0;         // that the device will take: they count as progress
};

class WeightStore {
 public:
  WeightStore();
  WeightStore(const WeightStore&) = delete;
  WeightStore& operator=(const WeightStore&) = delete;
  ~WeightStore();

  // `other_bytes`: what the model takes beside its weights, counted when choosing the mode and refusing what cannot fit.
  // `most`: bytes that all of it may take, 0 = what the machine has. `team`: whose nodes the weights are for; more threads
  // than it has read, since reading is waiting.
  Status load(const Program& program, std::vector<FileInput> files, LoadMode mode, int64_t other_bytes, int64_t most, const TeamPlan& team,
              const RemoteWeights& remote, LoadProgress& progress);

  const BoundWeight& weight(size_t id) const { return *bound_[id]; }
  int64_t bytes() const { return bytes_; }
  int64_t split_bytes() const { return split_bytes_; }  // of matrices that lie on the nodes by rows
  const LoadReport& report() const { return report_; }

  // True once a mapped page could not be read: what was computed since is worth nothing. Cheap.
  bool lost() const;
  // FILE_IO where a mapped file was lost or changed since it was loaded. One look at each mapped file.
  Status unchanged() const;
  // The same of the files that remote weights were taken from.
  Status remote_unchanged() const;

 private:
  struct Range;
  struct Binding;
  Status open_files();
  Status collect(const Program& program, const std::vector<bool>& remote);
  void find_remote(const std::vector<bool>& remote);
  void choose_split(const Program& program, const TeamPlan& team);
  Status choose_mode(LoadMode mode, int64_t other_bytes, int64_t most);
  bool in_region(const Range& range) const;
  Status place(const TeamPlan& team);
  std::vector<WeightPiece> pieces_of(const Range& range) const;
  Status read(int threads, LoadProgress& progress);
  Status turn(int threads, const LoadProgress& progress);
  void bind(const Program& program);
  void conclude();

  std::vector<std::unique_ptr<LoadFile>> files_;
  std::vector<Range> ranges_;                  // distinct byte ranges, in the order of the Program
  std::vector<std::vector<size_t>> part_of_;   // per weight: index of its ranges
  std::vector<std::vector<size_t>> scales_of_;
  std::vector<std::unique_ptr<Binding>> bindings_;
  std::vector<const BoundWeight*> bound_;
  std::vector<const ModelFile*> mapped_;       // files that are used where they are mapped
  std::vector<const ModelFile*> remote_files_;  // files that remote weights are in
  Region region_;
  LoadReport report_;
  bool dense_mapped_ = false, experts_mapped_ = false;
  uint64_t keep_ = 0;                          // bytes of the files that stay in the page cache
  std::map<int64_t, std::vector<int64_t>> bounds_;  // rows of a matrix -> their bounds by node
  int64_t bytes_ = 0, split_bytes_ = 0;
};

}  // namespace tandem
