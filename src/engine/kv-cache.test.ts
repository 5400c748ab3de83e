import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PagePool, pagesFor } from './kv-cache.ts';

describe('PagePool', () => {
  test('pages for tokens', () => {
    expect([0, 1, 64, 65, 128].map(pagesFor)).toEqual([0, 1, 1, 2, 2]);
  });

  test('a pool without pages says what to do', () => {
    expect(() => new PagePool(0)).toThrow(/at least one page; 0 pages were given; give a larger KV budget/);
  });

  test('release of a free page, share of a free page and allocation beyond the end are refused', () => {
    const pool = new PagePool(1);
    const page = pool.allocate();
    expect(() => pool.allocate()).toThrow(/only when a page is free/);
    pool.release(page);
    expect(() => pool.release(page)).toThrow(/only a page in use can be released/);
    expect(() => pool.retain(page)).toThrow(/only a page in use can be shared/);
  });

  test('check finds a page nobody owns up to and a page with a secret owner', () => {
    const pool = new PagePool(3);
    const pages = Int32Array.of(pool.allocate(), pool.allocate());
    pool.check([pages]);
    expect(() => pool.check([pages.subarray(1)])).toThrow(/every owner of a page is known/);
    expect(() => pool.check([pages, pages.subarray(0, 1)])).toThrow(/every owner of a page is known/);
  });

  test('any order of allocate, retain and release keeps the books', () => {
    fc.assert(
      fc.property(fc.array(fc.nat(2 ** 16), { maxLength: 300 }), (choices) => {
        const pool = new PagePool(7);
        const held: number[] = [];
        for (const choice of choices) {
          const action = choice % 3;
          if (action === 0 && pool.free > 0) held.push(pool.allocate());
          else if (action === 1 && held.length > 0) {
            const page = held[choice % held.length];
            pool.retain(page);
            held.push(page);
          } else if (held.length > 0) pool.release(held.splice(choice % held.length, 1)[0]);
          pool.check([Int32Array.from(held)]);
          expect(pool.free).toBe(7 - new Set(held).size);
        }
      }),
    );
  });
});
