/**
 * Requests on a GPU that are given up: in the middle of a long prompt, in the middle of an answer, one of several in a pass. Pages
 * come back, neighbours and the next request are right. Over the fake driver: nothing here has run on a card.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Engine, load } from '../../src/index.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
/** The small steps of some layers lie there: passes cross over and back, and emulated kernels are slow. */
const RULES = [
  { match: { op: ['experts', 'linear', 'glu', 'mla'] }, place: { device: 'cpu' } },
  { match: { layers: '0-2' }, place: { device: 'cuda:0' } },
];
const QUESTION = [{ role: 'user', content: 'What is 9 + 0?' }] as const;

describe.skipIf(reason)(`requests given up on a GPU ${reason ?? ''}`, () => {
  let engine: Engine;
  beforeAll(async () => {
    await useFakeDriver('gpus=1;memory=4000000000');
    engine = await load(undefined, {
      contextLength: 512,
      maxBatchRows: 16,
      threads: 2,
      rules: RULES,
      prefixCache: false,
    });
  }, 300_000);
  afterAll(() => engine?.dispose());

  async function settled(): Promise<void> {
    while (engine.stats().running > 0) await sleep(1);
    const { freePages, totalPages, waiting } = engine.stats();
    expect([freePages, waiting]).toEqual([totalPages, 0]);
  }

  it('in the middle of a prompt', async () => {
    const controller = new AbortController();
    const prompt = Array.from({ length: 400 }, (_, i) => 60 + (i % 50));
    let done = 0;
    const onProgress = (progress: { done: number }) => {
      done = progress.done;
      if (done > 0) setTimeout(() => controller.abort(), 2);
    };
    const generation = engine.generate(prompt, { signal: controller.signal, onProgress });
    await expect(generation).rejects.toMatchObject({ code: 'ABORTED' });
    expect(done).toBeGreaterThan(0);
    expect(done).toBeLessThan(prompt.length);
    await settled();
    expect((await engine.chat(QUESTION)).text).toBe('9 + 0 = 9');
    await settled();
  }, 120_000);

  it('in the middle of an answer, its neighbour goes on', async () => {
    const neighbour = engine.chat(QUESTION);
    const controller = new AbortController();
    let drawn = 0;
    const given = engine.generate([60, 61, 62], { maxTokens: 200, ignoreEos: true, signal: controller.signal });
    const read = (async () => {
      for await (const event of given) if (event.type === 'text' && ++drawn === 2) controller.abort();
    })();
    await expect(read).rejects.toMatchObject({ code: 'ABORTED' });
    expect(given.partial!.tokens.length).toBeGreaterThan(0);
    expect(given.partial!.tokens.length).toBeLessThan(200);
    expect((await neighbour).text).toBe('9 + 0 = 9');
    await settled();
  }, 120_000);
});
