#include "core/signature.h"

#include <string>

namespace tandem {

namespace {

// One step under examination. The first rule that does not hold is kept; accessors give harmless answers after it.
class Check {
 public:
  Check(const Program& program, const Step& step) : p_(program), s_(step) {}

  Status result() const {
    if (broken_.empty()) return {};
    return Status(Code::program_invalid, "[native] " + s_.op + ": " + broken_ + "; step \"" + s_.name.substr(0, 200) + "\"; validate() the Program");
  }

  bool expect(bool holds, const char* rule) {
    if (!holds && broken_.empty()) broken_ = rule;
    return holds;
  }

  bool counts(size_t least, size_t most, size_t outputs) {
    return expect(s_.inputs.size() >= least && s_.inputs.size() <= most && s_.outputs.size() == outputs, "the number of operands is the op's");
  }
  bool has(size_t i) const { return i < s_.inputs.size() && s_.inputs[i].kind != Operand::Kind::none; }

  // Columns of an f32 value operand with these rows; 0 when it is not one.
  int64_t value(size_t i, Rows rows, ElementType type = ElementType::f32) {
    const bool is = has(i) && s_.inputs[i].kind == Operand::Kind::value;
    if (!expect(is, "an operand is a value")) return 0;
    const Value& v = p_.values[s_.inputs[i].index];
    expect(v.rows == rows, "an operand has the op's rows");
    expect(v.type == type, "an operand has the op's element type");
    return s_.inputs[i].columns;
  }
  Rows rows(size_t i) {
    const bool is = has(i) && s_.inputs[i].kind == Operand::Kind::value;
    return expect(is, "an operand is a value") ? p_.values[s_.inputs[i].index].rows : Rows::tokens;
  }
  // The operand is a weight of this shape; -1 stands for any length.
  void weight(size_t i, std::vector<int64_t> shape) {
    const bool is = has(i) && s_.inputs[i].kind == Operand::Kind::weight;
    if (!expect(is, "an operand is a weight")) return;
    const std::vector<int64_t>& given = p_.weights[s_.inputs[i].index].shape;
    bool fits = given.size() == shape.size();
    for (size_t d = 0; fits && d < shape.size(); d++) fits = shape[d] < 0 || shape[d] == given[d];
    expect(fits, "a weight has the op's shape");
  }
  // The weight, if it is one, is of plain floats.
  void plain(size_t i) {
    const bool is = has(i) && s_.inputs[i].kind == Operand::Kind::weight;
    const std::string& format = is ? p_.weights[s_.inputs[i].index].format : p_.name;
    expect(is && (format == "f32" || format == "f16" || format == "bf16"), "biases are f32, f16 or bf16");
  }
  int64_t dimension(size_t i, size_t d) const {
    const bool is = has(i) && s_.inputs[i].kind == Operand::Kind::weight;
    if (!is || d >= p_.weights[s_.inputs[i].index].shape.size()) return 0;
    return p_.weights[s_.inputs[i].index].shape[d];
  }
  void output(size_t i, Rows rows, int64_t columns, ElementType type = ElementType::f32) {
    if (i >= s_.outputs.size()) return;
    const Value& v = p_.values[s_.outputs[i]];
    expect(v.rows == rows && v.columns == columns && v.type == type, "an output has the op's shape and type");
  }
  // A whole attribute in [least, 2^30].
  int64_t whole(const char* key, int64_t least = 1) {
    const double number = s_.number(key, -1);
    const int64_t value = s_.integer(key, -1);
    expect(number == static_cast<double>(value) && value >= least && value <= (int64_t{1} << 30), key);
    return value;
  }
  void finite(const char* key) {
    const double number = s_.number(key, 1e308);
    expect(number > -1e30 && number < 1e30, key);
  }
  void word(const char* key, std::string_view a, std::string_view b) { expect(s_.text(key) == a || s_.text(key) == b, key); }
  const std::vector<KvStreamShape>* cache(size_t streams) {
    const int64_t index = whole("cache", 0);
    if (!expect(index >= 0 && index < static_cast<int64_t>(p_.kv_layers.size()), "cache is a layer of the KV layout")) return nullptr;
    const auto& layer = p_.kv_layers[static_cast<size_t>(index)];
    return expect(layer.size() == streams, "the cache layer has the op's streams") ? &layer : nullptr;
  }
  // Columns come in whole blocks of the format they are rounded to: kernels round whole blocks.
  void rounds(Activation format, int64_t columns) {
    const int64_t block = format == Activation::q8_256 ? 256 : format == Activation::q8_32 ? 32 : 1;
    expect(columns % block == 0, "columns are whole blocks of the activation format");
  }
  const Program& program() const { return p_; }
  const Step& step() const { return s_; }

 private:
  const Program& p_;
  const Step& s_;
  std::string broken_;
};

void embed(Check& c) {
  if (!c.counts(1, 1, 1)) return;
  c.weight(0, {-1, -1});
  c.expect(c.dimension(0, 0) >= c.program().vocab_size, "the table has a row for every token");
  c.output(0, Rows::tokens, c.dimension(0, 1));
}

void rms_norm(Check& c) {
  if (!c.counts(2, 2, 1)) return;
  const Rows rows = c.rows(0);
  const int64_t columns = c.value(0, rows), group = c.whole("group");
  c.finite("epsilon");
  c.weight(1, {group});
  c.expect(group > 0 && columns % group == 0, "columns are a multiple of group");
  c.output(0, rows, columns);
}

void linear(Check& c) {
  if (!c.counts(2, 3, 1)) return;
  const Rows rows = c.rows(0);
  c.weight(1, {-1, c.value(0, rows)});
  c.rounds(c.step().activation, c.value(0, rows));
  if (c.has(2)) c.weight(2, {c.dimension(1, 0)});
  c.output(0, rows, c.dimension(1, 0));
}

void rope(Check& c) {
  if (!c.counts(1, 1, 1)) return;
  const int64_t columns = c.value(0, Rows::tokens), head = c.whole("headSize"), offset = c.whole("offset", 0), width = c.whole("width", 0);
  c.expect(head > 0 && columns % head == 0, "columns are a multiple of headSize");
  c.expect(offset + width <= head && width % 2 == 0, "the rotated columns lie in the head and are even in number");
  c.expect(static_cast<int64_t>(c.step().numbers("frequencies").size()) == width / 2, "frequencies has width / 2 numbers");
  c.word("style", "pairs", "halves");
  c.finite("magnitude");
  c.output(0, Rows::tokens, columns);
}

void kv_append(Check& c) {
  if (!c.counts(2, 2, 0)) return;
  const auto* layer = c.cache(2);
  for (size_t i = 0; layer != nullptr && i < 2; i++)
    c.expect(c.value(i, Rows::tokens) == (*layer)[i].heads * (*layer)[i].width, "k and v have the width of the cache");
}

void mla_append(Check& c) {
  if (!c.counts(2, 2, 0)) return;
  const auto* layer = c.cache(1);
  const int64_t width = c.value(0, Rows::tokens) + c.value(1, Rows::tokens);
  if (layer != nullptr) c.expect((*layer)[0].heads == 1 && (*layer)[0].width == width, "latent and ropeKey have the width of the cache");
}

void copy(Check& c) {
  if (!c.counts(1, 1, 1)) return;
  const Rows rows = c.rows(0);
  const Operand& x = c.step().inputs[0];
  const ElementType type = x.kind == Operand::Kind::value ? c.program().values[x.index].type : ElementType::f32;
  c.output(0, rows, c.value(0, rows, type), type);
}

void submit(Check& c) {
  if (!c.counts(0, 0, 0)) return;
  c.whole("task", 0);
  c.whole("steps");
}

void wait(Check& c) {
  if (c.counts(0, 0, 0)) c.whole("task", 0);
}

void attention(Check& c) {
  if (!c.counts(1, 2, 1)) return;
  const auto* layer = c.cache(2);
  const int64_t heads = c.whole("heads"), kv = c.whole("kvHeads"), head = c.whole("headSize"), value = c.whole("valueSize");
  c.finite("scale");
  if (c.step().has("window")) c.whole("window", 0);
  if (c.has(1)) c.weight(1, {heads});
  c.expect(kv > 0 && heads % kv == 0, "heads are a multiple of kvHeads");
  c.expect(c.value(0, Rows::tokens) == heads * head, "q has heads * headSize columns");
  if (layer != nullptr)
    c.expect((*layer)[0].heads == kv && (*layer)[0].width == head && (*layer)[1].heads == kv && (*layer)[1].width == value, "the cache has the heads of the op");
  c.output(0, Rows::tokens, heads * value);
}

void mla(Check& c) {
  if (!c.counts(2, 4, 1)) return;
  const auto* layer = c.cache(1);
  const int64_t heads = c.whole("heads"), nope = c.whole("nope"), rope = c.whole("rope", 0), latent = c.whole("latent"), value = c.whole("value");
  c.finite("scale");
  c.expect(c.value(0, Rows::tokens) == heads * (nope + rope), "q has heads * (nope + rope) columns");
  c.expect(c.has(1) != (c.has(2) && c.has(3)) && c.has(2) == c.has(3), "there is kvB, or kB and vB");
  if (c.has(1)) c.weight(1, {heads * (nope + value), latent});
  if (c.has(2)) c.weight(2, {heads, latent, nope});
  if (c.has(3)) c.weight(3, {heads, value, latent});
  if (layer != nullptr) c.expect((*layer)[0].heads == 1 && (*layer)[0].width == latent + rope, "the cache has width latent + rope");
  c.output(0, Rows::tokens, heads * value);
}

void router(Check& c) {
  if (!c.counts(1, 2, 2)) return;
  const int64_t experts = c.value(0, Rows::tokens), topk = c.whole("topk"), groups = c.whole("groups"), kept = c.whole("groupTopk");
  if (c.has(1)) c.weight(1, {experts});
  c.word("score", "softmax", "sigmoid");
  c.word("groupScore", "max", "top2");
  c.finite("scale");
  c.expect(groups > 0 && experts % groups == 0 && kept <= groups, "groups divide the experts, groupTopk is at most groups");
  c.expect(groups > 0 && topk <= kept * (experts / groups), "topk experts are left after the groups are chosen");
  c.output(0, Rows::tokens, topk, ElementType::i32);
  c.output(1, Rows::tokens, topk);
}

void experts(Check& c) {
  if (!c.counts(6, 9, 1)) return;
  const int64_t hidden = c.value(0, Rows::tokens), topk = c.value(1, Rows::tokens, ElementType::i32);
  c.expect(c.value(2, Rows::tokens) == topk, "ids and weights have the same columns");
  c.weight(3, {-1, -1, hidden});
  c.weight(4, {c.dimension(3, 0), c.dimension(3, 1), hidden});
  c.weight(5, {c.dimension(3, 0), hidden, c.dimension(3, 1)});
  c.rounds(c.step().activation, hidden);
  c.rounds(c.step().middle, c.dimension(3, 1));
  c.word("activation", "silu", "swiglu-clamped");
  if (c.step().has("alpha")) c.finite("alpha");
  if (c.step().has("limit")) c.finite("limit");
  for (size_t i = 6; i < 9; i++) {
    if (!c.has(i)) continue;
    c.weight(i, {c.dimension(3, 0), i == 8 ? hidden : c.dimension(3, 1), 1});
    c.plain(i);
  }
  c.output(0, Rows::tokens, hidden);
}

void rank_experts(Check& c) {
  if (!c.counts(2, 2, 2)) return;
  const Rows rows = c.rows(0);
  const int64_t topk = c.value(0, rows, ElementType::i32);
  c.expect(c.value(1, rows) == topk, "ids and weights have the same columns");
  c.output(0, rows, topk, ElementType::i32);
  c.output(1, rows, topk);
}

void glu(Check& c) {
  if (!c.counts(2, 2, 1)) return;
  const Rows rows = c.rows(0);
  const int64_t columns = c.value(0, rows);
  c.expect(c.value(1, rows) == columns, "gate and up have the same columns");
  c.word("activation", "silu", "silu");
  c.output(0, rows, columns);
}

void add(Check& c) {
  if (!c.counts(2, 2, 1)) return;
  const Rows rows = c.rows(0);
  const int64_t columns = c.value(0, rows);
  c.expect(c.value(1, rows) == columns, "both terms have the same columns");
  c.output(0, rows, columns);
}

void gather_rows(Check& c) {
  if (!c.counts(1, 1, 1)) return;
  c.output(0, Rows::outputs, c.value(0, Rows::tokens));
}

void sample(Check& c) {
  if (!c.counts(1, 1, 1)) return;
  c.expect(c.value(0, Rows::outputs) == c.program().vocab_size, "logits have a column for every token");
  c.output(0, Rows::outputs, 1, ElementType::i32);
}

struct Rule {
  const char* op;
  void (*check)(Check&);
};
constexpr Rule kRules[] = {
    {"embed", embed},         {"rms-norm", rms_norm}, {"linear", linear}, {"rope", rope},       {"kv-append", kv_append},
    {"mla-append", mla_append}, {"attention", attention}, {"mla", mla},   {"router", router},   {"experts", experts},
    {"rank-experts", rank_experts},
    {"copy", copy},           {"submit", submit},     {"wait", wait},
    {"glu", glu},             {"add", add},           {"gather-rows", gather_rows}, {"sample", sample},
};

}  // namespace

namespace {

Status check_steps(const Program& program, const std::vector<Step>& steps) {
  for (const Step& step : steps) {
    const Rule* rule = nullptr;
    for (const Rule& candidate : kRules)
      if (step.op == candidate.op) rule = &candidate;
    if (rule == nullptr)
      return Status(Code::program_invalid, "[native] native knows the op of every step; step \"" + step.name.substr(0, 200) + "\" is \"" + step.op.substr(0, 200) + "\"; run npm run build");
    Check check(program, step);
    rule->check(check);
    TANDEM_TRY(check.result());
  }
  return {};
}

}  // namespace

Status check_signatures(const Program& program) {
  TANDEM_TRY(check_steps(program, program.steps));
  return check_steps(program, program.decode_steps);
}

}  // namespace tandem
