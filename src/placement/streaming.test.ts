import { describe, expect, test } from 'vitest';
import { streamingPaysFrom } from './physics.ts';
import { microBatchSeconds, streamsFrom } from './streaming.ts';

/** DeepSeek-V3 Q4_K_M: 58 layers of 256 experts, 8 a token, 26.7 MB and 44 million weights each. */
const V3 = { expertBytes: Array(58).fill(26.7e6), experts: 256, weightsPerToken: 58 * 8 * 44e6 };
const GPU = { pcie: 25e9, operations: 150e12 };

describe('from how many rows', () => {
  /** A server: 3 TFLOPS, 200 GB/s. */
  const cpu = (rows: number) =>
    Math.max((396e9 * (1 - (1 - 8 / 256) ** rows)) / 200e9, (2 * V3.weightsPerToken * rows) / 3e12);

  test('where the upload of everything takes as long as the CPU, near the rule of thumb', () => {
    const from = streamsFrom(V3, GPU, cpu, 8192)!;
    expect(from).toBeGreaterThan(streamingPaysFrom(256, 8) / 2);
    expect(from).toBeLessThan(streamingPaysFrom(256, 8) * 2);
    expect(microBatchSeconds(V3, GPU, from)).toBeLessThan(cpu(from));
    expect(microBatchSeconds(V3, GPU, from - 1)).toBeGreaterThanOrEqual(cpu(from - 1));
    // n·B/A until the arithmetic of the card is the larger part.
    expect(4096 / microBatchSeconds(V3, GPU, 4096)).toBeCloseTo((4096 * 25e9) / (58 * 256 * 26.7e6), 6);
    expect(microBatchSeconds(V3, GPU, 1e6)).toBeCloseTo((2 * V3.weightsPerToken * 1e6) / 150e12, 6);
  });

  test('never where it does not pay within a pass, or where nothing is streamed', () => {
    expect(streamsFrom(V3, GPU, cpu, 256)).toBeUndefined();
    expect(streamsFrom(V3, { ...GPU, operations: 1e12 }, cpu, 8192)).toBeUndefined();
    expect(streamsFrom({ ...V3, expertBytes: [] }, GPU, cpu, 8192)).toBeUndefined();
  });

  test('a faster bus needs fewer rows, a faster CPU more', () => {
    const from = (pcie: number, speed: number) =>
      streamsFrom(V3, { ...GPU, pcie }, (rows) => cpu(rows) / speed, 65536)!;
    expect(from(50e9, 1)).toBeLessThan(from(25e9, 1));
    expect(from(25e9, 2)).toBeGreaterThan(from(25e9, 1));
  });
});
