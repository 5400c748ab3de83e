import { describe, expect, test } from 'vitest';
import { Sampler, samplingSettings } from './sampling.ts';

const V = 100;

describe('samplingSettings', () => {
  test('everything absent is off, and greedy', () => {
    const { seed, ...settings } = samplingSettings({}, {}, V);
    expect(settings).toEqual({
      temperature: 0,
      topK: 0,
      topP: 1,
      minP: 0,
      repetitionPenalty: 1,
      presencePenalty: 0,
      frequencyPenalty: 0,
      biasTokens: new Int32Array(0),
      biasValues: new Float32Array(0),
      topLogprobs: -1,
    });
    expect(Number.isSafeInteger(seed)).toBe(true);
  });

  test("what is absent comes from the model, what is there wins, and the model's mistakes are told as such", () => {
    const defaults = { temperature: 0.6, topP: 0.95, topK: 20 };
    expect(samplingSettings({ topK: 0 }, defaults, V)).toMatchObject({
      temperature: Math.fround(0.6),
      topP: Math.fround(0.95),
      topK: 0,
    });
    expect(() => samplingSettings({}, { topP: 7 }, V)).toThrow(/topP is a number in \(0, 1\]; got 7/);
  });

  test('numbers are f32, as every backend reads them', () => {
    expect(samplingSettings({ temperature: 0.7, minP: 0.05 }, {}, V)).toMatchObject({
      temperature: Math.fround(0.7),
      minP: Math.fround(0.05),
    });
  });

  test('logprobs: absent, true, false, a number', () => {
    const of = (logprobs: boolean | number | undefined) => samplingSettings({ logprobs }, {}, V).topLogprobs;
    expect([of(undefined), of(false), of(true), of(0), of(20)]).toEqual([-1, -1, 0, 0, 20]);
  });

  test('a bias as object or Map, by ascending id', () => {
    const object = samplingSettings({ logitBias: { 9: -100, 3: 2.5 } }, {}, V);
    const map = samplingSettings({ logitBias: new Map([[9, -100], [3, 2.5]]) }, {}, V); // biome-ignore format: pairs
    for (const { biasTokens, biasValues } of [object, map]) {
      expect([...biasTokens]).toEqual([3, 9]);
      expect([...biasValues]).toEqual([2.5, -100]);
    }
    expect(() => samplingSettings({ logitBias: { x: 1 } as never }, {}, V)).toThrow(/a logitBias key .* got NaN/);
    expect(() => samplingSettings({ logitBias: 'x' as never }, {}, V)).toThrow(/logitBias is an object or Map/);
  });
});

describe('Sampler', () => {
  test('a 64-bit seed becomes two words; a number its value', () => {
    const words = (seed: number | bigint) => {
      const { seedLow, seedHigh } = new Sampler(samplingSettings({ seed }, {}, V), new Int32Array(0)).record(5);
      return [seedLow, seedHigh];
    };
    expect(words(7)).toEqual([7, 0]);
    expect(words(2 ** 53 - 1)).toEqual([0xffffffff, 0x1fffff]);
    expect(words(0xfedcba9876543210n)).toEqual([0x76543210, 0xfedcba98]);
  });

  test('penalties see prompt tokens with count 0 and generated tokens with their count', () => {
    const sampler = new Sampler(samplingSettings({ presencePenalty: 1 }, {}, V), Int32Array.of(5, 6, 5));
    for (const token of [7, 6, 7]) sampler.count(token);
    const { penaltyTokens, penaltyCounts, position } = sampler.record(6);
    expect(position).toBe(6);
    expect(Object.fromEntries([...penaltyTokens].map((token, i) => [token, penaltyCounts[i]]))).toEqual({
      5: 0,
      6: 1,
      7: 2,
    });
  });

  test('many distinct tokens, and none kept where nothing is penalized', () => {
    const all = Int32Array.from({ length: 500 }, (_, i) => i);
    const kept = new Sampler(samplingSettings({ repetitionPenalty: 1.1 }, {}, 500), all).record(500);
    expect([...kept.penaltyTokens]).toEqual([...all]);
    expect(new Sampler(samplingSettings({}, {}, 500), all).record(500).penaltyTokens).toHaveLength(0);
  });
});
