// The candidates of one draw, ranked only as far as they are looked at.
//
// Order: logit descending, equals by id. Probabilities are e^((logit − best) / temperature) in f64, not normalized.
// Candidates fall into kBins bins by (best − logit) / temperature, which keeps the order between bins; a bin is sorted when a
// boundary (top-k, top-p, min-p or the draw itself) falls into it. One pass over the vocabulary, a few small sorts.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>

#include "cpu/kernels/vec.inl.h"

namespace tandem::TANDEM_ISA_NAMESPACE {

constexpr int64_t kBins = 256;           // the last holds everything below e^(-31.9)
constexpr double kBinsPerUnit = 8.0;
constexpr int64_t kExpBlock = 256;       // logits whose probabilities are computed together
constexpr uint8_t kNoBin = 255;          // no candidate: masked, nan or -inf. The last bin is kBins - 2.

// e^x for x in [-708, 0], within 1 ulp; smaller x give e^-708. Written so that compilers vectorize loops over it.
static inline double exp_f64(double x) {
  x = x < -708.0 ? -708.0 : x;
  const double magic = 6755399441055744.0;  // 1.5 · 2^52: adding it rounds to an integer, kept in the low bits
  const double shifted = x * 1.4426950408889634 + magic;
  const double n = shifted - magic;
  const double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;  // ln 2 in two parts, the first with 32 bits
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r * r + r + 1.0;
  return p * std::bit_cast<double>((std::bit_cast<uint64_t>(shifted) << 52) + 0x3ff0000000000000ull);
}

struct Candidate {
  float logit;
  int32_t token;
};

// Memory of one thread, for a vocabulary of V.
struct RankingMemory {
  float* logits;          // [V] adjusted
  uint8_t* bins;          // [V]
  Candidate* candidates;  // [V]
};

// A prefix of the ranking: all bins before `bin` and the first `place` of it, or everything of `bin` when place < 0.
struct Prefix {
  int64_t bin, place;
  double mass;
};

class Ranking {
 public:
  // `best`: the largest logit, above -inf; temperature > 0.
  Ranking(const float* logits, int64_t vocabulary, float best, double temperature, const RankingMemory& memory)
      : logits_(logits), vocabulary_(vocabulary), best_(best), temperature_(temperature), memory_(memory) {
    double x[kExpBlock], e[kExpBlock];
    for (int64_t start = 0; start < vocabulary; start += kExpBlock) {
      const int64_t count = vocabulary - start < kExpBlock ? vocabulary - start : kExpBlock;
      for (int64_t i = 0; i < count; i++) x[i] = exponent(logits[start + i]);
      for (int64_t i = 0; i < count; i++) e[i] = exp_f64(x[i]);
      for (int64_t i = 0; i < count; i++) {
        if (!(logits[start + i] > -INFINITY)) {
          memory.bins[start + i] = kNoBin;
          continue;
        }
        const double place = -x[i] * kBinsPerUnit;
        const int64_t bin = place < kBins - 2 ? static_cast<int64_t>(place) : kBins - 2;
        memory.bins[start + i] = static_cast<uint8_t>(bin);
        counts_[bin]++;
        masses_[bin] += e[i];
      }
    }
    double mass = 0;
    for (int64_t b = 0; b < kBins - 1; b++) mass += masses_[b];
    all_ = {kBins - 2, -1, mass};
  }

  Prefix all() const { return all_; }

  // The first k candidates of a prefix.
  Prefix top_k(const Prefix& within, int64_t k) {
    int64_t before = 0;
    double mass = 0;
    for (int64_t b = 0; b <= within.bin; b++) {
      if (before + counts_[b] > k) {
        const Candidate* sorted = sort(b);
        for (int64_t i = 0; i < k - before; i++) mass += probability(sorted[i]);
        return {b, k - before, mass};
      }
      before += counts_[b];
      mass += masses_[b];
    }
    return within;
  }

  // The shortest prefix (of at least one candidate) whose mass reaches `target`.
  Prefix top_p(const Prefix& within, double target) {
    double mass = 0;
    for (int64_t b = 0; b <= within.bin; b++) {
      if (counts_[b] == 0) continue;
      const bool last = b == within.bin;
      if (!last && mass + masses_[b] < target) {
        mass += masses_[b];
        continue;
      }
      const Candidate* sorted = sort(b);
      const int64_t count = last && within.place >= 0 ? within.place : counts_[b];
      for (int64_t i = 0; i < count; i++) {
        mass += probability(sorted[i]);
        if (mass >= target) return {b, i + 1, mass};
      }
    }
    return within;
  }

  // The candidates of a prefix with probability ≥ floor (≤ 1: the best stays).
  Prefix min_p(const Prefix& within, double floor) {
    const double place = -::log(floor) * kBinsPerUnit - 1.0;  // one bin early: log and exp round
    double mass = 0;
    for (int64_t b = 0; b <= within.bin; b++) {
      if (counts_[b] == 0) continue;
      const bool last = b == within.bin;
      if (!last && static_cast<double>(b) < place - 1.0) {
        mass += masses_[b];
        continue;
      }
      const Candidate* sorted = sort(b);
      const int64_t count = last && within.place >= 0 ? within.place : counts_[b];
      for (int64_t i = 0; i < count; i++) {
        const double p = probability(sorted[i]);
        if (!(p >= floor) && (b > 0 || i > 0)) return {b, i, mass};
        mass += p;
      }
    }
    return within;
  }

  // The first candidate of the prefix whose cumulative probability exceeds `target`; the last one if rounding leaves none.
  int32_t draw(const Prefix& within, double target) {
    double mass = 0;
    int32_t token = -1;
    for (int64_t b = 0; b <= within.bin; b++) {
      const bool last = b == within.bin;
      const int64_t count = last && within.place >= 0 ? within.place : counts_[b];
      if (count == 0) continue;
      if (!last && mass + masses_[b] <= target && has_more(b + 1, within)) {
        mass += masses_[b];
        continue;
      }
      const Candidate* sorted = sort(b);
      for (int64_t i = 0; i < count; i++) {
        mass += probability(sorted[i]);
        token = sorted[i].token;
        if (mass > target) return token;
      }
    }
    return token;
  }

 private:
  // (logit − best) / temperature; where the best is +inf only its equals have any probability.
  double exponent(float logit) const {
    if (logit == best_) return 0.0;
    return (static_cast<double>(logit) - static_cast<double>(best_)) / temperature_;
  }
  double probability(const Candidate& candidate) const { return exp_f64(exponent(candidate.logit)); }

  bool has_more(int64_t bin, const Prefix& within) const {
    for (int64_t b = bin; b <= within.bin; b++) {
      if ((b == within.bin && within.place >= 0 ? within.place : counts_[b]) > 0) return true;
    }
    return false;
  }

  const Candidate* sort(int64_t bin) {
    if (sorted_[bin] != nullptr) return sorted_[bin];
    Candidate* begin = memory_.candidates + used_;
    Candidate* end = begin;
    for (int64_t t = 0; t < vocabulary_; t++) {
      if (memory_.bins[t] == bin) *end++ = {logits_[t], static_cast<int32_t>(t)};
    }
    std::sort(begin, end, [](const Candidate& a, const Candidate& b) {
      return a.logit > b.logit || (a.logit == b.logit && a.token < b.token);
    });
    used_ += end - begin;
    return sorted_[bin] = begin;
  }

  const float* logits_;
  int64_t vocabulary_;
  float best_;
  double temperature_;
  RankingMemory memory_;
  Prefix all_{};
  int64_t counts_[kBins] = {};
  double masses_[kBins] = {};
  const Candidate* sorted_[kBins] = {};
  int64_t used_ = 0;
};

}  // namespace tandem::TANDEM_ISA_NAMESPACE
