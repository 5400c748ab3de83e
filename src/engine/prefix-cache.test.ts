import { describe, expect, test } from 'vitest';
import { PagePool } from './kv-cache.ts';
import { PrefixCache } from './prefix-cache.ts';
import { Sequence } from './sequence.ts';

function house(pages = 8) {
  const pool = new PagePool(pages);
  return { pool, cache: new PrefixCache(pool) };
}

/** A sequence with these pages of tokens computed. */
function computed(pool: PagePool, tokens: readonly number[]): Sequence {
  const sequence = new Sequence({
    prompt: Int32Array.from(tokens),
    maxLen: tokens.length,
    sampler: null,
    stopTokens: new Set(),
  });
  for (let i = 0; i < Math.ceil(tokens.length / 64); i++) sequence.addPage(pool.allocate());
  sequence.computedLen = tokens.length;
  return sequence;
}

function release(pool: PagePool, sequence: Sequence): void {
  for (const page of sequence.takePages()) pool.release(page);
}

const count = (length: number, from = 0) => Array.from({ length }, (_, i) => from + i);

describe('prefix cache', () => {
  test('knows full pages only, by their tokens', () => {
    const { pool, cache } = house();
    const first = computed(pool, count(150));
    cache.learn(first);
    expect(cache.pages()).toHaveLength(2);
    const pages = [...first.pages];
    release(pool, first);
    expect(cache.find(Int32Array.from(count(150))).map(({ page }) => page)).toEqual(pages.slice(0, 2));
    expect(cache.find(Int32Array.from(count(127)))).toHaveLength(1);
    expect(cache.find(Int32Array.from(count(63)))).toHaveLength(0);
    const other = count(150);
    other[70] = 9999;
    expect(cache.find(Int32Array.from(other))).toHaveLength(1);
    expect(cache.find(Int32Array.from([1, ...count(149)]))).toHaveLength(0);
  });

  test('tokens whose hashes collide are told apart', () => {
    const { pool, cache } = house();
    const hash = (tokens: number[]) => {
      let h = 0x811c9dc5;
      for (const token of tokens) h = Math.imul(h ^ token, 0x01000193);
      return h >>> 0;
    };
    // Two pages that differ in their last two tokens and hash alike: the last one undoes what the one before did.
    const head = count(62);
    const mix = (token: number) => Math.imul(hash(head) ^ token, 0x01000193);
    const a = [...head, 1, 7];
    const b = [...head, 2, (mix(1) ^ mix(2) ^ 7) | 0];
    expect(hash(a)).toBe(hash(b));
    const [one, two] = [computed(pool, a), computed(pool, b)];
    cache.learn(one);
    cache.learn(two);
    expect(cache.pages()).toHaveLength(2);
    expect(cache.find(Int32Array.from(a))[0].page).toBe(one.pages[0]);
    expect(cache.find(Int32Array.from(b))[0].page).toBe(two.pages[0]);
  });

  test('the second to compute the same page goes on with the first one’s', () => {
    const { pool, cache } = house();
    const [one, two] = [computed(pool, count(128)), computed(pool, count(128))];
    cache.learn(one);
    cache.learn(two);
    expect([...two.pages]).toEqual([...one.pages]);
    expect(pool.free).toBe(6);
    pool.check([one.pages, two.pages, cache.pages()]);
  });

  test('gives up leaves first, the least recently used one, and never a page in use', () => {
    const { pool, cache } = house();
    const [long, short] = [computed(pool, count(128)), computed(pool, count(64, 500))];
    cache.learn(long);
    cache.learn(short);
    const [inner, leaf] = long.pages;
    expect(cache.evict()).toBe(false);
    release(pool, long);
    expect(cache.reclaimable).toBe(2);
    const order: number[] = [];
    while (cache.evict()) order.push([inner, leaf].find((page) => pool.owners(page) === 0 && !order.includes(page))!);
    expect(order).toEqual([leaf, inner]);
    expect(cache.pages()).toHaveLength(1);
    release(pool, short);
    expect(cache.evict()).toBe(true);
    expect(pool.free).toBe(8);
    expect(cache.stats.evicted).toBe(3);
  });

  test('what was used again lives longer', () => {
    const { pool, cache } = house();
    const [a, b] = [computed(pool, count(64)), computed(pool, count(64, 500))];
    cache.learn(a);
    cache.learn(b);
    release(pool, a);
    release(pool, b);
    const again = new Sequence({
      prompt: Int32Array.from(count(100)),
      maxLen: 100,
      sampler: null,
      stopTokens: new Set(),
    });
    cache.adopt(again, cache.find(again.tokens()));
    expect(again.computedLen).toBe(64);
    release(pool, again);
    expect(cache.evict()).toBe(true);
    expect(cache.find(Int32Array.from(count(64)))).toHaveLength(1);
    expect(cache.find(Int32Array.from(count(64, 500)))).toHaveLength(0);
  });
});
