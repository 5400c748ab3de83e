/** rms-norm: group sizes around the vector widths, every kind of weight, huge and tiny numbers. */
import { describe, it } from 'vitest';
import { floats, judgeOp, nativeIsas, weight } from './harness.ts';

const { isas, reason } = await nativeIsas();

describe.skipIf(reason).each(isas)(`rms-norm, %s ${reason ?? ''}`, (isa) => {
  it('has no bad length', async () => {
    for (let group = 1; group <= 66; group++)
      await judgeOp(
        {
          op: 'rms-norm',
          inputs: [{ ...floats(3, group * 2, group), pad: [group % 3, 1] }, weight('f32', [group], group)],
          attributes: { epsilon: 1e-6, group },
        },
        isa,
      );
  });

  it.each(['f32', 'f16', 'bf16', 'f8_e4m3'] as const)('takes %s weights', async (format) => {
    await judgeOp(
      {
        op: 'rms-norm',
        inputs: [floats(2, 192, 1), weight(format, [64], 2)],
        attributes: { epsilon: 1e-5, group: 64 },
      },
      isa,
    );
  });

  it.each([1e-25, 1e-4, 1e18, 1e30])('norms numbers of size %f', async (size) => {
    await judgeOp(
      {
        op: 'rms-norm',
        inputs: [floats(2, 100, 1, size), weight('f32', [100], 2)],
        attributes: { epsilon: 1e-6, group: 100 },
      },
      isa,
    );
  });

  it('keeps what is not finite in its group', async () => {
    const x = floats(3, 64, 1);
    x.data[5] = Number.NaN;
    x.data[64 + 40] = Infinity;
    x.data.fill(0, 128, 160);
    await judgeOp(
      { op: 'rms-norm', inputs: [x, weight('f32', [32], 2)], attributes: { epsilon: 1e-6, group: 32 } },
      isa,
    );
  });

  it.each([1, 2, 3])('is spread over %i threads', async (threads) => {
    for (const rows of [1, 7, 40])
      await judgeOp(
        {
          op: 'rms-norm',
          inputs: [floats(rows, 2048, rows), weight('f32', [2048], 2)],
          attributes: { epsilon: 1e-6, group: 2048 },
        },
        isa,
        { threads },
      );
  });
});
