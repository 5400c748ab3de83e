/**
 * Random small Programs on native against the reference, in lock-step: every op, weight formats and both cache types, a
 * prefill of two sequences and then a mixed pass. A failure names its seed.
 */
import { describe, expect, it } from 'vitest';
import { comparePrograms, describeFailure } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { OPS } from '../../src/ops/index.ts';
import { nativeIsas, random } from './harness.ts';
import { batchOf } from './tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from './tiny-program.ts';

const { isas, reason } = await nativeIsas();
const LIMITS = { pages: 8, maxRows: 128, maxOutputs: 128 };
const FORMATS = ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q5_1', 'q2_k', 'q4_k', 'q6_k', 'f8_e4m3'] as const;

/** One of the many shapes a small Program can have. */
function drawOptions(seed: number): TinyOptions {
  const next = random(seed);
  const one = <T>(list: readonly T[]): T => list[Math.floor(next() * list.length)];
  const layers = Array.from({ length: 1 + Math.floor(next() * 3) }, () => {
    return [one(['gqa', 'mla', 'mla-split'] as const), one(['dense', 'experts'] as const)] as const;
  });
  return {
    seed,
    layers,
    format: FORMATS[seed % FORMATS.length],
    kvType: one(['f32', 'bf16']),
    fast: next() < 0.7,
    score: one(['softmax', 'sigmoid']),
    split: next() < 0.5,
  };
}

function drawBatches(seed: number) {
  const next = random(seed + 77);
  const tokens = (count: number) => Array.from({ length: count }, () => Math.floor(next() * TINY_VOCABULARY));
  const long = 60 + Math.floor(next() * 10);
  return [
    batchOf([
      { tokens: tokens(long), pages: [5, 2], outputs: 'last' },
      { tokens: tokens(3), pages: [1] },
    ]),
    batchOf([
      { tokens: tokens(1), firstPosition: 3, pages: [1] },
      { tokens: tokens(9), firstPosition: long, pages: [5, 2] },
      { tokens: tokens(2), pages: [7], outputs: 'none' },
    ]),
  ];
}

describe.skipIf(reason)(`random Programs ${reason ?? ''}`, () => {
  describe.each(isas)('%s', (isa) => {
    it.each(Array.from({ length: 20 }, (_, i) => i + 1))('seed %i stays within the bounds', async (seed) => {
      const { program, checkpoint } = tinyProgram(drawOptions(seed));
      await using left = await nativeBackend().prepare(program, checkpoint, { ...LIMITS, isa, threads: 2 });
      await using right = await referenceBackend({ trackMagnitudes: true }).prepare(program, checkpoint, LIMITS);
      const report = await comparePrograms({ left, right, batches: drawBatches(seed), ops: OPS });
      const { firstFailure: step } = report;
      expect(step && `${JSON.stringify(drawOptions(seed))}: ${step.name}: ${describeFailure(step)}`).toBeUndefined();
      expect(report.steps.length).toBe(2 * program.steps.length);
    });
  });
});
