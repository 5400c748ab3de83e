// sample and logprobs over the emulation. Expected tokens come from a sort and from sums of f64, as src/ops/sampling.ts has them;
// where a draw falls next to the border of two tokens either is right, and such draws are rare enough to be counted.
#include <algorithm>

#include "cpu/uniform.h"
#include "test/cuda_kernels_support.h"

namespace tandem::test {

using namespace tandem::cuda;

// One row to sample, and what it takes.
struct Wanted {
  SampleRow row = {0, 1, 0, 1, 0, 0, 0, 1, 2, 3, 0, 1, 0, 0, 0, 0, 0, -1};
  std::vector<int32_t> penalty_tokens, penalty_counts, bias_tokens;
  std::vector<float> bias_values;
  std::vector<uint32_t> mask;
};

static std::vector<float> adjusted(std::vector<float> logits, const Wanted& want) {
  for (size_t i = 0; i < want.bias_tokens.size(); i++) logits[static_cast<size_t>(want.bias_tokens[i])] += want.bias_values[i];
  for (size_t i = 0; i < want.penalty_tokens.size(); i++) {
    float& logit = logits[static_cast<size_t>(want.penalty_tokens[i])];
    logit = logit > 0 ? logit / want.row.repetition_penalty : logit * want.row.repetition_penalty;
    if (want.penalty_counts[i] == 0) continue;
    const float often = want.row.frequency_penalty * static_cast<float>(want.penalty_counts[i]), all = want.row.presence_penalty + often;
    logit -= all;
  }
  for (size_t t = 0; t < logits.size(); t++) {
    if (std::isnan(logits[t]) || (!want.mask.empty() && !(want.mask[t / 32] >> (t % 32) & 1))) logits[t] = -INFINITY;
  }
  return logits;
}

// Tokens by falling logit, equals by rising id.
static std::vector<int32_t> ranked(const std::vector<float>& logits) {
  std::vector<int32_t> tokens;
  for (size_t t = 0; t < logits.size(); t++) {
    if (logits[t] > -INFINITY) tokens.push_back(static_cast<int32_t>(t));
  }
  std::stable_sort(tokens.begin(), tokens.end(), [&](int32_t a, int32_t b) { return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)]; });
  return tokens;
}

// Tokens that a draw may give: one, or the two at a border that it all but meets.
static std::vector<int32_t> drawn(const std::vector<float>& logits, const SampleRow& row) {
  std::vector<int32_t> tokens = ranked(logits);
  if (tokens.empty()) return {-1};
  if (row.temperature == 0) return {tokens[0]};
  if (row.top_k > 0 && row.top_k < tokens.size()) tokens.resize(row.top_k);
  const float best = logits[static_cast<size_t>(tokens[0])];
  std::vector<double> p;
  double mass = 0;
  for (int32_t token : tokens) {
    const float logit = logits[static_cast<size_t>(token)];
    p.push_back(logit == best ? 1 : std::exp((static_cast<double>(logit) - best) / row.temperature));
    mass += p.back();
  }
  size_t count = p.size();
  if (row.top_p < 1) {
    const double target = row.top_p * mass;
    double sum = 0;
    for (count = 0; count < p.size() && (count == 0 || sum < target);) sum += p[count++];
  }
  if (row.min_p > 0) {
    while (count > 1 && p[count - 1] < row.min_p) count--;
  }
  mass = 0;
  for (size_t i = 0; i < count; i++) mass += p[i];
  const double target = uniform(row.seed_low, row.seed_high, row.position) * mass, near = static_cast<double>(logits.size()) * 0x1p-45;
  double sum = 0;
  std::vector<int32_t> found;
  for (size_t i = 0; i < count; i++) {
    const double before = sum;
    sum += p[i];
    if (sum > target - near && before <= target + near) found.push_back(tokens[i]);
  }
  return found;
}

struct Sampled {
  std::vector<int32_t> tokens, top_tokens;
  std::vector<float> logprobs, top_logprobs;
};

// One launch for all rows; the last row of the launch is none of the pass.
static Sampled run_sample(const std::vector<float>& logits, int64_t vocabulary, std::vector<Wanted> rows, int64_t max_top = 0) {
  const auto count = static_cast<int32_t>(rows.size());
  std::vector<SampleRow> records;
  Wanted all;
  for (Wanted& want : rows) {
    want.row.penalty_first = static_cast<int32_t>(all.penalty_tokens.size()), want.row.penalty_count = static_cast<int32_t>(want.penalty_tokens.size());
    want.row.bias_first = static_cast<int32_t>(all.bias_tokens.size()), want.row.bias_count = static_cast<int32_t>(want.bias_tokens.size());
    want.row.mask_first = want.mask.empty() ? -1 : static_cast<int32_t>(all.mask.size());
    all.penalty_tokens.insert(all.penalty_tokens.end(), want.penalty_tokens.begin(), want.penalty_tokens.end());
    all.penalty_counts.insert(all.penalty_counts.end(), want.penalty_counts.begin(), want.penalty_counts.end());
    all.bias_tokens.insert(all.bias_tokens.end(), want.bias_tokens.begin(), want.bias_tokens.end());
    all.bias_values.insert(all.bias_values.end(), want.bias_values.begin(), want.bias_values.end());
    all.mask.insert(all.mask.end(), want.mask.begin(), want.mask.end());
    records.push_back(want.row);
  }
  const std::vector<uint8_t> dead = {0, 1};
  std::vector<float> scratch(static_cast<size_t>(count * vocabulary), kUntouched);
  std::vector<float> out(static_cast<size_t>((count + 1) * (2 + 2 * max_top)), kUntouched);
  SampleArguments a = {};
  a.logits = logits.data(), a.logits_stride = vocabulary, a.vocabulary = vocabulary, a.adjusted = scratch.data(), a.adjusted_stride = vocabulary;
  const SampleLists lists = {all.penalty_tokens.data(), all.penalty_counts.data(), all.bias_tokens.data(), all.bias_values.data(), all.mask.data()};
  a.records = records.data(), a.lists = &lists, a.dead = dead.data(), a.rows = &count;
  a.token = reinterpret_cast<int32_t*>(out.data()), a.logprob = out.data() + count + 1, a.max_top = max_top;
  a.top_tokens = reinterpret_cast<int32_t*>(a.logprob + count + 1), a.top_logprobs = a.logprob + (count + 1) * (1 + max_top);
  if (!launch("sample", sample_shape(count + 1), a, out) || !launch("logprobs", sample_shape(count + 1), a, out)) return {};
  EXPECT_THAT(out[static_cast<size_t>(count)] == kUntouched && a.logprob[count] == kUntouched, "sample writes past its rows");
  return {{a.token, a.token + count}, {a.top_tokens, a.top_tokens + count * max_top}, {a.logprob, a.logprob + count}, {a.top_logprobs, a.top_logprobs + count * max_top}};
}

static void check_sample(const std::vector<float>& logits, int64_t vocabulary, const std::vector<Wanted>& rows, const std::string& what) {
  const Sampled sampled = run_sample(logits, vocabulary, rows);
  if (sampled.tokens.empty()) return;
  int64_t near = 0;
  for (size_t r = 0; r < rows.size(); r++) {
    const auto begin = logits.begin() + static_cast<int64_t>(r) * vocabulary;
    const std::vector<int32_t> right = drawn(adjusted({begin, begin + vocabulary}, rows[r]), rows[r].row);
    near += right.size() > 1;
    EXPECT_THAT(std::find(right.begin(), right.end(), sampled.tokens[r]) != right.end(), what + " row " + std::to_string(r) + ": " + std::to_string(sampled.tokens[r]) + " for " + std::to_string(right.at(0)));
  }
  EXPECT_THAT(near <= 1, what + ": draws at a border");
}

// Random rows under random parameters.
TEST(cuda_sample) {
  for (int64_t vocabulary : {1, 2, 257, 3001}) {
    Random random(static_cast<uint64_t>(vocabulary));
    std::vector<Wanted> rows(40);
    std::vector<float> logits = random.floats(static_cast<int64_t>(rows.size()) * vocabulary, 8);
    for (size_t r = 0; r < rows.size(); r++) {
      SampleRow& row = rows[r].row;
      const auto chance = [&](int64_t of) { return random.below(of) == 0; };
      row.temperature = chance(8) ? 0 : 0.05f + 1.5f * (random.uniform() + 1);
      if (chance(2)) row.top_k = static_cast<uint32_t>(1 + random.below(60));
      if (chance(2)) row.top_p = (random.uniform() + 1) / 2;
      if (chance(3)) row.min_p = (random.uniform() + 1) / 4;
      row.seed_low = static_cast<uint32_t>(random.next()), row.seed_high = static_cast<uint32_t>(random.next()), row.position = static_cast<uint32_t>(random.below(1000));
      float* own = &logits[r * static_cast<size_t>(vocabulary)];
      if (chance(3)) {
        for (int64_t t = 0; t < vocabulary; t++) own[t] = std::round(own[t]);  // many equals, some of them −0
      }
      for (int64_t t = random.below(3); t < vocabulary; t += 1 + random.below(7)) {
        if (chance(9)) own[t] = chance(2) ? NAN : -INFINITY;
        if (chance(4)) rows[r].penalty_tokens.push_back(static_cast<int32_t>(t)), rows[r].penalty_counts.push_back(static_cast<int32_t>(random.below(4)));
        if (chance(30)) rows[r].bias_tokens.push_back(static_cast<int32_t>(t)), rows[r].bias_values.push_back(30 * random.uniform());
      }
      if (chance(2)) row.repetition_penalty = 1.3f, row.presence_penalty = 0.7f, row.frequency_penalty = 0.31f;
      if (chance(3)) {
        for (int64_t w = 0; w < (vocabulary + 31) / 32; w++) rows[r].mask.push_back(static_cast<uint32_t>(random.next()));
      }
    }
    check_sample(logits, vocabulary, rows, "sample of " + std::to_string(vocabulary));
  }
}

// The parameters one by one, at their edges.
TEST(cuda_sample_at_the_edges) {
  const int64_t vocabulary = 70;
  Random random(3);
  std::vector<Wanted> rows(11);
  for (Wanted& want : rows) want.row.temperature = 1;
  std::vector<float> logits = random.floats(static_cast<int64_t>(rows.size()) * vocabulary, 5);
  const auto row = [&](int64_t r) { return &logits[static_cast<size_t>(r * vocabulary)]; };
  for (int64_t t = 0; t < vocabulary; t++) row(0)[t] = t == 40 || t == 9 ? INFINITY : row(0)[t];  // only the infinite have any probability
  for (int64_t t = 0; t < vocabulary; t++) row(1)[t] = t % 2 ? NAN : -INFINITY;                  // none can be drawn
  rows[2].mask.assign(3, 0);                                                                       // nor here
  rows[3].mask.assign(3, 0), rows[3].mask[2] = 1u << 5;                                           // one can: the last
  rows[4].row.top_p = 0;                                                                           // the best stays
  rows[5].row.min_p = 1;
  rows[6].row.top_k = 1000;                                                                        // more than there are
  rows[7].row.temperature = 1e-6f;
  rows[8].row.temperature = 1e6f;
  rows[9].row.sampled = 0;
  rows[10].row.sequence = 1;  // dead
  for (int64_t t = 0; t < vocabulary; t++) row(4)[t] = t >= 20 ? 2.0f : 1.0f, row(5)[t] = row(4)[t];
  const Sampled sampled = run_sample(logits, vocabulary, rows);
  EXPECT_THAT(sampled.tokens[0] == 9 || sampled.tokens[0] == 40, "infinite logits");
  EXPECT_THAT(sampled.tokens[1] == -1 && sampled.tokens[2] == -1 && sampled.tokens[9] == -1 && sampled.tokens[10] == -1, "rows without a token");
  EXPECT_THAT(sampled.tokens[3] == 69, "a mask of one token");
  EXPECT_THAT(sampled.tokens[4] == 20, "the lowest of equals stays where top-p leaves one");
  EXPECT_THAT(sampled.tokens[5] >= 20, "all equals of the best stay under min-p");
  EXPECT_THAT(sampled.tokens[7] == std::max_element(row(7), row(7) + vocabulary) - row(7), "a low temperature draws the best");
  for (size_t r : {5u, 6u, 8u}) {
    const std::vector<int32_t> right = drawn({row(static_cast<int64_t>(r)), row(static_cast<int64_t>(r)) + vocabulary}, rows[r].row);
    EXPECT_THAT(right.size() == 1 && sampled.tokens[r] == right[0], "row " + std::to_string(r));
  }
  EXPECT_THAT(sampled.logprobs[1] == kUntouched, "a log-probability without a token");
}

TEST(cuda_logprobs) {
  const int64_t vocabulary = 700, max_top = 20;
  Random random(4);
  std::vector<Wanted> rows(4);
  std::vector<float> logits = random.floats(4 * vocabulary, 9);
  for (int64_t t = 0; t < vocabulary; t++) logits[static_cast<size_t>(vocabulary + t)] = static_cast<float>(t % 5);          // equals
  for (int64_t t = 0; t < vocabulary; t++) logits[static_cast<size_t>(2 * vocabulary + t)] = t % 100 == 3 ? 1.0f : -INFINITY;  // seven there are
  logits[static_cast<size_t>(3 * vocabulary + 7)] = NAN;
  rows[0].row.top_logprobs = 20, rows[1].row.top_logprobs = 7, rows[2].row.top_logprobs = 20, rows[3].row.temperature = 1;
  rows[0].bias_tokens = {5}, rows[0].bias_values = {100};  // drawn, but reported as the model had it
  const Sampled sampled = run_sample(logits, vocabulary, rows, max_top);
  if (sampled.tokens.empty()) return;
  EXPECT_THAT(sampled.tokens[0] == 5, "a bias that decides");
  EXPECT_THAT(std::isnan(sampled.logprobs[3]), "a nan among the logits");
  for (int64_t r = 0; r < 3; r++) {
    const std::vector<float> own(logits.begin() + r * vocabulary, logits.begin() + (r + 1) * vocabulary);
    const std::vector<int32_t> tokens = ranked(own);
    double sum = 0;
    for (float logit : own) sum += std::exp(static_cast<double>(logit) - own[static_cast<size_t>(tokens[0])]);
    const double total = own[static_cast<size_t>(tokens[0])] + std::log(sum);
    const auto close = [&](float actual, int32_t token) { return within(actual, own[static_cast<size_t>(token)] - total, std::abs(own[static_cast<size_t>(token)]) + std::abs(total) + 1); };
    EXPECT_THAT(close(sampled.logprobs[static_cast<size_t>(r)], sampled.tokens[static_cast<size_t>(r)]), "logprob row " + std::to_string(r));
    for (int64_t j = 0; j < rows[static_cast<size_t>(r)].row.top_logprobs && j <= static_cast<int64_t>(tokens.size()); j++) {
      const auto at = static_cast<size_t>(r * max_top + j);
      if (j == static_cast<int64_t>(tokens.size())) EXPECT_THAT(sampled.top_tokens[at] == -1, "the end of the likeliest");
      else EXPECT_THAT(sampled.top_tokens[at] == tokens[static_cast<size_t>(j)] && close(sampled.top_logprobs[at], tokens[static_cast<size_t>(j)]), "likeliest " + std::to_string(j) + " of row " + std::to_string(r));
    }
  }
}

}  // namespace tandem::test
