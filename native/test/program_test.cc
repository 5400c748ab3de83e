#include <random>

#include "core/program.h"
#include "core/batch.h"
#include "core/signature.h"
#include "test/blob.h"
#include "test/harness.h"

namespace tandem {

using test::TinyProgram;

TEST(program_decodes) {
  const std::vector<uint8_t> blob = TinyProgram().encode();
  Program program;
  EXPECT_OK(decode_program(blob.data(), blob.size(), 1, program));
  EXPECT_OK(check_signatures(program));
  EXPECT(program.steps.size() == TinyProgram::kSteps);
  EXPECT(program.steps[3].op == "attention" && program.steps[3].integer("heads") == 2);
  EXPECT(program.steps[3].number("scale") == 0.25 && program.steps[3].number("absent", 7) == 7);
  EXPECT(program.page_elements() == 2 * 2 * 32 * 16);
  EXPECT(program.weights[2].parts[0].offset == 8 * 64 * 4 + 64 * 4);
}

TEST(program_says_how_steps_compute_where_every_sequence_has_one_row) {
  TinyProgram tiny;
  Program program;
  std::vector<uint8_t> blob = tiny.encode();
  EXPECT_OK(decode_program(blob.data(), blob.size(), 1, program));
  EXPECT(program.decode_steps.empty());
  tiny.decodes = true;
  blob = tiny.encode();
  EXPECT_OK(decode_program(blob.data(), blob.size(), 1, program));
  EXPECT_OK(check_signatures(program));
  EXPECT(program.decode_steps.size() == program.steps.size());
  EXPECT(program.steps[3].tiles == 16 && program.decode_steps[3].tiles == 3);
  EXPECT(program.decode_steps[3].op == "attention" && program.decode_steps[3].integer("heads") == 2);
}

static void refuses_every_truncation(const std::vector<uint8_t>& blob) {
  for (size_t size = 0; size < blob.size(); size++) {
    const std::vector<uint8_t> part(blob.begin(), blob.begin() + static_cast<long>(size));  // exact, so that ASan sees an overrun
    Program program;
    EXPECT(decode_program(part.data(), part.size(), 1, program).code() == Code::program_invalid);
  }
  std::vector<uint8_t> longer = blob;
  longer.resize(blob.size() + 4);
  Program program;
  EXPECT(decode_program(longer.data(), longer.size(), 1, program).code() == Code::program_invalid);
}

TEST(program_refuses_every_truncation) {
  TinyProgram tiny;
  refuses_every_truncation(tiny.encode());
  tiny.decodes = true;
  refuses_every_truncation(tiny.encode());
}

// Whatever is accepted has every id and range in bounds.
static void check_bounds(const Program& p) {
  EXPECT(p.logits < p.values.size());
  for (const Value& v : p.values) EXPECT(v.slot < p.slots.size() && p.slots[v.slot].columns >= v.columns && v.columns > 0);
  EXPECT(p.decode_steps.empty() || p.decode_steps.size() == p.steps.size());
  for (const Step& step : p.steps) {
    for (uint32_t id : step.outputs) EXPECT(id < p.values.size());
    for (const Operand& o : step.inputs) {
      if (o.kind == Operand::Kind::value) EXPECT(o.index < p.values.size() && o.columns > 0 && o.start + o.columns <= p.values[o.index].columns);
      if (o.kind == Operand::Kind::weight) EXPECT(o.index < p.weights.size());
    }
  }
}

static void survives_mutation(const std::vector<uint8_t>& blob) {
  std::mt19937 random(1);
  int accepted = 0;
  for (size_t at = 0; at < blob.size(); at++) {
    for (uint8_t value : {uint8_t(blob[at] ^ 1), uint8_t(blob[at] ^ 0x80), uint8_t(0), uint8_t(0xff), uint8_t(random())}) {
      std::vector<uint8_t> mutant = blob;
      mutant[at] = value;
      Program program;
      if (!decode_program(mutant.data(), mutant.size(), 1, program).ok()) continue;
      check_bounds(program);
      if (check_signatures(program).ok()) accepted++;
    }
  }
  for (int round = 0; round < 3000; round++) {  // words replaced by hostile ones, several at once
    std::vector<uint8_t> mutant = blob;
    for (int k = 0; k < 1 + round % 3; k++) {
      const uint32_t words[] = {0, 1, 7, 0x7fffffff, 0x80000000, 0xffffffff, 0x40000000};
      const uint32_t word = words[random() % 7];
      std::memcpy(mutant.data() + random() % (blob.size() / 4) * 4, &word, 4);
    }
    Program program;
    if (!decode_program(mutant.data(), mutant.size(), 1, program).ok()) continue;
    check_bounds(program);
    if (check_signatures(program).ok()) accepted++;
  }
  EXPECT(accepted > 0);  // letters of names may change
}

TEST(program_survives_mutation) {
  TinyProgram tiny;
  survives_mutation(tiny.encode());
  tiny.decodes = true;
  survives_mutation(tiny.encode());
}

TEST(program_names_the_step_whose_operands_do_not_fit) {
  const std::vector<uint8_t> blob = TinyProgram().encode();
  Program program;
  EXPECT_OK(decode_program(blob.data(), blob.size(), 1, program));
  program.steps[3].attributes[1].number = 4;  // heads
  const Status status = check_signatures(program);
  EXPECT(status.code() == Code::program_invalid && status.message().find("attention") != std::string::npos);
}

// Rounding works on whole blocks: half a block would be read and written past the end of a row.
TEST(program_rounds_whole_blocks_only) {
  const std::vector<uint8_t> blob = TinyProgram().encode();
  Program program;
  EXPECT_OK(decode_program(blob.data(), blob.size(), 1, program));
  Step& head = program.steps[6];
  EXPECT(head.op == "linear");
  EXPECT(head.tiles == 16);
  head.activation = Activation::q8_32;
  EXPECT_OK(check_signatures(program));
  head.activation = Activation::q8_256;  // of 64 columns
  EXPECT(check_signatures(program).code() == Code::program_invalid);
}

static const BatchLimits kLimits{16, 4, 6, 16, 8};

TEST(batch_decodes) {
  const std::vector<uint8_t> blob = test::encode_batch({1, 2, 3, 4}, {{7, 3, 14, {5, 2}}, {9, 1, 0, {0}}}, true);
  Batch batch;
  EXPECT_OK(decode_batch(blob.data(), blob.size(), kLimits, batch));
  EXPECT(batch.want_logits && batch.positions[2] == 16 && batch.sequence_of_row[3] == 1);
  EXPECT(batch.sequences[0].pages[1] == 2 && batch.outputs[1].row == 3 && batch.outputs[1].sequence == 1);
  EXPECT(batch.outputs[0].sampling.penalty_counts[0] == 1 && batch.outputs[0].sampling.bias_values[0] == 0.5f);
  EXPECT(batch.outputs[0].sampling.mask.size() == 1 && batch.outputs[0].sampling.top_logprobs == 3);
}

TEST(batch_refuses_what_leaves_its_limits) {
  using test::encode_batch;
  const auto refused = [](const std::vector<uint8_t>& blob) {
    Batch batch;
    return decode_batch(blob.data(), blob.size(), kLimits, batch).code() == Code::request_invalid;
  };
  EXPECT(refused(encode_batch({8}, {{0, 1, 0, {0}}}, false)));                                // no such token
  EXPECT(refused(encode_batch({-1}, {{0, 1, 0, {0}}}, false)));
  EXPECT(refused(encode_batch({1}, {{0, 1, 0, {6}}}, false)));                                // no such page
  EXPECT(refused(encode_batch({1}, {{0, 1, 16, {0}}}, false)));                               // one page too few
  EXPECT(refused(encode_batch({1}, {{4096, 1, 0, {0}}}, false)));                             // no such slot
  EXPECT(refused(encode_batch({1, 1}, {{3, 1, 0, {0}}, {3, 1, 0, {1}}}, false)));             // a slot twice
  EXPECT(refused(encode_batch({1, 1}, {{3, 1, 0, {0}}}, false)));                             // a row of nobody
  EXPECT(refused(encode_batch(std::vector<int32_t>(17, 1), {{3, 17, 0, {0, 1}}}, false)));    // too many rows
  EXPECT(refused(encode_batch({1, 1, 1, 1, 1}, {{0, 1, 0, {0}}, {1, 1, 0, {1}}, {2, 1, 0, {2}}, {3, 1, 0, {3}}, {4, 1, 0, {4}}}, false)));  // outputs
}

TEST(batch_survives_mutation) {
  const std::vector<uint8_t> blob = test::encode_batch({1, 2, 3, 4}, {{7, 3, 14, {5, 2}}, {9, 1, 0, {0}}}, true);
  std::mt19937 random(2);
  const auto examine = [](const std::vector<uint8_t>& bytes) {
    Batch batch;
    if (!decode_batch(bytes.data(), bytes.size(), kLimits, batch).ok()) return;
    int64_t row = 0;
    for (const Sequence& s : batch.sequences) {
      EXPECT(s.first_row == row && s.rows > 0);
      EXPECT(static_cast<int64_t>(s.pages.size()) * 16 >= s.first_position + s.rows);
      for (int32_t page : s.pages) EXPECT(page >= 0 && page < 6);
      row += s.rows;
    }
    EXPECT(row == static_cast<int64_t>(batch.tokens.size()));
    for (const OutputRow& o : batch.outputs) EXPECT(o.row < row && o.sequence < static_cast<int64_t>(batch.sequences.size()));
  };
  for (size_t size = 0; size <= blob.size(); size++) examine({blob.begin(), blob.begin() + static_cast<long>(size)});
  for (size_t at = 0; at < blob.size(); at++) {
    for (int value = 0; value < 256; value += 1 + static_cast<int>(random() % 5)) {
      std::vector<uint8_t> mutant = blob;
      mutant[at] = static_cast<uint8_t>(value);
      examine(mutant);
    }
  }
}

}  // namespace tandem
