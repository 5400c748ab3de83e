import { describe, expect, it } from 'vitest';
import { greedy } from '../../test/conformance/tiny-batches.ts';
import type { SamplingRecord } from '../program/batch.ts';
import { uniform } from '../program/uniform.ts';
import { sampleToken, tokenLogprob, topLogprobs } from './sampling.ts';

const LOGITS = Float32Array.of(1, 3, 2, 3, -1);

function pick(change: Partial<SamplingRecord>, logits = LOGITS): number {
  return sampleToken(logits, greedy(0, change));
}

/** Which tokens ever come out, over many positions. */
function support(change: Partial<SamplingRecord>): number[] {
  const seen = new Set<number>();
  for (let position = 0; position < 2000; position++) seen.add(pick({ temperature: 1, ...change, position }));
  return [...seen].sort();
}

describe('greedy', () => {
  it('takes the largest, of equals the lowest id', () => {
    expect(pick({})).toBe(1);
  });

  it('bias acts before penalties, penalties before the choice', () => {
    expect(pick({ biasTokens: Int32Array.of(4), biasValues: Float32Array.of(5) })).toBe(4);
    const seen = { penaltyTokens: Int32Array.of(1, 3), penaltyCounts: Int32Array.of(1, 0) };
    expect(pick({ ...seen, presencePenalty: 0.5 })).toBe(3);
    expect(pick({ ...seen, repetitionPenalty: 2 })).toBe(2);
    expect(pick({ ...seen, penaltyCounts: Int32Array.of(3, 4), frequencyPenalty: 0.4 })).toBe(2);
    const negative = Float32Array.of(-1, -1.5);
    const first = { penaltyTokens: Int32Array.of(0), penaltyCounts: Int32Array.of(0), repetitionPenalty: 2 };
    expect(pick(first, negative)).toBe(1);
    const bias = { biasTokens: Int32Array.of(0), biasValues: Float32Array.of(5) };
    expect(pick({ ...first, ...bias, repetitionPenalty: 4 }, Float32Array.of(-1, 1.5))).toBe(1);
  });

  it('NaN and what the mask forbids are never taken; −1 where nothing is left', () => {
    expect(pick({}, Float32Array.of(Number.NaN, 0, -Infinity))).toBe(1);
    expect(pick({ mask: Uint32Array.of(0b10101) })).toBe(2);
    expect(pick({ mask: Uint32Array.of(0) })).toBe(-1);
    expect(pick({ mask: Uint32Array.of(0), temperature: 1 })).toBe(-1);
    const wide = new Float32Array(40).fill(1);
    expect(pick({ mask: Uint32Array.of(0, 0b100) }, wide)).toBe(34);
  });
});

describe('drawing', () => {
  it('top-k, top-p and min-p cut the tail', () => {
    expect(support({})).toEqual([0, 1, 2, 3, 4]);
    expect(support({ topK: 2 })).toEqual([1, 3]);
    expect(support({ topK: 3 })).toEqual([1, 2, 3]);
    // Probabilities: 3 and 3: 0.394 each, 2: 0.145, 1: 0.053, −1: 0.007.
    expect(support({ topP: 0.3 })).toEqual([1]);
    const equal = Float32Array.of(0, 0);
    const drawn = [0, 1, 2, 3, 4, 5].map((position) => pick({ temperature: 1, topP: 0.5, position }, equal));
    expect(drawn).toEqual([0, 0, 0, 0, 0, 0]); // the bound itself is enough
    expect(support({ topP: 0.78 })).toEqual([1, 3]);
    expect(support({ topP: 0.8 })).toEqual([1, 2, 3]);
    expect(support({ minP: 0.3 })).toEqual([1, 2, 3]);
    expect(support({ minP: 0.4 })).toEqual([1, 3]);
  });

  it('top-p is of what top-k left', () => {
    // 1 and 3 are all that is left, half and half: 0.45 is reached by the first alone.
    expect(support({ topK: 2, topP: 0.45 })).toEqual([1]);
    expect(support({ topP: 0.45 })).toEqual([1, 3]);
  });

  it('follows softmax of logits / temperature', () => {
    const counts = new Float64Array(5);
    const draws = 20_000;
    for (let position = 0; position < draws; position++) counts[pick({ temperature: 2, position, seedLow: 7 })]++;
    const mass = LOGITS.reduce((sum, logit) => sum + Math.exp(logit / 2), 0);
    counts.forEach((count, t) => {
      expect(count / draws).toBeCloseTo(Math.exp(LOGITS[t] / 2) / mass, 1.7);
    });
  });

  it('is the inverse of the cumulative probability at u(seed, position)', () => {
    const even = new Float32Array(8).fill(1.5);
    for (let position = 0; position < 100; position++)
      expect(pick({ temperature: 0.7, seedLow: 3, seedHigh: 4, position }, even)).toBe(
        Math.floor(uniform(3, 4, position) * 8),
      );
  });
});

describe('log-probabilities', () => {
  it('are those of the raw logits, ties by id', () => {
    const total = Math.log(LOGITS.reduce((sum, logit) => sum + Math.exp(logit), 0));
    expect(tokenLogprob(LOGITS, 2)).toBeCloseTo(2 - total, 12);
    expect(tokenLogprob(LOGITS, -1)).toBeNaN();
    const { tokens, logprobs } = topLogprobs(LOGITS, 3);
    expect([...tokens]).toEqual([1, 3, 2]);
    expect(logprobs[2]).toBeCloseTo(2 - total, 6);
    expect(topLogprobs(LOGITS, 0).tokens.length).toBe(0);
  });
});
