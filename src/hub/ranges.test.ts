import fc from 'fast-check';
import { expect, test } from 'vitest';
import { Ranges } from './ranges.ts';

test('ranges and gaps together are every byte once, whatever the order and the overlaps', () => {
  const range = fc.tuple(fc.nat(60), fc.nat(60));
  fc.assert(
    fc.property(fc.array(range), fc.integer({ min: 1, max: 70 }), (added, most) => {
      const size = 61;
      const ranges = new Ranges();
      const has = new Array<boolean>(size).fill(false);
      for (const [start, end] of added) {
        ranges.add(start, end);
        has.fill(true, start, Math.max(start, end));
      }
      const covered = new Array<number>(size).fill(0);
      const count = (list: readonly (readonly [number, number])[], mark: boolean) => {
        for (const [start, end] of list) {
          expect(start).toBeLessThan(end);
          for (let at = start; at < end; at++) {
            covered[at]++;
            expect(has[at]).toBe(mark);
          }
        }
      };
      count(ranges.list, true);
      const gaps = ranges.gaps(size, most);
      count(gaps, false);
      expect(covered.every((times) => times === 1)).toBe(true);
      expect(gaps.every(([start, end]) => end - start <= most)).toBe(true);
      expect(ranges.bytes).toBe(has.filter(Boolean).length);
      expect(ranges.prefix).toBe(has.indexOf(false) < 0 ? size : has.indexOf(false));
      for (let i = 1; i < ranges.list.length; i++) expect(ranges.list[i][0]).toBeGreaterThan(ranges.list[i - 1][1]);
    }),
  );
});
