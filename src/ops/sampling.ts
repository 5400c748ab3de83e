/**
 * Sampling of one row of logits, and the log-probabilities reported with it. What each parameter means, and in which
 * order they act, is written at SamplingRecord (src/program/batch.ts).
 */
import type { SamplingRecord } from '../program/batch.ts';
import { uniform } from '../program/uniform.ts';

/**
 * The token, or −1 where the mask and the logits leave none: NaN and −∞ are no candidates. Logits are adjusted in f32,
 * probabilities are f64.
 */
export function sampleToken(logits: Float32Array, record: SamplingRecord): number {
  const adjusted = adjustLogits(logits, record);
  if (record.temperature === 0) return argmax(adjusted);
  const candidates = keepLikely(rank(adjusted), adjusted, record);
  if (candidates.tokens.length === 0) return -1;
  const mass = candidates.probabilities.reduce((sum, p) => sum + p, 0);
  const target = uniform(record.seedLow, record.seedHigh, record.position) * mass;
  let cumulative = 0;
  for (let i = 0; i < candidates.tokens.length; i++) {
    cumulative += candidates.probabilities[i];
    if (cumulative > target) return candidates.tokens[i];
  }
  return candidates.tokens[candidates.tokens.length - 1];
}

/** Bias, then penalties, then the mask (−∞ where a token is not allowed; NaN becomes −∞ too). */
function adjustLogits(logits: Float32Array, record: SamplingRecord): Float32Array {
  const { biasTokens, biasValues, penaltyTokens, penaltyCounts, mask } = record;
  const { repetitionPenalty, presencePenalty, frequencyPenalty } = record;
  const adjusted = logits.slice();
  biasTokens.forEach((token, i) => {
    adjusted[token] += biasValues[i];
  });
  penaltyTokens.forEach((token, i) => {
    adjusted[token] = adjusted[token] > 0 ? adjusted[token] / repetitionPenalty : adjusted[token] * repetitionPenalty;
    if (penaltyCounts[i] > 0)
      adjusted[token] -= Math.fround(presencePenalty + Math.fround(frequencyPenalty * penaltyCounts[i]));
  });
  for (let t = 0; t < adjusted.length; t++)
    if (Number.isNaN(adjusted[t]) || (mask && !((mask[t >> 5] >>> (t & 31)) & 1))) adjusted[t] = -Infinity;
  return adjusted;
}

/** Index of the largest, the lowest of equals; −1 where all are −∞. */
function argmax(logits: Float32Array): number {
  let best = -1;
  let most = -Infinity;
  for (let t = 0; t < logits.length; t++) {
    if (logits[t] > most) {
      most = logits[t];
      best = t;
    }
  }
  return best;
}

/** Tokens by falling logit, equals by rising id; those at −∞ left out. */
function rank(logits: Float32Array): Int32Array {
  const tokens = Int32Array.from(logits.keys()).filter((t) => logits[t] > -Infinity);
  return tokens.sort((a, b) => logits[b] - logits[a] || a - b);
}

/** Top-k, then top-p of what is left, then min-p of what is left; probabilities unnormalized, the best first. */
function keepLikely(ranked: Int32Array, logits: Float32Array, record: SamplingRecord) {
  const { temperature, topK, topP, minP } = record;
  let tokens = topK > 0 ? ranked.subarray(0, topK) : ranked;
  const best = logits[tokens[0]];
  const probabilities = Float64Array.from(tokens, (t) => Math.exp((logits[t] - best) / temperature));
  if (topP < 1) {
    const target = topP * probabilities.reduce((sum, p) => sum + p, 0);
    let count = 0;
    let cumulative = 0;
    while (count < tokens.length && (count === 0 || cumulative < target)) cumulative += probabilities[count++];
    tokens = tokens.subarray(0, count);
  }
  if (minP > 0) tokens = tokens.filter((_, i) => probabilities[i] >= minP * probabilities[0]);
  return { tokens, probabilities: probabilities.subarray(0, tokens.length) };
}

/** log Σ exp of the raw logits. */
function logSumExp(logits: Float32Array): number {
  let max = -Infinity;
  for (const logit of logits) max = Math.max(max, logit);
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  return max + Math.log(sum);
}

/** Log-probability of a token under the raw logits; NaN for token −1. */
export function tokenLogprob(logits: Float32Array, token: number): number {
  return token < 0 ? Number.NaN : logits[token] - logSumExp(logits);
}

/** The `count` likeliest tokens under the raw logits, best first. */
export function topLogprobs(logits: Float32Array, count: number): { tokens: Int32Array; logprobs: Float32Array } {
  if (count === 0) return { tokens: new Int32Array(0), logprobs: new Float32Array(0) };
  const tokens = rank(logits).slice(0, count);
  const total = logSumExp(logits);
  return { tokens, logprobs: Float32Array.from(tokens, (t) => logits[t] - total) };
}
