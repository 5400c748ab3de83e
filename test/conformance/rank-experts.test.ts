/** rank-experts: the same order as the reference's, ties, missing experts and broken weights included. */
import { describe, it } from 'vitest';
import { integers, judgeOp, nativeIsas, random, randomFloats } from './harness.ts';

const { isas, reason } = await nativeIsas();

const ODD = [0, -0, 1, 1, -1, Infinity, -Infinity, Number.NaN, 1e-40];

describe.skipIf(reason).each(isas)(`rank-experts, %s ${reason ?? ''}`, (isa) => {
  it.each([1, 2, 3, 8, 33])('k = %i', async (topk) => {
    for (const rows of [1, 20]) {
      const next = random(topk + rows);
      const ids = Array.from({ length: rows * topk }, () => Math.floor(next() * 64) - 1);
      for (const data of [
        randomFloats(rows * topk, 7),
        Float32Array.from({ length: rows * topk }, () => ODD[Math.floor(next() * ODD.length)]),
      ])
        await judgeOp(
          {
            op: 'rank-experts',
            inputs: [
              { ...integers(rows, topk, ids), pad: [1, 2] },
              { rows, columns: topk, data, pad: [0, 3] },
            ],
          },
          isa,
        );
    }
  });
});
