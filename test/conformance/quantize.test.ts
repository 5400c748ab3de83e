/** Activation rounding: codes and scales of every instruction set equal the reference's. */
import { describe, expect, it } from 'vitest';
import { quantizeActivations } from '../../src/ops/activation.ts';
import { nativeIsas, random, randomFloats } from './harness.ts';

const { isas, reason } = await nativeIsas();

async function expectSame(isa: string, format: 'q8_32' | 'q8_256', x: Float32Array) {
  const { loadNative } = await import('../../src/backend/native/load.ts');
  const { codes, scales } = loadNative().quantize(format, x, isa as 'scalar');
  const expected = quantizeActivations(x, format === 'q8_32' ? 32 : 256);
  expect(scales).toEqual(expected.scales);
  expect(codes).toEqual(expected.codes);
}

describe.skipIf(reason).each(isas)(`quantize, %s ${reason ?? ''}`, (isa) => {
  describe.each(['q8_32', 'q8_256'] as const)('%s', (format) => {
    it('rounds random rows of any number of blocks', async () => {
      for (let blocks = 1; blocks <= 12; blocks++)
        for (const deviation of [1e-30, 1e-3, 1, 1e30])
          await expectSame(isa, format, randomFloats(blocks * 256, blocks, deviation));
    });

    it('rounds ties to even', async () => {
      const x = Float32Array.from({ length: 512 }, (_, i) => (i % 255) - 127 + (i % 2) / 2);
      x[3] = 127;
      x[300] = -127;
      await expectSame(isa, format, x);
      await expectSame(
        isa,
        format,
        x.map((value) => value * 2 ** -90),
      );
    });

    it('takes every size of number', async () => {
      const next = random(7);
      for (let exponent = -149; exponent <= 127; exponent += 3)
        await expectSame(
          isa,
          format,
          Float32Array.from({ length: 256 }, () => (next() - 0.5) * 2 ** exponent),
        );
    });

    it('gives zeros, NaN and ±∞ their place', async () => {
      const x = new Float32Array(256 * 6);
      x[256] = Number.NaN;
      x.fill(1, 512, 768);
      x[600] = Infinity;
      x[800] = -Infinity;
      x[801] = Number.NaN;
      x.fill(-0, 1024, 1280);
      x[1290] = -1;
      await expectSame(isa, format, x);
    });
  });
});
