import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { randomFloats } from '../../test/conformance/random.ts';
import { activationOf, quantizeActivations, roundActivations, roundedError, roundForTiles } from './activation.ts';

/** Half to even without the trick. */
function roundHalfEven(x: number): number {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

describe('q8 activations', () => {
  it.each([32, 256])('blocks of %i: as ops.md says, operation by operation', (block) => {
    fc.assert(
      fc.property(
        fc.array(fc.float({ noNaN: true, noDefaultInfinity: true, min: -(2 ** 100), max: 2 ** 100 }), {
          minLength: block,
          maxLength: block,
        }),
        (numbers) => {
          const x = Float32Array.from(numbers);
          const d = Math.fround(Math.max(...x.map(Math.abs)) / 127);
          const { codes, scales } = quantizeActivations(x, block);
          if (d < 2 ** -126) {
            expect(codes.every((code) => code === 0) && scales[0] === 0).toBe(true);
            return;
          }
          expect(scales[0]).toBe(d);
          const inverse = Math.fround(1 / d);
          const expected = x.map((value) => Math.max(-127, Math.min(127, roundHalfEven(Math.fround(value * inverse)))));
          expect(codes).toEqual(Int8Array.from(expected));
        },
      ),
    );
  });

  it('ties go to even, the largest to 127', () => {
    const x = new Float32Array(32);
    x.set([127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5]);
    expect([...quantizeActivations(x, 32).codes.subarray(0, 7)]).toEqual([127, 0, 2, 2, 0, -2, 126]);
  });

  it('a block with NaN or infinity is NaN as a whole, its neighbours are not', () => {
    for (const bad of [Number.NaN, Infinity, -Infinity]) {
      const x = randomFloats(96, 1);
      x[40] = bad;
      const { data } = roundActivations('q8_32', { rows: 1, columns: 96, data: x });
      expect([...data].map(Number.isNaN)).toEqual([...x].map((_, i) => i >= 32 && i < 64));
    }
  });

  it('rows that do not divide are refused', () => {
    expect(() => quantizeActivations(new Float32Array(48), 32)).toThrow('come in blocks of 32; 48 of them');
  });
});

describe('other formats', () => {
  it('f32 is the matrix itself, bf16 rounds half to even', () => {
    const matrix = { rows: 1, columns: 4, data: Float32Array.of(1, 1 + 2 ** -8, 1 + 3 * 2 ** -8, -1.001) };
    expect(roundActivations('f32', matrix)).toBe(matrix);
    expect([...roundActivations('bf16', matrix).data]).toEqual([1, 1, 1 + 2 ** -6, -1]);
  });

  it('each weight format has its own', () => {
    expect(activationOf('q4_k')).toBe('q8_256');
    expect(activationOf('iq4_nl')).toBe('q8_32');
    expect(activationOf('f8_e4m3')).toBe('f32');
  });
});

describe('error of a rounded row', () => {
  it.each(['f32', 'bf16', 'q8_32', 'q8_256'] as const)('%s: covers what a perturbed row rounds to', (format) => {
    const c = 16;
    for (let seed = 1; seed < 200; seed++) {
      const x = randomFloats(256, seed);
      const error = Float64Array.from(x, (value) => Math.abs(value) * 2 ** -22 + 2 ** -30);
      const wiggle = randomFloats(256, seed + 1000);
      const moved = x.map((value, i) => value + c * error[i] * Math.max(-0.9, Math.min(0.9, wiggle[i])));
      const round = (data: Float32Array) => roundActivations(format, { rows: 1, columns: 256, data }).data;
      const allowed = roundedError(format, x, error, c);
      const [before, after] = [round(x), round(moved)];
      const outside = before.findIndex((y, i) => Math.abs(y - after[i]) > c * allowed[i] + Math.abs(y) * 2 ** -22);
      expect(outside, `seed ${seed}`).toBe(-1);
    }
  });

  it('is a step only where a code can flip', () => {
    const x = new Float32Array(32);
    x.set([127, 3.5, 7.1]);
    const allowed = roundedError('q8_32', x, new Float64Array(32).fill(1e-7), 16);
    expect(allowed[1]).toBeGreaterThan(1 / 16);
    expect(allowed[2]).toBeLessThan(1e-5);
  });
});

describe('operands of tiles', () => {
  it('are bf16, ties to even, without subnormals', () => {
    const tiny = 2 ** -126;
    const given = [
      1 + 2 ** -8,
      1 + 3 * 2 ** -8,
      -(1 + 2 ** -8 + 2 ** -20),
      tiny,
      tiny / 2,
      -tiny / 4,
      3.4e38,
      -Infinity,
    ];
    const seen = [1, 1 + 2 ** -6, -(1 + 2 ** -7), tiny, 0, 0, Infinity, -Infinity];
    expect([...roundForTiles(Float32Array.from([...given, Number.NaN]))]).toEqual([...seen, Number.NaN]);
  });
});
