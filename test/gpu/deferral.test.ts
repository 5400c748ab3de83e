/**
 * Late experts beside a GPU: hand-overs in flight over a layer's end, prompts eager and decode by graph, against the CPU alone. Over
 * the fake driver and emulated kernels: nothing here has run on a card.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, type LoadOptions, load } from '../../src/index.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const SAME = {
  exact: true,
  activations: 'f32',
  contextLength: 256,
  maxBatchRows: 32,
  threads: 2,
  kvType: 'f32',
} as const;
const PROMPT = 'What is 9 + 0?';

describe.skipIf(reason)(`late experts beside a GPU ${reason ?? ''}`, () => {
  const opened: Engine[] = [];
  async function open(options: LoadOptions): Promise<Engine> {
    const engine = await load(undefined, { ...SAME, ...options });
    opened.push(engine);
    return engine;
  }
  beforeAll(() => useFakeDriver('gpus=2;memory=4000000000'), 300_000);
  afterAll(() => Promise.all(opened.map((engine) => engine.dispose())));

  it('the numbers are those of the CPU with as many late', async () => {
    const cpu = await open({ rules: 'cpu', deferExperts: 2 });
    const gpu = await open({ rules: 'one-gpu', deferExperts: 2 });
    const ids = cpu.tokenize(PROMPT);
    const [expected, actual] = [await cpu.logits(ids), await gpu.logits(ids)];
    const scale = Math.max(...expected.map(Math.abs));
    for (const [i, logit] of expected.entries()) expect(Math.abs(actual[i] - logit)).toBeLessThan(1e-3 * scale);
    const whole = await (await open({ rules: 'cpu' })).logits(ids);
    expect(Math.max(...whole.map((logit, i) => Math.abs(expected[i] - logit)))).toBeGreaterThan(1e-2 * scale);
    const messages = [{ role: 'user', content: PROMPT }] as const;
    const [asked, answered] = [await cpu.chat(messages, { maxTokens: 8 }), await gpu.chat(messages, { maxTokens: 8 })];
    expect(answered.reasoning).toBe(asked.reasoning);
    expect(answered.reasoning.length).toBeGreaterThan(0);
  });
});
