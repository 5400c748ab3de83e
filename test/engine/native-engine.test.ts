/** The engine on native kernels and the model that ships: what only a real executable can show. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { type Engine, load } from '../../src/index.ts';

// Reason of the skip: the native core is not built here (nativeProblem() says why).
describe.skipIf(nativeProblem() !== undefined)('native', () => {
  let engine: Engine;
  const long = Array.from({ length: 1800 }, (_, i) => 10 + ((i * i) % 1400));
  const warm = { temperature: 1, topP: 0.95, repetitionPenalty: 1.05, seed: 42, maxTokens: 40, ignoreEos: true };

  beforeAll(async () => {
    engine = await load(undefined, { exact: true, maxBatchRows: 256 });
  });
  afterAll(() => engine?.dispose());

  test('the same seed gives the same text: alone, among others, and with another number of threads', async () => {
    const prompt = engine.tokenize('How do I get 4 L of water?');
    const alone = await engine.generate(prompt, warm);
    const others = [1, 2, 3].map((seed) => engine.generate(long.slice(0, 100 * seed), { ...warm, seed }));
    expect((await engine.generate(prompt, warm)).tokens).toEqual(alone.tokens);
    await Promise.all(others);
    for (const threads of [1, 3]) {
      await using other = await load(undefined, { threads, maxBatchRows: 16, exact: true });
      expect((await other.generate(prompt, warm)).tokens).toEqual(alone.tokens);
    }
  });

  test('a progress callback that throws ends the loading with what it threw', async () => {
    const error = new Error('mine');
    const onProgress = () => {
      throw error;
    };
    await expect(load(undefined, { onProgress })).rejects.toBe(error);
  });

  test('an abort while weights are read tells its reason', async () => {
    const controller = new AbortController();
    const onProgress = () => controller.abort('enough');
    const loading = load(undefined, { signal: controller.signal, onProgress });
    await expect(loading).rejects.toMatchObject({ code: 'ABORTED', cause: 'enough' });
  });

  test('an abort in the middle of a long prompt leaves a whole engine', async () => {
    const controller = new AbortController();
    let done = 0;
    const generation = engine.generate(long, {
      signal: controller.signal,
      onProgress: (progress) => {
        done = progress.done;
        if (done > 0) setTimeout(() => controller.abort(), 5);
      },
    });
    await expect(generation).rejects.toMatchObject({ code: 'ABORTED' });
    expect(done).toBeGreaterThan(0);
    expect(done).toBeLessThan(long.length);
    while (engine.stats().running > 0) await sleep(1);
    const result = await engine.chat([{ role: 'user', content: 'What is 9 + 0?' }]);
    expect(result.text).toBe('9 + 0 = 9');
  });

  test('the event loop is free while the prompt is read', async () => {
    let turns = 0;
    const turn = () => {
      turns++;
      next = setImmediate(turn);
    };
    let next = setImmediate(turn);
    const before = engine.stats().passes;
    await engine.generate(long.slice(0, 1000), { maxTokens: 1 });
    clearImmediate(next);
    // Held during passes, it would turn a few times between them.
    expect(turns).toBeGreaterThan(20 * (engine.stats().passes - before));
  });

  test('100 generations one after the other leave every page free', async () => {
    for (let i = 0; i < 100; i++) await engine.generate(long.slice(0, 1 + i), { maxTokens: 3, ignoreEos: true });
    const { freePages, totalPages, running, waiting } = engine.stats();
    expect([freePages, running, waiting]).toEqual([totalPages, 0, 0]);
  });

  test('logits of chunks are those of the whole', async () => {
    const ids = long.slice(0, 150);
    const logits = await engine.logits(ids);
    await using small = await load(undefined, { maxBatchRows: 7, exact: true });
    // Not toEqual: telling millions of numbers apart would take minutes.
    expect(Buffer.from((await small.logits(ids)).buffer).equals(Buffer.from(logits.buffer))).toBe(true);
  });
});
