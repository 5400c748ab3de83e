import { expect, it } from 'vitest';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { rowPositions } from './batch.ts';

it('rows of a sequence have ascending positions from its first', () => {
  const batch = batchOf([
    { tokens: [1, 2, 3], firstPosition: 62, pages: [0, 1] },
    { tokens: [4], pages: [2] },
    { tokens: [5, 6], firstPosition: 9, pages: [3] },
  ]);
  expect([...rowPositions(batch)]).toEqual([62, 63, 64, 0, 9, 10]);
});
