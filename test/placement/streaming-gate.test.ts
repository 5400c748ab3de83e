/** The gate of streamed experts, over real roundings: what a GPU rounds passes against what the CPU rounds, slips do not. */
import { describe, expect, test } from 'vitest';
import { planStream } from '../../src/placement/streaming.ts';
import { groupIds, judgeStreamed, ROW_LIMIT } from '../../src/placement/streaming-gate.ts';
import { expectedOutputs, floats, integers, type OpCase, random, weight } from '../conformance/harness.ts';

const [ROWS, EXPERTS, CHOSEN, WIDTH] = [6, 8, 4, 256];

const next = random(5);
const choices = Int32Array.from(
  Array.from({ length: ROWS }, () =>
    Array.from({ length: EXPERTS }, (_, expert) => ({ expert, key: next() }))
      .sort((a, b) => a.key - b.key)
      .slice(0, CHOSEN)
      .map(({ expert }) => expert),
  ).flat(),
);
const x = floats(ROWS, WIDTH, 3);

async function experts(
  format: 'q4_k' | 'q8_0',
  placement: OpCase['placement'],
  ids: Int32Array = choices,
): Promise<Float32Array> {
  const matrices = [1, 2, 3].map((seed) => weight(format, [EXPERTS, WIDTH, WIDTH], seed, 0.06));
  const ones = { rows: ROWS, columns: CHOSEN, data: new Float32Array(ROWS * CHOSEN).fill(1) };
  const inputs = [x, integers(ROWS, CHOSEN, [...ids]), ones, ...matrices];
  const [{ data }] = await expectedOutputs({ op: 'experts', inputs, attributes: { activation: 'silu' }, placement });
  return data as Float32Array;
}

const GPU = { activation: 'f32', tiles: 1 } as const;
const CPU = { activation: 'f32' } as const;

describe.each(['q4_k', 'q8_0'] as const)('%s', (format) => {
  test('what a GPU rounds passes against the CPU, with room', async () => {
    const [gpu, cpu] = [await experts(format, GPU), await experts(format, CPU)];
    const { passes, distance } = judgeStreamed(gpu, cpu, WIDTH);
    expect(passes).toBe(true);
    expect(distance).toBeGreaterThan(0);
    expect(distance).toBeLessThan(ROW_LIMIT / 4);
  });

  test('one expert lost, doubled or swapped for another in one row does not pass', async () => {
    const cpu = await experts(format, CPU);
    const unused = [...Array(EXPERTS).keys()].find((e) => !choices.subarray(4 * CHOSEN, 5 * CHOSEN).includes(e))!;
    for (const id of [-1, choices[4 * CHOSEN], unused]) {
      const wrong = choices.slice();
      wrong[4 * CHOSEN + 3] = id;
      const { passes, row } = judgeStreamed(await experts(format, GPU, wrong), cpu, WIDTH);
      expect([passes, row]).toEqual([false, 4]);
    }
  });

  test('in groups it is the whole', async () => {
    const whole = await experts(format, GPU);
    const model = { expertBytes: [1000], experts: EXPERTS, weightsPerToken: 1 };
    for (const held of [3, 4]) {
      const { groups } = planStream(model, { device: 2 * held * 1000, ring: 0 })!;
      expect(groups.length).toBe(Math.ceil(EXPERTS / held));
      const parts: Float32Array[] = [];
      for (const group of groups) parts.push(await experts(format, GPU, groupIds(choices, group)));
      const sum = Float32Array.from(whole, (_, i) => parts.reduce((all, part) => all + part[i], 0));
      expect(judgeStreamed(sum, whole, WIDTH).distance).toBeLessThan(1e-5);
    }
  });
});

test('what is not a number in one of both does not pass; rows of nothing do', () => {
  const zeros = new Float32Array(4);
  expect(judgeStreamed(zeros, zeros, 2)).toEqual({ passes: true, row: 0, distance: 0 });
  expect(judgeStreamed(Float32Array.of(0, 0, 0, Number.NaN), zeros, 2)).toEqual({
    passes: false,
    row: 1,
    distance: Infinity,
  });
  expect(judgeStreamed(Float32Array.of(0, 0, 0, 1), zeros, 2).passes).toBe(false);
  expect(judgeStreamed(new Float32Array(2), zeros, 2).passes).toBe(false);
});
