#include "test/blob.h"

namespace tandem::test {

std::vector<uint8_t> TinyProgram::file() const {
  std::vector<uint8_t> bytes;
  const auto put = [&bytes](float value) {
    const uint8_t* from = reinterpret_cast<const uint8_t*>(&value);
    bytes.insert(bytes.end(), from, from + 4);
  };
  for (int i = 0; i < kVocab * kHidden; i++) put(static_cast<float>((i * 37 + 11) % 29 - 14) / 16);
  if (norm_format == "f32") {
    for (int i = 0; i < kHidden; i++) put(1.0f + static_cast<float>(i % 3) / 8);
  } else {
    bytes.resize(bytes.size() + norm_bytes, 0);
  }
  for (int i = 0; i < kVocab * kHidden; i++) {
    const int at = head_by_columns ? i % kVocab * kHidden + i / kVocab : i;
    put(static_cast<float>((at * 53 + 5) % 31 - 15) / 16);
  }
  return bytes;
}

std::vector<uint8_t> TinyProgram::encode() const {
  Blob w;
  w.u32(0x4d444e54).u32(decodes ? 3 : 2).string("tiny").u32(kVocab).u32(1024).u32(kLogits);
  w.u32(16).u32(kv_f32 ? 0 : 1);
  w.u32(1).u32(2).u32(2).u32(32).u32(2).u32(32);  // one layer: k and v of 2 heads x 32
  w.u32(7);                                       // a slot for each value
  for (int s = 0; s < 4; s++) w.u32(0).u32(kHidden);
  w.u32(1).u32(kHidden).u32(1).u32(kVocab).u32(1).u32(1);
  w.u32(7);
  const char* names[] = {"x", "normed", "mixed", "sum", "last", "logits", "token"};
  for (uint32_t v = 0; v < 7; v++) {
    const uint32_t columns = v == 5 ? kVocab : v == 6 ? 1 : kHidden;
    w.string(names[v]).u32(v == 6 ? 1 : 0).u32(v >= 4 ? 1 : 0).u32(columns).u32(v);
  }
  const uint64_t table = kVocab * kHidden * 4;
  w.u32(3);
  w.string("table").string("f32").u32(2).u32(kVocab).u32(kHidden).u32(1).u32(0).u64(0).u64(table).u32(0).u32(0).u32(0).u32(1).u32(kVocab);
  w.string("norm").string(norm_format).u32(1).u32(kHidden).u32(1).u32(0).u64(table).u64(norm_bytes).u32(0).u32(0).u32(0).u32(1).u32(1);
  w.string("head").string("f32").u32(2).u32(kVocab).u32(kHidden).u32(1).u32(0).u64(table + norm_bytes).u64(table).u32(0).u32(head_by_columns ? 2 : 0).u32(0).u32(1).u32(kVocab);

  const auto begin = [&w](const char* op, const char* name) { w.string(op).string(name).u32(0); };
  const auto value = [&w](uint32_t id, uint32_t columns) { w.u32(1).u32(id).u32(0).u32(columns); };
  const auto weight = [&w](uint32_t id) { w.u32(2).u32(id); };
  const auto number = [&w](const char* key, double x) { w.string(key).u32(0).f64(x); };
  const auto end = [&w, this] {
    w.string("cpu").string("f32").string("f32").u32(16);
    if (decodes) w.string("f32").string("f32").u32(3);
  };
  w.u32(kSteps);
  begin("embed", "embed");
  w.u32(1);
  weight(0);
  w.u32(1).u32(0).u32(0);
  end();
  begin("rms-norm", "norm");
  w.u32(2);
  value(0, kHidden);
  weight(1);
  w.u32(1).u32(1).u32(2);
  number("epsilon", 1e-5);
  number("group", kHidden);
  end();
  begin("kv-append", "append");
  w.u32(2);
  value(1, kHidden);
  value(0, kHidden);
  w.u32(0).u32(1);
  number("cache", 0);
  end();
  begin("attention", "attention");
  w.u32(1);
  value(1, kHidden);
  w.u32(1).u32(2).u32(6);
  number("cache", 0);
  number("heads", 2);
  number("kvHeads", 2);
  number("headSize", 32);
  number("valueSize", 32);
  number("scale", 0.25);
  end();
  begin("add", "add");
  w.u32(2);
  value(0, kHidden);
  value(2, kHidden);
  w.u32(1).u32(3).u32(0);
  end();
  begin("gather-rows", "gather");
  w.u32(1);
  value(3, kHidden);
  w.u32(1).u32(4).u32(0);
  end();
  begin("linear", "head");
  w.u32(3);
  value(4, kHidden);
  weight(2);
  w.u32(0);
  w.u32(1).u32(5).u32(0);
  end();
  begin("sample", "sample");
  w.u32(1);
  value(5, kVocab);
  w.u32(1).u32(6).u32(0);
  end();
  return w.bytes;
}

std::vector<uint8_t> encode_batch(const std::vector<int32_t>& tokens, const std::vector<SequenceSpec>& sequences, bool logits) {
  Blob w;
  w.u32(0x54414254).u32(1).u32(static_cast<uint32_t>(tokens.size())).u32(static_cast<uint32_t>(sequences.size()));
  w.u32(static_cast<uint32_t>(sequences.size())).u32(logits ? 1 : 0);
  for (int32_t token : tokens) w.u32(static_cast<uint32_t>(token));
  uint32_t row = 0;
  for (const SequenceSpec& s : sequences) {
    w.u32(s.slot).u32(row).u32(s.rows).u32(s.position).u32(static_cast<uint32_t>(s.pages.size()));
    for (int32_t page : s.pages) w.u32(static_cast<uint32_t>(page));
    row += s.rows;
  }
  row = 0;
  for (const SequenceSpec& s : sequences) {
    row += s.rows;
    w.u32(row - 1).u32(1);
    w.f32(0).u32(0).f32(1).f32(0).f32(1).f32(0).f32(0).u32(1).u32(2).u32(row).u32(3);
    w.u32(1).u32(1).u32(1).u32(3).u32(1).u32(2).f32(0.5f).u32(0xff);
  }
  return w.bytes;
}

}  // namespace tandem::test
