/**
 * Long prompts in fast mode, over tensor cores: latent attention with expanded keys and values, heads of any even size, sequences of
 * few rows beside them, contexts of several chunks; caches of every type. Each step against the reference within the bound of its op.
 * Over the fake driver and emulated kernels: nothing here has run on a card.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { comparePrograms, describeFailure } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules } from '../../src/placement/rules-file.ts';
import type { Batch } from '../../src/program/batch.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0'].map((name) => ({ name })) } as const;
const RULES = parseRules([{ place: { device: 'cuda:0' } }]);

const tokens = (count: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (i * i + seed) % TINY_VOCABULARY);
const pages = (first: number, count: number) => Array.from({ length: count }, (_, i) => first + 2 * i);
/** Few rows, many, few, many: what goes over tiles lies between what does not. */
const MIXED = [
  batchOf([
    { tokens: tokens(3, 1), pages: [1], outputs: 'last' },
    { tokens: tokens(130, 2), pages: [6, 2, 4], outputs: 'last' },
    { tokens: tokens(2, 3), pages: [7], outputs: 'last' },
    { tokens: tokens(5, 4), pages: [8], outputs: 'last' },
    { tokens: tokens(129, 5), pages: [0, 5, 3], outputs: 'last' },
  ]),
  batchOf([
    { tokens: tokens(1, 6), firstPosition: 3, pages: [1] },
    { tokens: tokens(140, 7), firstPosition: 130, pages: [6, 2, 4, 9, 10], outputs: 'last' },
  ]),
  batchOf([{ tokens: tokens(1, 8), firstPosition: 270, pages: [6, 2, 4, 9, 10] }]),
];

async function check(options: TinyOptions, batches: readonly Batch[], rows: number): Promise<void> {
  const { program, checkpoint } = tinyProgram(options);
  const limits = { pages: 48, maxRows: rows, maxOutputs: 8, threads: 2 };
  const lowered = lower(program, MACHINE, { rules: RULES });
  await using left = await nativeBackend().prepare(lowered, checkpoint, limits);
  await using right = await referenceBackend({ trackMagnitudes: true }).prepare(lowered, checkpoint, limits);
  const { firstFailure: step, tokenDifferences } = await comparePrograms({ left, right, batches, ops: OPS });
  expect(step && `${step.name}: ${describeFailure(step)}`).toBeUndefined();
  expect(tokenDifferences).toBe(0);
}

describe.skipIf(reason)(`long prompts on GPUs ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver('gpus=1'), 300_000);

  it.each<TinyOptions>([
    { seed: 21, layers: [['mla', 'dense']], format: 'q8_0', kvType: 'bf16' },
    { seed: 22, layers: [['mla-split', 'dense']], format: 'bf16' },
    { seed: 23, layers: [['mla-split', 'dense']], format: 'q4_k', kvType: 'e4m3' },
    { seed: 24, layers: [['mla', 'dense']], format: 'f8_e4m3', kvType: 'e4m3' },
    { seed: 25, layers: [['gqa', 'dense']], kvType: 'e4m3' },
  ])('%o: rows of prompts and of answers in one pass stay within the bounds', (options) => check(options, MIXED, 270));

  it('a context of several chunks', async () => {
    const [own, other] = [pages(0, 20), pages(1, 20)];
    const chunk = (count: number, firstPosition: number, on: readonly number[]) =>
      batchOf([{ tokens: tokens(count, firstPosition), firstPosition, pages: on, outputs: 'last' }]);
    const batches = [0, 300, 600, 900].map((at) => chunk(300, at, own));
    await check({ seed: 26, layers: [['mla', 'dense']], kvType: 'bf16' }, [...batches, chunk(128, 0, other)], 300);
  });

  it('a step that takes the rows rounded by the one before it rounds them itself where it runs alone', async () => {
    const { program, checkpoint } = tinyProgram({ seed: 27, layers: [['gqa', 'dense']] });
    const lowered = lower(program, MACHINE, { rules: RULES });
    const inputOf = (step: (typeof lowered.steps)[number] | undefined) =>
      step?.op === 'linear' && step.inputs[0]?.kind === 'value' ? step.inputs[0].value : undefined;
    const second = lowered.steps.findIndex((step, i) => i > 0 && inputOf(step) !== undefined && inputOf(step) === inputOf(lowered.steps[i - 1])); // biome-ignore format: one thought a line
    const x = inputOf(lowered.steps[second])!;
    await using model = await nativeBackend().prepare(lowered, checkpoint, {
      pages: 48,
      maxRows: 130,
      maxOutputs: 8,
      threads: 2,
    });
    const answer = async (before: number) => {
      const stepper = await model.start(batchOf([{ tokens: tokens(130, 1), pages: [6, 2, 4], outputs: 'last' }]));
      const rows = (seed: number) =>
        Float32Array.from({ length: 130 * lowered.values[x].columns }, (_, i) => Math.sin(i * seed));
      await stepper.write(x, rows(before));
      await stepper.step(second - 1);
      await stepper.write(x, rows(3));
      await stepper.step(second);
      const y = await stepper.read(lowered.steps[second].outputs[0]);
      await stepper.finish().catch(() => {}); // most steps did not run
      return y;
    };
    const expected = await answer(3);
    expect(expected.some((value) => value !== 0)).toBe(true);
    expect(await answer(5)).toEqual(expected);
  });
});
