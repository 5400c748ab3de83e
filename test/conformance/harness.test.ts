/** The harness judges itself: the reference against itself passes, a spoilt number does not. */
import { describe, expect, it } from 'vitest';
import type { Isa } from '../../src/backend/native/binding.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { FORMAT_NAMES } from '../../src/formats/dtype.ts';
import { activationOf } from '../../src/ops/activation.ts';
import { expectedOutputs, floats, integers, judgeOutputs, type OpCase, runOp, weight } from './harness.ts';

const CASES: Record<string, OpCase> = {
  embed: { op: 'embed', inputs: [weight('q4_k', [8, 256], 1)], tokens: [7, 0, 3] },
  'rms-norm': {
    op: 'rms-norm',
    inputs: [floats(3, 64, 1), weight('f32', [16], 2)],
    attributes: { epsilon: 1e-6, group: 16 },
  },
  attention: {
    op: 'attention',
    inputs: [{ ...floats(5, 4 * 16, 1), pad: [3, 5] }],
    attributes: { heads: 4, kvHeads: 2, headSize: 16, valueSize: 8, scale: 0.25 },
    sequences: [
      { rows: 3, firstPosition: 70 },
      { rows: 2, firstPosition: 0 },
    ],
    context: { op: 'kv-append', inputs: [floats(75, 32, 2), floats(75, 16, 3)], heads: 2, type: 'bf16' },
  },
  mla: {
    op: 'mla',
    inputs: [floats(4, 2 * 24, 1), weight('q8_0', [2 * (16 + 8), 32], 2), null, null],
    attributes: { heads: 2, nope: 16, rope: 8, latent: 32, value: 8, scale: 0.2 },
    sequences: [{ rows: 4, firstPosition: 9 }],
    context: { op: 'mla-append', inputs: [floats(13, 32, 3), floats(13, 8, 4)] },
  },
  experts: {
    op: 'experts',
    inputs: [
      floats(3, 64, 1),
      integers(3, 2, [0, 2, 2, -1, 1, 0]),
      floats(3, 2, 2),
      weight('q8_0', [3, 32, 64], 3),
      { ...weight('q4_0', [3, 32, 64], 4), split: true },
      weight('q5_1', [3, 64, 32], 5),
    ],
    attributes: { activation: 'silu' },
    placement: { activation: 'q8_32', middle: 'q8_32' },
  },
};

describe('judging', () => {
  it.each(Object.entries(CASES))('%s: passes against itself, fails when one number is spoilt', async (_, test) => {
    const expected = await expectedOutputs(test);
    const actual = await runOp(referenceBackend(), test);
    for (const worst of judgeOutputs(test, actual, expected, 'self' as Isa)) expect(worst?.ratio).toBe(0);
    expect(expected[0].data.every((value) => Number.isFinite(value))).toBe(true);
    const { data } = actual[0];
    const at = data.length - 1;
    data[at] += 1e-3 + 1e-2 * Math.abs(data[at]);
    expect(() => judgeOutputs(test, actual, expected, 'spoilt')).toThrow(`${test.op} output 0[${at}]`);
    data[at] = Number.NaN;
    expect(() => judgeOutputs(test, actual, expected, 'spoilt')).toThrow('is NaN');
  });

  it.each(FORMAT_NAMES)('random %s weights are finite and neither all alike nor huge', async (format) => {
    const test: OpCase = {
      op: 'linear',
      inputs: [floats(2, 256, 1), weight(format, [5, 256], 2), null],
      placement: { activation: activationOf(format) },
    };
    const [{ data }] = await expectedOutputs(test);
    expect(new Set(data).size).toBe(10);
    for (const value of data) expect(Math.abs(value)).toBeLessThan(100);
  });
});
