// The Program as native sees it: the blob of src/program/encode.ts, decoded once and checked.
//
// `decode_program` is the border: whatever bytes come in, what comes out has every id, range and count in bounds, or it is
// a Status with code program_invalid. Whether operands fit their op is checked by core/signature.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/status.h"

namespace tandem::quant {
struct FormatInfo;  // quant/formats.h
}

namespace tandem {

// How activations are rounded before they meet weights; names as in src/program/program.ts.
enum class Activation : int { f32 = 0, q8_32 = 1, q8_256 = 2, bf16 = 3 };

const char* activation_name(Activation activation);

// Rows of a value: T tokens of the pass, or O output rows.
enum class Rows : uint32_t { tokens = 0, outputs = 1 };
enum class ElementType : uint32_t { f32 = 0, i32 = 1 };

struct BufferSlot {
  Rows rows;
  int64_t columns;  // > 0
};

struct Value {
  std::string name;
  ElementType type;
  Rows rows;
  int64_t columns;  // > 0
  uint32_t slot;    // its slot has the same rows and at least as many columns
};

// Bytes [offset, offset + bytes) of a file of the list given beside the Program.
struct Location {
  uint32_t file;
  uint64_t offset;
  uint64_t bytes;
};

struct Weight {
  std::string name;
  std::string format;
  std::vector<int64_t> shape;    // [N], [N, K] or [E, N, K], all > 0
  std::vector<Location> parts;   // one with everything, or (3-D) one per matrix
  std::vector<Location> scales;  // empty, or parallel to parts
  bool scales_bf16 = false;      // the scales are bf16 where the format's own are f32
  bool by_columns = false;       // the parts store matrices as [K, of] numbers
  // Matrices that are some rows of stored ones: row n is stored row start + n * step of `of`, all in range.
  int64_t start = 0, step = 1, of = 0;
};

struct Operand {
  enum class Kind { none, value, weight };
  Kind kind = Kind::none;
  uint32_t index = 0;   // of the value or weight
  int64_t start = 0;    // values: columns [start, start + columns)
  int64_t columns = 0;
};

struct Attribute {
  enum class Kind { number, flag, text, numbers };
  std::string key;
  Kind kind = Kind::number;
  double number = 0;
  bool flag = false;
  std::string text;
  std::vector<double> numbers;
};

// One instruction. Operands and attributes are the op's (docs/reference/ops.md).
struct Step {
  std::string op;
  std::string name;
  int32_t layer = -1;
  std::vector<Operand> inputs;
  std::vector<uint32_t> outputs;
  std::vector<Attribute> attributes;
  std::string device;
  Activation activation = Activation::f32;
  Activation middle = Activation::f32;  // `experts`: rounding of the intermediate
  // Fast mode: where one matrix meets at least so many rows, both operands are rounded to bf16 for tiles. 0 = never.
  int64_t tiles = 0;

  // Attribute access never fails: an attribute that is absent, or of another type, gives the fallback.
  bool has(std::string_view key) const { return find(key) != nullptr; }
  double number(std::string_view key, double fallback = 0) const;
  int64_t integer(std::string_view key, int64_t fallback = 0) const;
  bool flag(std::string_view key, bool fallback = false) const;
  std::string_view text(std::string_view key, std::string_view fallback = {}) const;
  const std::vector<double>& numbers(std::string_view key) const;  // empty when absent

 private:
  const Attribute* find(std::string_view key) const;
};

struct KvStreamShape {
  int64_t heads;
  int64_t width;
};

// How an element of the cache is stored.
enum class KvType : int { f32 = 0, bf16 = 1, e4m3 = 2 };
inline constexpr int64_t kv_bytes(KvType type) { return type == KvType::f32 ? 4 : type == KvType::bf16 ? 2 : 1; }
inline constexpr const char* kv_type_name(KvType type) { return type == KvType::f32 ? "f32" : type == KvType::bf16 ? "bf16" : "e4m3"; }

struct Program {
  std::string name;
  int64_t vocab_size = 0;
  int64_t context_length = 0;
  uint32_t logits = 0;  // id of the value [O, V]
  int64_t page_tokens = 0;
  KvType kv_type = KvType::bf16;
  std::vector<std::vector<KvStreamShape>> kv_layers;
  std::vector<BufferSlot> slots;
  std::vector<Value> values;
  std::vector<Weight> weights;
  std::vector<Step> steps;
  // The same steps as passes compute them in which every sequence has one row; empty: like all others.
  std::vector<Step> decode_steps;
  // Values that are read, or are the logits, and that no step writes: whoever steps through the Program gives them. Such a
  // Program cannot be run whole.
  std::vector<uint32_t> given;

  int64_t page_elements() const;
};

// `files`: how many files locations may refer to.
Status decode_program(const uint8_t* data, size_t size, uint32_t files, Program& out);

}  // namespace tandem
