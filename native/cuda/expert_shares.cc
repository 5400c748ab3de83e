#include "cuda/expert_shares.h"

#include <algorithm>
#include <iterator>
#include <string>

#include "cuda/kernels/formats.h"
#include "cuda/schedule.h"

namespace tandem::cuda {

namespace {

#define TANDEM_FORMAT_NAME(X, name, Block) #name,
constexpr const char* kFormats[] = {TANDEM_CUDA_FORMATS(TANDEM_FORMAT_NAME, 0)};
#undef TANDEM_FORMAT_NAME

constexpr int64_t kNone = -1;

class Finder {
 public:
  explicit Finder(const Program& program) : p_(program), writers_(program.values.size(), kNone) {
    for (size_t i = 0; i < p_.steps.size(); i++)
      for (const uint32_t id : p_.steps[i].outputs) writers_[id] = static_cast<int64_t>(i);
  }

  bool find(uint32_t index, ExpertShare& out) const {
    const Step& step = p_.steps[index];
    if (step.op != "experts" || step.device != "cpu" || !readable(step)) return false;
    out.step = index;
    out.after = 0;
    uint32_t* const sources[] = {&out.x, &out.ids, &out.weights};
    for (size_t operand = 0; operand < 3; operand++) {
      int ordinal = -1;
      if (!source(step.inputs[operand], operand == 0, *sources[operand], ordinal, out.after)) return false;
      if (operand > 0 && ordinal != out.ordinal) return false;
      out.ordinal = ordinal;
    }
    for (const uint32_t* value : sources)
      if (!lives(*value, out.after)) return false;
    return destination(step.outputs[0], out);
  }

 private:
  bool readable(const Step& step) const {
    for (size_t operand = 3; operand < 6; operand++) {
      const std::string& format = p_.weights[step.inputs[operand].index].format;
      if (std::find(std::begin(kFormats), std::end(kFormats), format) == std::end(kFormats)) return false;
    }
    return true;
  }

  // The value on a GPU that an operand is a copy of, or columns of one.
  bool source(const Operand& operand, bool whole, uint32_t& value, int& ordinal, uint32_t& after) const {
    if (operand.kind != Operand::Kind::value) return false;
    if (whole && (operand.start != 0 || operand.columns != p_.values[operand.index].columns)) return false;
    const int64_t copy = writers_[operand.index];
    if (copy == kNone || p_.steps[static_cast<size_t>(copy)].op != "copy") return false;
    value = p_.steps[static_cast<size_t>(copy)].inputs[0].index;
    const int64_t writer = writers_[value];
    if (writer == kNone) return false;
    ordinal = device_ordinal(p_.steps[static_cast<size_t>(writer)].device);
    after = std::max(after, static_cast<uint32_t>(copy));
    return ordinal >= 0;
  }

  // Nothing else is written into its buffer up to that step.
  bool lives(uint32_t value, uint32_t until) const {
    for (size_t i = static_cast<size_t>(writers_[value]); i <= until; i++)
      for (const uint32_t id : p_.steps[i].outputs)
        if (id != value && p_.values[id].slot == p_.values[value].slot && static_cast<int64_t>(i) != writers_[value]) return false;
    return true;
  }

  // The one step that reads a whole value; kNone: none, several, or a part.
  int64_t reader(uint32_t value) const {
    int64_t found = kNone;
    for (size_t i = 0; i < p_.steps.size(); i++)
      for (const Operand& input : p_.steps[i].inputs) {
        if (input.kind != Operand::Kind::value || input.index != value) continue;
        if (found != kNone || input.start != 0 || input.columns != p_.values[value].columns) return kNone;
        found = static_cast<int64_t>(i);
      }
    return found;
  }

  // Sums of the CPU go along.
  bool destination(uint32_t value, ExpertShare& out) const {
    for (;;) {
      const int64_t at = reader(value);
      if (at == kNone) return false;
      const Step& step = p_.steps[static_cast<size_t>(at)];
      if (step.op == "copy" && device_ordinal(step.device) == out.ordinal) {
        out.joins = static_cast<uint32_t>(at);
        return true;
      }
      if (step.op != "add" || step.device != "cpu") return false;
      value = step.outputs[0];
    }
  }

  const Program& p_;
  std::vector<int64_t> writers_;
};

}  // namespace

std::vector<ExpertShare> find_shares(const Program& program) {
  const Finder finder(program);
  std::vector<ExpertShare> shares;
  for (uint32_t i = 0; i < program.steps.size(); i++) {
    ExpertShare share;
    if (finder.find(i, share)) shares.push_back(share);
  }
  std::stable_sort(shares.begin(), shares.end(), [](const ExpertShare& a, const ExpertShare& b) { return a.after < b.after; });
  std::vector<uint32_t> busy;  // of each buffer: until which step
  for (ExpertShare& share : shares) {
    while (share.buffer < busy.size() && busy[share.buffer] >= share.after) share.buffer++;
    if (share.buffer == busy.size()) busy.push_back(0);
    busy[share.buffer] = share.joins;
  }
  return shares;
}

uint32_t share_buffers(const std::vector<ExpertShare>& shares) {
  uint32_t count = 0;
  for (const ExpertShare& share : shares) count = std::max(count, share.buffer + 1);
  return count;
}

}  // namespace tandem::cuda
