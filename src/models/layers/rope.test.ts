import { describe, expect, test } from 'vitest';
import { ropeContext, ropeFrequencies } from './rope.ts';

const plain = ropeFrequencies(64, { base: 10_000, scaling: { type: 'none' } }).frequencies;

describe('frequencies', () => {
  test('are powers of the base', () => {
    expect(plain).toHaveLength(32);
    expect(plain[0]).toBe(1);
    expect(plain[16]).toBeCloseTo(0.01, 12);
  });

  test('linear scaling divides all', () => {
    const { frequencies } = ropeFrequencies(64, { base: 10_000, scaling: { type: 'linear', factor: 4 } });
    expect(frequencies).toEqual(plain.map((frequency) => frequency / 4));
  });

  test('factors divide one by one', () => {
    const factors = plain.map((_, i) => i + 1);
    const { frequencies } = ropeFrequencies(64, { base: 10_000, scaling: { type: 'factors', factors } });
    expect(frequencies[3]).toBe(plain[3] / 4);
  });

  const yarn = {
    type: 'yarn',
    factor: 40,
    originalContext: 4096,
    betaFast: 32,
    betaSlow: 1,
    magnitude: 1.5,
    attention: 1,
  } as const;

  test('YaRN of DeepSeek-V3: kept up to pair 10, interpolated from 23, a ramp between', () => {
    // Pair that turns r times in 4096 tokens: 64·ln(4096/2πr)/(2·ln 10000): 10.47 for r = 32, 22.51 for r = 1.
    const { frequencies, magnitude } = ropeFrequencies(64, { base: 10_000, scaling: yarn });
    const ratio = frequencies.map((frequency, i) => frequency / plain[i]);
    expect(ratio.slice(0, 11).every((r) => Math.abs(r - 1) < 1e-12)).toBe(true);
    expect(ratio.slice(23).every((r) => Math.abs(r - 1 / 40) < 1e-12)).toBe(true);
    expect(ratio[11]).toBeCloseTo(1 - (1 / 13) * (1 - 1 / 40), 12);
    expect(magnitude).toBe(1.5);
  });

  test('YaRN of Kimi-K2: equal betas are a step of one pair', () => {
    const rope = { base: 50_000, scaling: { ...yarn, factor: 32, betaFast: 1 } };
    const original = ropeFrequencies(64, { base: 50_000, scaling: { type: 'none' } }).frequencies;
    const ratio = ropeFrequencies(64, rope).frequencies.map((frequency, i) => frequency / original[i]);
    expect(ratio[19]).toBeCloseTo(1, 12);
    expect(ratio[20]).toBeCloseTo(1 / 32, 12);
  });

  test('YaRN survives a ramp of no width', () => {
    const { frequencies } = ropeFrequencies(8, { base: 10_000, scaling: { ...yarn, originalContext: 1 } });
    expect(frequencies.every((frequency) => Number.isFinite(frequency) && frequency > 0)).toBe(true);
  });

  test('Llama 3 keeps short waves, divides long ones, and is continuous between', () => {
    const bands = { type: 'llama3', factor: 8, lowFactor: 1, highFactor: 4, originalContext: 8192 } as const;
    const original = ropeFrequencies(128, { base: 500_000, scaling: { type: 'none' } }).frequencies;
    const ratio = ropeFrequencies(128, { base: 500_000, scaling: bands }).frequencies.map((f, i) => f / original[i]);
    const wavelength = original.map((frequency) => (2 * Math.PI) / frequency);
    for (const [i, r] of ratio.entries()) {
      if (wavelength[i] < 2048) expect(r).toBe(1);
      else if (wavelength[i] > 8192) expect(r).toBe(1 / 8);
      else expect(r).toBeGreaterThan(1 / 8);
      if (i > 0) expect(r).toBeLessThanOrEqual(ratio[i - 1]);
    }
    expect(ratio.filter((r) => r !== 1 && r !== 1 / 8).length).toBeGreaterThan(0);
  });
});

test('the context of YaRN is the scaled one', () => {
  const scaling = {
    type: 'yarn',
    factor: 4,
    originalContext: 100,
    betaFast: 32,
    betaSlow: 1,
    magnitude: 1,
    attention: 1,
  } as const;
  expect(ropeContext(100, { base: 1e4, scaling })).toBe(400);
  expect(ropeContext(500, { base: 1e4, scaling })).toBe(500);
  expect(ropeContext(100, { base: 1e4, scaling: { type: 'none' } })).toBe(100);
});
