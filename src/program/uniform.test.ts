import { describe, expect, it } from 'vitest';
import { uniform } from './uniform.ts';

/** The same in 64-bit arithmetic: two rounds of the murmur3 finalizer. */
function slowUniform(seedLow: number, seedHigh: number, position: number): number {
  const mask = 0xffffffffn;
  const mix = (h: bigint) => {
    h = ((h ^ (h >> 16n)) * 0x85ebca6bn) & mask;
    h = ((h ^ (h >> 13n)) * 0xc2b2ae35n) & mask;
    return h ^ (h >> 16n);
  };
  const a = mix(BigInt(seedLow) ^ mix((BigInt(position) + 0x9e3779b9n) & mask));
  const b = mix(BigInt(seedHigh) ^ mix((a + 0x7f4a7c15n) & mask));
  const c = mix((a + b * 0x9e3779b1n) & mask);
  return Number((c >> 5n) * 67108864n + (b >> 6n)) / 2 ** 53;
}

describe('uniform', () => {
  it('equals its definition in whole numbers', () => {
    for (let i = 0; i < 2000; i++) {
      const [low, high, position] = [(i * 2654435761) >>> 0, (i * 40503 * 65537) >>> 0, i * 7];
      expect(uniform(low, high, position)).toBe(slowUniform(low, high, position));
    }
  });

  it('is even over positions, for seeds that are alike', () => {
    for (const seed of [0, 1, 2, 0xffffffff]) {
      const counts = new Array(16).fill(0);
      for (let position = 0; position < 16_000; position++) counts[Math.floor(uniform(seed, 0, position) * 16)]++;
      const chi = counts.reduce((sum, count) => sum + (count - 1000) ** 2 / 1000, 0);
      expect(chi).toBeLessThan(40); // 15 degrees of freedom: 40 is beyond 1 in 2000
    }
  });

  it('all three arguments matter', () => {
    expect(new Set([uniform(0, 0, 0), uniform(1, 0, 0), uniform(0, 1, 0), uniform(0, 0, 1)]).size).toBe(4);
  });
});
