#include "core/program.h"

#include <cmath>

#include "core/reader.h"

namespace tandem {

namespace {

constexpr uint32_t kMagic = 0x4d444e54;  // 'TNDM'
constexpr uint32_t kVersion = 2;
constexpr uint32_t kDecodeVersion = 3;  // steps say, too, how they compute where every sequence has one row
// Far beyond any model, small enough that products of two of them fit in 63 bits.
constexpr int64_t kMaxColumns = int64_t{1} << 30;

Status invalid(const std::string& rule, const std::string& given) {
  return Status(Code::program_invalid, "[native] " + rule + "; " + given + "; encode the Program again with encodeProgram");
}

std::string quoted(const std::string& name) { return "\"" + name.substr(0, 200) + "\""; }

bool parse_activation(const std::string& text, Activation& out) {
  for (Activation a : {Activation::f32, Activation::q8_32, Activation::q8_256, Activation::bf16}) {
    if (text == activation_name(a)) {
      out = a;
      return true;
    }
  }
  return false;
}

class Decoder {
 public:
  Decoder(const uint8_t* data, size_t size, uint32_t files, Program& program) : r_(data, size), files_(files), p_(program) {}

  Status decode() {
    const uint32_t magic = r_.u32();
    const uint32_t version = r_.u32();
    if (r_.failed() || magic != kMagic) return invalid("a Program blob starts with TNDM", "it does not");
    decodes_ = version == kDecodeVersion;
    if (version != kVersion && !decodes_) {
      return Status(Code::program_invalid, "[native] the native core reads Program encodings " + std::to_string(kVersion) + " and " + std::to_string(kDecodeVersion) +
                                               "; given version " + std::to_string(version) + "; run npm run build");
    }
    p_.name = r_.string();
    p_.vocab_size = r_.u32();
    p_.context_length = r_.u32();
    p_.logits = r_.u32();
    TANDEM_TRY(decode_kv());
    TANDEM_TRY(decode_slots());
    TANDEM_TRY(decode_values());
    TANDEM_TRY(decode_weights());
    TANDEM_TRY(decode_steps());
    if (r_.failed()) return truncated();
    if (r_.left() != 0) return invalid("a Program blob ends after its steps", std::to_string(r_.left()) + " bytes follow");
    return decode_logits();
  }

 private:
  Status truncated() const { return invalid("a Program blob is complete", "it ends early, or a count in it is absurd"); }

  Status columns(const char* what, const std::string& name, int64_t value) const {
    if (value > 0 && value <= kMaxColumns) return {};
    return invalid(std::string(what) + " has 1 to 2^30 columns", quoted(name) + " has " + std::to_string(value));
  }

  Status decode_kv() {
    p_.page_tokens = r_.u32();
    const uint32_t type = r_.u32();
    if (r_.failed()) return truncated();
    if (p_.page_tokens < 1 || p_.page_tokens > 65536) return invalid("a KV page holds 1 to 65536 tokens", std::to_string(p_.page_tokens));
    if (type > 2) return invalid("the KV type is 0 (f32), 1 (bf16) or 2 (e4m3)", std::to_string(type));
    p_.kv_type = static_cast<KvType>(type);
    const uint32_t layers = r_.count(4);
    p_.kv_layers.resize(layers);
    double elements = 0;
    for (auto& layer : p_.kv_layers) {
      const uint32_t streams = r_.count(8);
      if (r_.failed()) return truncated();
      for (uint32_t s = 0; s < streams; s++) {
        const int64_t heads = r_.u32(), width = r_.u32();
        TANDEM_TRY(columns("a KV stream", "heads", heads));
        TANDEM_TRY(columns("a KV stream", "width", width));
        elements += static_cast<double>(heads) * static_cast<double>(width) * static_cast<double>(p_.page_tokens);
        layer.push_back({heads, width});
      }
    }
    if (elements > 1e15) return invalid("a KV page has fewer than 1e15 elements", std::to_string(elements));
    return r_.failed() ? truncated() : Status();
  }

  Status rows(uint32_t word, Rows& out) const {
    if (word > 1) return invalid("rows are 0 (T) or 1 (O)", std::to_string(word));
    out = static_cast<Rows>(word);
    return {};
  }

  Status decode_slots() {
    const uint32_t count = r_.count(8);
    for (uint32_t i = 0; i < count; i++) {
      BufferSlot slot{};
      TANDEM_TRY(rows(r_.u32(), slot.rows));
      slot.columns = r_.u32();
      if (r_.failed()) return truncated();
      TANDEM_TRY(columns("a buffer slot", std::to_string(i), slot.columns));
      p_.slots.push_back(slot);
    }
    return r_.failed() ? truncated() : Status();
  }

  Status decode_values() {
    const uint32_t count = r_.count(20);
    p_.values.reserve(count);
    for (uint32_t i = 0; i < count; i++) {
      Value value{};
      value.name = r_.string();
      const uint32_t type = r_.u32();
      const uint32_t word = r_.u32();
      value.columns = r_.u32();
      value.slot = r_.u32();
      if (r_.failed()) return truncated();
      if (type > 1) return invalid("a value is 0 (f32) or 1 (i32)", quoted(value.name) + " is " + std::to_string(type));
      value.type = static_cast<ElementType>(type);
      TANDEM_TRY(rows(word, value.rows));
      TANDEM_TRY(columns("a value", value.name, value.columns));
      if (value.slot >= p_.slots.size() || p_.slots[value.slot].rows != value.rows || p_.slots[value.slot].columns < value.columns)
        return invalid("a value lies in a buffer slot that can hold it", quoted(value.name) + " names slot " + std::to_string(value.slot));
      p_.values.push_back(std::move(value));
    }
    return r_.failed() ? truncated() : Status();
  }

  Status decode_locations(const std::string& name, std::vector<Location>& out) {
    const uint32_t count = r_.count(20);
    if (r_.failed()) return truncated();
    out.reserve(count);
    for (uint32_t i = 0; i < count; i++) {
      Location location{};
      location.file = r_.u32();
      location.offset = r_.u64();
      location.bytes = r_.u64();
      if (r_.failed()) return truncated();
      if (location.file >= files_)
        return invalid("a location names one of the files", quoted(name) + " names file " + std::to_string(location.file) + " of " + std::to_string(files_));
      constexpr uint64_t limit = uint64_t{1} << 62;
      if (location.offset > limit || location.bytes > limit)
        return invalid("a location lies within 2^62 bytes", quoted(name) + " does not");
      out.push_back(location);
    }
    return {};
  }

  Status decode_weights() {
    const uint32_t count = r_.count(36);
    p_.weights.reserve(count);
    for (uint32_t i = 0; i < count; i++) {
      Weight weight;
      weight.name = r_.string();
      weight.format = r_.string();
      const uint32_t dimensions = r_.count(4);
      if (r_.failed()) return truncated();
      if (dimensions < 1 || dimensions > 3)
        return invalid("a weight has 1 to 3 dimensions", quoted(weight.name) + " has " + std::to_string(dimensions));
      double elements = 1;
      for (uint32_t d = 0; d < dimensions; d++) {
        weight.shape.push_back(r_.u32());
        TANDEM_TRY(columns("a weight's dimension", weight.name, weight.shape.back()));
        elements *= static_cast<double>(weight.shape.back());
      }
      if (elements > 1e15) return invalid("a weight has fewer than 1e15 elements", quoted(weight.name) + " has more");
      TANDEM_TRY(decode_locations(weight.name, weight.parts));
      TANDEM_TRY(decode_locations(weight.name, weight.scales));
      const size_t parts = weight.parts.size();
      if (parts != 1 && !(dimensions == 3 && parts == static_cast<size_t>(weight.shape[0])))
        return invalid("a weight has one part, or one per matrix", quoted(weight.name) + " has " + std::to_string(parts));
      if (!weight.scales.empty() && weight.scales.size() != parts)
        return invalid("scales are parallel to parts", quoted(weight.name) + " has " + std::to_string(weight.scales.size()) + " scales");
      const uint32_t stored = r_.u32();
      weight.start = r_.u32();
      weight.step = r_.u32();
      weight.of = r_.u32();
      if (r_.failed()) return truncated();
      if (stored > 3) return invalid("a weight says how it is stored in two bits", quoted(weight.name) + " has " + std::to_string(stored));
      weight.scales_bf16 = (stored & 1) != 0;
      weight.by_columns = (stored & 2) != 0;
      const int64_t rows = dimensions >= 2 ? weight.shape[dimensions - 2] : 1;
      if (weight.step < 1 || weight.start + (rows - 1) * weight.step >= weight.of)
        return invalid("the rows of a weight lie in its stored matrices", quoted(weight.name) + " has rows from " + std::to_string(weight.start) +
                                                                              " in steps of " + std::to_string(weight.step) + " of " + std::to_string(weight.of));
      if (elements / static_cast<double>(rows) * static_cast<double>(weight.of) > 1e15)
        return invalid("stored matrices have fewer than 1e15 elements", quoted(weight.name) + " has more");
      if ((weight.of != rows || weight.start != 0) && (dimensions != 3 || parts != 1))
        return invalid("only matrices in one tensor are some rows of stored ones", quoted(weight.name));
      p_.weights.push_back(std::move(weight));
    }
    return r_.failed() ? truncated() : Status();
  }

  Status decode_operand(const Step& step, Operand& out) {
    const uint32_t kind = r_.u32();
    if (kind == 0) return {};
    if (kind > 2) return invalid("an operand is 0, 1 or 2", "step " + quoted(step.name) + " has " + std::to_string(kind));
    out.index = r_.u32();
    if (kind == 2) {
      out.kind = Operand::Kind::weight;
      if (out.index < p_.weights.size()) return {};
      return invalid("an operand names a weight", "step " + quoted(step.name) + " names weight " + std::to_string(out.index));
    }
    out.kind = Operand::Kind::value;
    out.start = r_.u32();
    out.columns = r_.u32();
    if (r_.failed()) return truncated();
    if (out.index >= p_.values.size())
      return invalid("an operand names a value", "step " + quoted(step.name) + " names value " + std::to_string(out.index));
    if (out.columns < 1 || out.start + out.columns > p_.values[out.index].columns)
      return invalid("a view lies within its value", "step " + quoted(step.name) + " views [" + std::to_string(out.start) + ", " +
                                                         std::to_string(out.start + out.columns) + ") of " + quoted(p_.values[out.index].name));
    return {};
  }

  Status decode_attribute(const Step& step, Attribute& out) {
    out.key = r_.string();
    const uint32_t kind = r_.u32();
    if (kind > 3) return invalid("an attribute is of kind 0 to 3", "step " + quoted(step.name) + ", " + quoted(out.key));
    out.kind = static_cast<Attribute::Kind>(kind);
    if (kind == 0) out.number = r_.f64();
    if (kind == 1) out.flag = r_.u32() != 0;
    if (kind == 2) out.text = r_.string();
    if (kind == 3) {
      const uint32_t count = r_.count(8);
      out.numbers.reserve(count);
      for (uint32_t i = 0; i < count; i++) out.numbers.push_back(r_.f64());
    }
    return r_.failed() ? truncated() : Status();
  }

  // How a step computes.
  Status decode_execution(Step& step) {
    const std::string activation = r_.string();
    const std::string middle = r_.string();
    step.tiles = r_.u32();
    if (r_.failed()) return truncated();
    if (parse_activation(activation, step.activation) && parse_activation(middle, step.middle)) return {};
    return invalid("an activation format is f32, q8_32, q8_256 or bf16", "step " + quoted(step.name) + " has " + quoted(activation) + ", " + quoted(middle));
  }

  Status decode_steps() {
    const uint32_t count = r_.count(40);
    p_.steps.reserve(count);
    // A value that a step writes is written before it is read, and once: a buffer never shows another pass's numbers.
    std::vector<bool> written(p_.values.size(), false), given(p_.values.size(), false);
    for (uint32_t i = 0; i < count; i++) {
      Step step;
      step.op = r_.string();
      step.name = r_.string();
      step.layer = r_.i32();
      const uint32_t inputs = r_.count(4);
      if (r_.failed()) return truncated();
      for (uint32_t k = 0; k < inputs; k++) {
        Operand operand;
        TANDEM_TRY(decode_operand(step, operand));
        if (operand.kind == Operand::Kind::value && !written[operand.index]) given[operand.index] = true;
        step.inputs.push_back(operand);
      }
      const uint32_t outputs = r_.count(4);
      if (r_.failed()) return truncated();
      for (uint32_t k = 0; k < outputs; k++) {
        const uint32_t id = r_.u32();
        if (r_.failed()) return truncated();
        if (id >= p_.values.size() || written[id])
          return invalid("a step writes values that exist, each once", "step " + quoted(step.name) + " writes " + std::to_string(id));
        if (given[id]) return invalid("a value is written before it is read", quoted(p_.values[id].name) + " is read before step " + quoted(step.name) + " writes it");
        written[id] = true;
        step.outputs.push_back(id);
      }
      for (const Operand& operand : step.inputs)
        for (uint32_t id : step.outputs)
          if (operand.kind == Operand::Kind::value && p_.values[operand.index].slot == p_.values[id].slot)
            return invalid("a step's inputs and outputs do not share memory", "step " + quoted(step.name));
      const uint32_t attributes = r_.count(8);
      if (r_.failed()) return truncated();
      for (uint32_t k = 0; k < attributes; k++) {
        Attribute attribute;
        TANDEM_TRY(decode_attribute(step, attribute));
        step.attributes.push_back(std::move(attribute));
      }
      step.device = r_.string();
      TANDEM_TRY(decode_execution(step));
      if (decodes_) {
        p_.decode_steps.push_back(step);
        TANDEM_TRY(decode_execution(p_.decode_steps.back()));
      }
      p_.steps.push_back(std::move(step));
    }
    if (p_.logits >= p_.values.size()) return invalid("the logits are a value", "value " + std::to_string(p_.logits));
    given[p_.logits] = !written[p_.logits];
    for (uint32_t id = 0; id < given.size(); id++)
      if (given[id]) p_.given.push_back(id);
    return r_.failed() ? truncated() : Status();
  }

  Status decode_logits() const {
    const Value& logits = p_.values[p_.logits];
    if (logits.type != ElementType::f32 || logits.rows != Rows::outputs || logits.columns != p_.vocab_size)
      return invalid("the logits are f32 [O, V]", quoted(logits.name) + " has " + std::to_string(logits.columns) + " columns, V is " + std::to_string(p_.vocab_size));
    return {};
  }

  Reader r_;
  uint32_t files_;
  Program& p_;
  bool decodes_ = false;
};

}  // namespace

const char* activation_name(Activation activation) {
  switch (activation) {
    case Activation::f32: return "f32";
    case Activation::q8_32: return "q8_32";
    case Activation::q8_256: return "q8_256";
    case Activation::bf16: return "bf16";
  }
  return "f32";
}

const Attribute* Step::find(std::string_view key) const {
  for (const Attribute& attribute : attributes)
    if (attribute.key == key) return &attribute;
  return nullptr;
}

double Step::number(std::string_view key, double fallback) const {
  const Attribute* a = find(key);
  return a && a->kind == Attribute::Kind::number ? a->number : fallback;
}

int64_t Step::integer(std::string_view key, int64_t fallback) const {
  const double value = number(key, std::nan(""));
  return value >= -9e15 && value <= 9e15 ? static_cast<int64_t>(value) : fallback;
}

bool Step::flag(std::string_view key, bool fallback) const {
  const Attribute* a = find(key);
  return a && a->kind == Attribute::Kind::flag ? a->flag : fallback;
}

std::string_view Step::text(std::string_view key, std::string_view fallback) const {
  const Attribute* a = find(key);
  return a && a->kind == Attribute::Kind::text ? std::string_view(a->text) : fallback;
}

const std::vector<double>& Step::numbers(std::string_view key) const {
  static const std::vector<double>& none = *new std::vector<double>;  // never destroyed, see core/kernel.cc
  const Attribute* a = find(key);
  return a && a->kind == Attribute::Kind::numbers ? a->numbers : none;
}

int64_t Program::page_elements() const {
  int64_t total = 0;
  for (const auto& layer : kv_layers)
    for (const KvStreamShape& stream : layer) total += stream.heads * stream.width * page_tokens;
  return total;
}

Status decode_program(const uint8_t* data, size_t size, uint32_t files, Program& out) {
  out = Program();
  return Decoder(data, size, files, out).decode();
}

}  // namespace tandem
