import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import { PagePool } from './kv-cache.ts';
import type { PageStore } from './page-store.ts';
import { PrefixArchive } from './prefix-archive.ts';
import { PrefixCache } from './prefix-cache.ts';
import { Sequence } from './sequence.ts';

const TOKENS = Int32Array.from({ length: 64 * 40 + 1 }, (_, i) => i);

/** An archive over a map; `slow` holds up every write to the store. */
function archive({ pages = 64, slow = async () => {} }: { pages?: number; slow?: () => Promise<void> } = {}) {
  const files = new Map<string, Uint8Array>();
  const store = {
    stats: {},
    hasRoom: true,
    key: (parent: string, tokens: Int32Array) => `${parent}/${tokens[0]}`,
    has: (key: string) => files.has(key),
    read: async (key: string) => files.get(key),
    async write(key: string, _: Int32Array, page: Uint8Array) {
      await slow();
      files.set(key, page);
    },
    use() {},
  } as unknown as PageStore;
  const cells = new Map<number, Uint8Array>();
  let [crossings, atOnce, most] = [0, 0, 0];
  const cross = async <T>(action: () => T) => {
    crossings++;
    most = Math.max(most, ++atOnce);
    await sleep(1);
    atOnce--;
    return action();
  };
  const pool = new PagePool(pages);
  const cache = new PrefixCache(pool);
  const access = {
    readPage: (page: number) => cross(() => cells.get(page) ?? new Uint8Array([page])),
    writePage: (page: number, bytes: Uint8Array) => cross(() => void cells.set(page, bytes)),
  };
  let released = 0;
  const kept = new PrefixArchive(store, cache, pool, access, () => {
    released++;
  });
  /** A sequence that has computed `count` pages of TOKENS, and ended. */
  const compute = (count: number) => {
    const prompt = TOKENS.slice(0, count * 64 + 1);
    const sequence = new Sequence({ prompt, maxLen: prompt.length + 1, sampler: {} as never, stopTokens: new Set() });
    for (let i = 0; i < count; i++) sequence.addPage(pool.allocate());
    sequence.computedLen = count * 64;
    cache.learn(sequence);
    for (const page of sequence.takePages()) pool.release(page);
  };
  const check = () => pool.check([cache.pages()]);
  return { kept, files, pool, cache, compute, check, counts: () => ({ crossings, most, released }) };
}

describe('prefix archive', () => {
  test('what is learned is written, several pages at a crossing, and brought back likewise', async () => {
    const first = archive();
    first.compute(40);
    await first.kept.close(60_000);
    expect(first.files.size).toBe(40);
    first.check();
    const second = archive();
    for (const [key, page] of first.files) second.files.set(key, page);
    await second.kept.restore(TOKENS);
    expect(second.cache.find(TOKENS)).toHaveLength(40);
    expect(second.counts()).toMatchObject({ crossings: 40, most: 16, released: 3 });
    second.check();
  });

  test('of a prompt of whole pages the last one is not brought: its last token is computed anyway', async () => {
    const first = archive();
    first.compute(3);
    await first.kept.close(60_000);
    const second = archive();
    for (const [key, page] of first.files) second.files.set(key, page);
    await second.kept.restore(TOKENS.slice(0, 3 * 64));
    expect(second.cache.find(TOKENS)).toHaveLength(2);
  });

  test('the end waits for a slow disk so long and no longer', async () => {
    const slow = archive({ slow: () => new Promise(() => {}) });
    slow.compute(40);
    await slow.kept.close(20);
    slow.check();
    const patient = archive({ slow: () => sleep(1) });
    patient.compute(20);
    await patient.kept.close(60_000);
    expect(patient.files.size).toBe(20);
  });

  test('nothing is written after the end', async () => {
    let open: () => void = () => {};
    const gate = new Promise<void>((resolve) => {
      open = resolve;
    });
    const { kept, files, compute } = archive({ slow: () => gate });
    compute(40);
    await kept.close(5);
    open();
    await sleep(20);
    expect(files.size).toBeLessThanOrEqual(1); // the one on its way
  });

  test('where pages are short, what came is kept and every page has its owners', async () => {
    const first = archive();
    first.compute(40);
    await first.kept.close(60_000);
    const small = archive({ pages: 20 });
    for (const [key, page] of first.files) small.files.set(key, page);
    const held = [small.pool.allocate(), small.pool.allocate()];
    await small.kept.restore(TOKENS);
    expect(small.cache.find(TOKENS).length).toBeGreaterThan(0);
    for (const page of held) small.pool.release(page);
    small.check();
  });

  test('what the disk lost and memory still has is written again when it is used', async () => {
    const { kept, files, compute, check } = archive();
    compute(10);
    await expect.poll(() => files.size).toBe(10);
    files.clear();
    await kept.restore(TOKENS.slice(0, 64 * 5 + 1));
    await expect.poll(() => files.size).toBe(5);
    check();
  });

  test('a request that is gone brings back nothing more', async () => {
    const first = archive();
    first.compute(40);
    await first.kept.close(60_000);
    const second = archive();
    for (const [key, page] of first.files) second.files.set(key, page);
    const gone = new AbortController();
    const restoring = second.kept.restore(TOKENS, gone.signal);
    gone.abort();
    await restoring;
    expect(second.cache.find(TOKENS).length).toBeLessThanOrEqual(16);
    second.check();
  });
});
