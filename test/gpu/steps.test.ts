/**
 * Steps on a GPU against the reference, in lock-step, each held to the bound of its op: random small Programs with every op, over
 * the fake driver and emulated kernels. Nothing here has run on a card.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { comparePrograms, describeFailure } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import type { Program } from '../../src/program/program.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const LIMITS = { pages: 8, maxRows: 140, maxOutputs: 70, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const reason = fakeDriverProblem();

const SAMPLE: RuleDescription = { match: { op: 'sample' }, place: { device: 'cpu' } };
const PLACES: Readonly<Record<string, readonly RuleDescription[]>> = {
  gpu: [SAMPLE, { place: { device: 'cuda:0' } }],
  hybrid: [SAMPLE, { match: { op: ['experts', 'embed'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }],
  'two GPUs': [SAMPLE, { place: { device: 'cuda:{layer * gpus / layers}' } }],
};

function placed(program: Program, rules: readonly RuleDescription[]): Program {
  return lower(program, MACHINE, { exact: true, activations: 'f32', rules: parseRules(rules) });
}

const tokens = (count: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (i * i + seed) % TINY_VOCABULARY);
const BATCHES = [
  batchOf([
    { tokens: tokens(66, 1), pages: [5, 2], outputs: 'last' },
    { tokens: tokens(3, 2), pages: [1] },
  ]),
  batchOf([
    { tokens: tokens(1, 3), firstPosition: 3, pages: [1] },
    { tokens: tokens(9, 4), firstPosition: 66, pages: [5, 2] },
    { tokens: tokens(2, 5), pages: [7], outputs: 'none' },
  ]),
  batchOf([
    { tokens: tokens(1, 6), firstPosition: 4, pages: [1] },
    { tokens: tokens(1, 7), firstPosition: 75, pages: [5, 2] },
  ]),
];

const CASES: readonly [place: string, options: TinyOptions][] = [
  ['gpu', { seed: 1 }],
  ['gpu', { seed: 2, format: 'q8_0', layers: [['mla-split', 'experts']], kvType: 'bf16' }],
  [
    'gpu',
    {
      seed: 3,
      format: 'q4_k',
      layers: [
        ['mla', 'experts'],
        ['gqa', 'dense'],
      ],
      split: true,
      score: 'softmax',
    },
  ],
  [
    'gpu',
    {
      seed: 4,
      format: 'f8_e4m3',
      layers: [
        ['gqa', 'experts'],
        ['mla', 'dense'],
      ],
      kvType: 'bf16',
    },
  ],
  [
    'hybrid',
    {
      seed: 5,
      format: 'q6_k',
      layers: [
        ['gqa', 'experts'],
        ['mla', 'experts'],
      ],
    },
  ],
  [
    'hybrid',
    {
      seed: 6,
      format: 'bf16',
      layers: [
        ['mla', 'experts'],
        ['gqa', 'dense'],
      ],
      kvType: 'bf16',
    },
  ],
  [
    'two GPUs',
    {
      seed: 7,
      format: 'q5_1',
      layers: [
        ['gqa', 'experts'],
        ['mla', 'experts'],
      ],
    },
  ],
];

describe.skipIf(reason)(`steps on GPUs ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver('gpus=2'), 300_000);

  it.each(CASES)('%s: %o stay within the bounds', async (place, options) => {
    const { program, checkpoint } = tinyProgram(options);
    const lowered = placed(program, PLACES[place]);
    await using left = await nativeBackend().prepare(lowered, checkpoint, LIMITS);
    await using right = await referenceBackend({ trackMagnitudes: true }).prepare(lowered, checkpoint, LIMITS);
    const report = await comparePrograms({ left, right, batches: BATCHES, ops: OPS });
    const { firstFailure: step } = report;
    expect(step && `${step.name}: ${describeFailure(step)}`).toBeUndefined();
    expect(report.steps.length).toBe(BATCHES.length * lowered.steps.length);
  });

  it('fast mode: matrices on tensor cores, experts of prompts too, stay within the bounds', async () => {
    const { program, checkpoint } = tinyProgram({ seed: 8, format: 'q8_0', layers: [['gqa', 'experts']] });
    const lowered = lower(program, MACHINE, { rules: parseRules(PLACES.gpu) });
    expect(lowered.steps.map(({ placement }) => placement?.tiles)).toEqual(expect.arrayContaining([1, 128]));
    await using left = await nativeBackend().prepare(lowered, checkpoint, LIMITS);
    await using right = await referenceBackend({ trackMagnitudes: true }).prepare(lowered, checkpoint, LIMITS);
    const batches = [
      batchOf([{ tokens: tokens(130, 8), pages: [5, 2, 3], outputs: 'last' }]),
      batchOf([{ tokens: tokens(1, 9), firstPosition: 130, pages: [5, 2, 3] }]),
    ];
    const { firstFailure: step } = await comparePrograms({ left, right, batches, ops: OPS });
    expect(step && `${step.name}: ${describeFailure(step)}`).toBeUndefined();
  });
});
