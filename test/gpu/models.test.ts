/**
 * Whole models on GPUs: the one that ships, all on a GPU, with its experts on the CPU, by layers on two GPUs; against the CPU. Over the
 * fake driver and emulated kernels: nothing here has run on a card.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, type LoadOptions, load } from '../../src/index.ts';
import { ALL_ON_GPU, fakeDriverProblem, UNROUNDED, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const PROMPT = 'What is 9 + 0?';

describe.skipIf(reason)(`models on GPUs ${reason ?? ''}`, () => {
  let cpu: Engine;
  const opened: Engine[] = [];
  async function open(options: LoadOptions): Promise<Engine> {
    const engine = await load(undefined, { ...UNROUNDED, ...options });
    opened.push(engine);
    return engine;
  }
  beforeAll(async () => {
    await useFakeDriver('gpus=2;memory=4000000000');
    cpu = await open({ rules: 'cpu' });
  }, 300_000);
  afterAll(() => Promise.all(opened.map((engine) => engine.dispose())));

  it.each<[string, LoadOptions, number]>([
    ['all on a GPU', { rules: ALL_ON_GPU }, 4],
    ['experts on the CPU', { rules: 'one-gpu' }, 100],
    ['layers on two GPUs, experts on the CPU', { rules: 'two-gpus' }, 4],
  ])('%s: the answer is that of the CPU', async (_, options, maxTokens) => {
    const gpu = await open(options);
    expect(gpu.info.execution.gpus).toMatch(/^cuda:0 Fake/);
    expect(gpu.info.warnings).toEqual([expect.stringMatching(/GPU kernels/)]);
    const messages = [{ role: 'user', content: PROMPT }] as const;
    const [expected, actual] = [await cpu.chat(messages, { maxTokens }), await gpu.chat(messages, { maxTokens })];
    expect(actual.tokens.length).toBeGreaterThan(3);
    expect(actual.tokens).toEqual(expected.tokens);
  });
});
