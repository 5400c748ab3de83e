/** glu, add and gather-rows: every length around the vector widths, misaligned views, special values. */
import { describe, it } from 'vitest';
import { floats, type GivenValue, judgeOp, nativeIsas } from './harness.ts';

const { isas, reason } = await nativeIsas();

const SPECIAL = [0, -0, 1e-40, -1e-40, 1e-30, 1, -1, 80, -80, 3e38, -3e38, Infinity, -Infinity, Number.NaN];

/** Every pair of special values. */
function specialPairs(): [GivenValue, GivenValue] {
  const count = SPECIAL.length ** 2;
  const left = Float32Array.from({ length: count }, (_, i) => SPECIAL[i % SPECIAL.length]);
  const right = Float32Array.from({ length: count }, (_, i) => SPECIAL[Math.floor(i / SPECIAL.length)]);
  return [
    { rows: 1, columns: count, data: left },
    { rows: 1, columns: count, data: right },
  ];
}

describe.skipIf(reason).each(isas)(`elementwise, %s ${reason ?? ''}`, (isa) => {
  describe.each([
    ['glu', { activation: 'silu' }],
    ['add', {}],
  ] as const)('%s', (op, attributes) => {
    it('has no bad length', async () => {
      for (let columns = 1; columns <= 66; columns++)
        await judgeOp(
          { op, attributes, inputs: [floats(3, columns, columns, 3), floats(3, columns, 1000 + columns)] },
          isa,
        );
    });

    it('reads views at any alignment and stays inside them', async () => {
      for (const pad of [1, 2, 3] as const)
        await judgeOp(
          {
            op,
            attributes,
            inputs: [
              { ...floats(5, 37, 1), pad: [pad, 5] },
              { ...floats(5, 37, 2), pad: [0, pad] },
            ],
          },
          isa,
        );
    });

    it('passes on what is not finite', async () => {
      await judgeOp({ op, attributes, inputs: specialPairs() }, isa);
    });

    it.each([1, 2, 3])('is spread over %i threads', async (threads) => {
      await judgeOp({ op, attributes, inputs: [floats(40, 1001, 1), floats(40, 1001, 2)] }, isa, { threads });
    });
  });

  it('gather-rows takes the rows of the outputs', async () => {
    const outputs = [0, 3, 4, 11].map((row) => ({ row, sampling: null }));
    await judgeOp({ op: 'gather-rows', inputs: [{ ...floats(12, 33, 1), pad: [2, 1] }], outputs }, isa);
    await judgeOp({ op: 'gather-rows', inputs: [floats(1, 1, 1)] }, isa);
  });
});
