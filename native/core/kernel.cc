#include "core/kernel.h"

#include <cstdlib>
#include <map>
#include <mutex>
#include <string>

#include "quant/formats.h"

namespace tandem {

namespace {

struct Entry {
  std::string op, format;
  Isa isa;
  KernelFunction function;
};

// Filled once by register_cpu_kernels, read at load only. Never destroyed: process.exit runs static destructors while
// threads of a pass are still running.
std::mutex& registry_mutex() {
  static std::mutex& mutex = *new std::mutex;
  return mutex;
}
std::vector<Entry>& registry() {
  static std::vector<Entry>& entries = *new std::vector<Entry>;
  return entries;
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::scalar: return "scalar";
    case Isa::avx2: return "avx2";
    case Isa::avx512: return "avx512";
    case Isa::amx: return "amx";
  }
  return "scalar";
}

void register_kernel(KernelKey key, KernelFunction function) {
  std::lock_guard lock(registry_mutex());
  registry().push_back({std::string(key.op), std::string(key.format), key.isa, function});
}

KernelFunction find_kernel(std::string_view op, std::string_view format, Isa isa) {
  std::lock_guard lock(registry_mutex());
  const Entry* best = nullptr;
  for (const Entry& entry : registry()) {
    if (entry.op != op || entry.isa > isa || (!entry.format.empty() && entry.format != format)) continue;
    // A kernel made for the format goes before one for any format, then the stronger ISA.
    const auto rank = [](const Entry& e) { return (e.format.empty() ? 0 : 100) + static_cast<int>(e.isa); };
    if (best == nullptr || rank(entry) > rank(*best)) best = &entry;
  }
  return best ? best->function : nullptr;
}

std::string describe_kernels(std::string_view op) {
  std::lock_guard lock(registry_mutex());
  std::map<std::string, std::string> by_format;
  for (const Entry& entry : registry()) {
    if (entry.op != op) continue;
    std::string& list = by_format[entry.format.empty() ? "any format" : entry.format];
    if (!list.empty()) list += ", ";
    list += isa_name(entry.isa);
  }
  if (by_format.empty()) return std::string(op) + ": none";
  std::string text = std::string(op) + ":";
  for (const auto& [format, isas] : by_format) text += " " + format + " (" + isas + ")";
  return text;
}

void* Scratch::take(size_t size) {
  size = (size + 63) & ~size_t{63};
  if (size == 0) size = 64;
  for (Block& block : blocks_) {
    if (block.size - block.used < size) continue;
    void* data = static_cast<uint8_t*>(block.data) + block.used;
    block.used += size;
    return data;
  }
  // `reset` joins the blocks, so that a later step finds room in one.
  const size_t minimum = size_t{1} << 20;
  const size_t bytes = size > minimum ? size : minimum;
  void* data = std::aligned_alloc(64, bytes);
  if (data == nullptr) return nullptr;
  blocks_.push_back({data, bytes, size});
  return data;
}

// Several blocks become one of their size: needs that grow with the context then double the memory now and then instead of
// adding a block at every token.
void Scratch::reset() {
  if (blocks_.size() > 1) {
    size_t total = 0;
    for (const Block& block : blocks_) {
      total += block.size;
      std::free(block.data);
    }
    blocks_.clear();
    void* data = std::aligned_alloc(64, total);
    if (data != nullptr) blocks_.push_back({data, total, 0});
  }
  for (Block& block : blocks_) block.used = 0;
}

size_t Scratch::capacity() const {
  size_t total = 0;
  for (const Block& block : blocks_) total += block.size;
  return total;
}

Scratch::~Scratch() {
  for (Block& block : blocks_) std::free(block.data);
}

}  // namespace tandem
