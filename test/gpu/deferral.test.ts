/**
 * Late experts beside a GPU: hand-overs in flight over a layer's end, prompts eager and decode by graph, against the CPU alone. Over
 * the fake driver and emulated kernels: nothing here has run on a card.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, type LoadOptions, load } from '../../src/index.ts';
import { ALL_ON_GPU, fakeDriverProblem, UNROUNDED, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const PROMPT = 'What is 9 + 0?';

describe.skipIf(reason)(`late experts beside a GPU ${reason ?? ''}`, () => {
  const opened: Engine[] = [];
  async function open(options: LoadOptions): Promise<Engine> {
    const engine = await load(undefined, { ...UNROUNDED, ...options });
    opened.push(engine);
    return engine;
  }
  beforeAll(() => useFakeDriver('gpus=2;memory=4000000000'), 300_000);
  afterAll(() => Promise.all(opened.map((engine) => engine.dispose())));

  /** Largest difference of the logits, over the largest logit. */
  function distance(a: Float32Array, b: Float32Array): number {
    const scale = b.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
    return a.reduce((most, logit, i) => Math.max(most, Math.abs(logit - b[i])), 0) / scale;
  }

  it('the numbers are those of the CPU with as many late, experts on the CPU or on the GPU', async () => {
    const cpu = await open({ rules: 'cpu', deferExperts: 2 });
    const hybrid = await open({ rules: 'one-gpu', deferExperts: 2 });
    const ids = cpu.tokenize(PROMPT);
    const expected = await cpu.logits(ids);
    expect(distance(await hybrid.logits(ids), expected)).toBeLessThan(1e-3);
    const all = await open({ rules: ALL_ON_GPU, deferExperts: 2 });
    expect(distance(await all.logits(ids), expected)).toBeLessThan(1e-3);
    const whole = await open({ rules: 'cpu' });
    expect(distance(await whole.logits(ids), expected)).toBeGreaterThan(1e-2);
    const messages = [{ role: 'user', content: PROMPT }] as const;
    const [asked, answered] = [
      await cpu.chat(messages, { maxTokens: 8 }),
      await hybrid.chat(messages, { maxTokens: 8 }),
    ];
    expect(answered.reasoning).toBe(asked.reasoning);
    expect(answered.reasoning.length).toBeGreaterThan(0);
  });
});
