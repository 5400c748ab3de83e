// The one interface between the executor and the kernels.
//
// A kernel is a function over a StepContext that a file registers under {op, weight format, isa}. `find_kernel` takes the
// strongest build at or below the ISA of the run; weight format "" matches any format. Kernels call `context.pool` to go
// parallel; they never allocate on the hot path except from `context.scratch`, never throw, never print.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "core/program.h"
#include "core/status.h"

namespace tandem {

class ThreadPool;
struct Batch;
struct TileEngine;

// Order = strength. A machine that has one has all before it (checked in cpu/isa.cc).
enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2, amx = 3 };

const char* isa_name(Isa isa);

// A dense or viewed matrix: element (r, c) is data[r * stride + c].
struct MatrixView {
  float* data = nullptr;        // null for an absent operand; i32 values are reinterpreted by `ints`
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t stride = 0;           // elements between rows
  float* row(int64_t r) const { return data + r * stride; }
  int32_t* ints(int64_t r) const { return reinterpret_cast<int32_t*>(data) + r * stride; }
};

// A weight bound to memory. `outer` pointers: one for [N] and [N,K]; E for [E,N,K] (the residency table: read at every
// pass, never cached in a kernel). Row n of matrix e starts at outer[e] + n * row_bytes, unless the rows are split over NUMA
// nodes (only those of `linear` and `experts` are): then `outer` has `nodes` pointers a matrix, and rows
// [node_rows[i], node_rows[i + 1]) follow each other from outer[e * nodes + i] on. Bounds are multiples of kNodeRows.
struct BoundWeight {
  const quant::FormatInfo* format = nullptr;
  int64_t experts = 1;
  int64_t rows = 0;             // N (1 for a vector)
  int64_t columns = 0;          // K
  int64_t row_bytes = 0;        // from one row to the next; more than a row has where other rows lie between
  const std::atomic<const uint8_t*>* outer = nullptr;
  const uint8_t* const* scales = nullptr; // per matrix: [ceil(N/scale_rows), ceil(K/scale_columns)] as the format has them, or null
  int64_t scale_stride = 0;               // bytes from one row of scales to the next
  int nodes = 1;
  const int64_t* node_rows = nullptr;     // [nodes + 1], or null: not split
  static constexpr int64_t kNodeRows = 64;
  // A whole matrix; of weights that are not split.
  const uint8_t* matrix(int64_t e) const { return outer[e].load(std::memory_order_acquire); }
  // Row n; those after it, up to the node's bound, follow row_bytes apart.
  const uint8_t* row(int64_t e, int64_t n) const {
    if (node_rows == nullptr) return matrix(e) + n * row_bytes;
    int node = 0;
    while (n >= node_rows[node + 1]) node++;
    return outer[e * nodes + node].load(std::memory_order_acquire) + (n - node_rows[node]) * row_bytes;
  }
  const uint8_t* row_scales(int64_t e, int64_t n) const;  // scales of row n, aligned to nothing; or null
};

// The paged cache. Element type by `type`; a stream's page block is [heads][page_tokens][width].
struct KvCache {
  using Type = KvType;  // kernels of the CPU have f32 and bf16
  struct Stream { int64_t heads, width, offset; };       // offset in elements from the start of a page
  uint8_t* base = nullptr;
  int64_t pages = 0;
  int64_t page_elements = 0;
  int64_t page_tokens = 64;
  Type type = Type::bf16;
  std::vector<std::vector<Stream>> layers;
  // First element of (page, stream, head): [page_tokens][width].
  uint8_t* block(int32_t page, const Stream& stream, int64_t head) const {
    const int64_t element = page * page_elements + stream.offset + head * page_tokens * stream.width;
    return base + element * kv_bytes(type);
  }
};

// Memory that lives for one step. Aligned to 64 bytes. Grows between passes, never inside the hot path once warm.
class Scratch {
 public:
  // Bytes [0, size) of the step; null when the machine refuses. Each call gives new memory until `reset`.
  void* take(size_t size);
  void reset();
  // Bytes held, used or not.
  size_t capacity() const;
  template <typename T> T* take_array(size_t count) { return static_cast<T*>(take(count * sizeof(T))); }
  ~Scratch();
 private:
  struct Block { void* data; size_t size; size_t used; };
  std::vector<Block> blocks_;
};

struct PassOutput;  // core/executor.h: tokens, logprobs, top lists

struct StepContext {
  const Step* step = nullptr;             // attributes, activation, middle
  const Batch* batch = nullptr;
  std::vector<MatrixView> inputs;         // by operand; weights leave theirs empty
  std::vector<const BoundWeight*> weights;// by operand; null where not a weight
  std::vector<MatrixView> outputs;
  KvCache* kv = nullptr;
  ThreadPool* pool = nullptr;
  Scratch* scratch = nullptr;
  PassOutput* result = nullptr;           // `sample` only
  Isa isa = Isa::scalar;
  const TileEngine* tile_engine = nullptr;  // cpu/tiles.h; null: none, and `step->tiles` is not looked at
  const uint8_t* dead = nullptr;          // per sequence of the batch: 1 = cancelled, its rows may be skipped
};

using KernelFunction = Status (*)(StepContext&);

struct KernelKey {
  std::string_view op;
  std::string_view format;   // weight format of the op's (first) matrix operand; "" = any
  Isa isa;
};

// Called by the register functions of each kernel file (no static initializers: order and dead stripping are not ours).
void register_kernel(KernelKey key, KernelFunction function);
KernelFunction find_kernel(std::string_view op, std::string_view format, Isa isa);
// Lists what exists, for error messages: "experts: q4_k (avx2, avx512) …".
std::string describe_kernels(std::string_view op);

}  // namespace tandem
