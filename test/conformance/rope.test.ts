/** rope: both styles, parts of heads, far positions. */
import { describe, it } from 'vitest';
import { floats, judgeOp, nativeIsas } from './harness.ts';

const { isas, reason } = await nativeIsas();

const frequencies = (width: number) => Array.from({ length: width / 2 }, (_, i) => 10000 ** ((-2 * i) / width));

describe.skipIf(reason).each(isas)(`rope, %s ${reason ?? ''}`, (isa) => {
  describe.each(['pairs', 'halves'])('%s', (style) => {
    it.each([
      { headSize: 2, offset: 0, width: 2, heads: 1 },
      { headSize: 6, offset: 0, width: 6, heads: 3 },
      { headSize: 64, offset: 0, width: 64, heads: 2 },
      { headSize: 96, offset: 64, width: 32, heads: 3 },
      { headSize: 35, offset: 3, width: 30, heads: 2 },
      { headSize: 128, offset: 0, width: 34, heads: 5 },
    ])('head $headSize, columns [$offset, +$width), $heads heads', async ({ headSize, offset, width, heads }) => {
      for (const [rows, firstPosition] of [
        [1, 0],
        [5, 1],
        [40, 130_000],
      ])
        await judgeOp(
          {
            op: 'rope',
            inputs: [{ ...floats(rows, headSize * heads, rows), pad: [rows % 4, 3] }],
            attributes: { headSize, offset, width, style, frequencies: frequencies(width), magnitude: 1 },
            sequences: [{ rows, firstPosition }],
          },
          isa,
        );
    });
  });

  it('multiplies by the magnitude and turns every row by its own position', async () => {
    await judgeOp(
      {
        op: 'rope',
        inputs: [floats(9, 64, 1)],
        attributes: {
          headSize: 32,
          offset: 0,
          width: 32,
          style: 'pairs',
          frequencies: frequencies(32),
          magnitude: 1.26,
        },
        sequences: [
          { rows: 1, firstPosition: 77 },
          { rows: 6, firstPosition: 0 },
          { rows: 2, firstPosition: 4095 },
        ],
      },
      isa,
      { threads: 3 },
    );
  });
});
