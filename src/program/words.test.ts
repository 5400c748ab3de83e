import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { WordWriter } from './words.ts';

describe('words', () => {
  it('are little-endian and keep to 4 bytes', () => {
    const bytes = new WordWriter()
      .u32(1)
      .i32(-2)
      .f32(1.5)
      .f64(-0.25)
      .u64(2 ** 40 + 3)
      .string('é!')
      .finish();
    const view = new DataView(bytes.buffer);
    expect(bytes.length).toBe(4 + 4 + 4 + 8 + 8 + 4 + 4);
    expect([view.getUint32(0, true), view.getInt32(4, true)]).toEqual([1, -2]);
    expect([view.getFloat32(8, true), view.getFloat64(12, true)]).toEqual([1.5, -0.25]);
    expect(view.getBigUint64(20, true)).toBe(2n ** 40n + 3n);
    expect([...bytes.subarray(28)]).toEqual([3, 0, 0, 0, 0xc3, 0xa9, 0x21, 0]);
  });

  it('grow without losing anything', () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 0xffffffff }), { maxLength: 5000 }), (numbers) => {
        const writer = new WordWriter();
        writer.list(numbers, (number) => writer.u32(number));
        writer.words(Uint32Array.from(numbers));
        const read = new Uint32Array(writer.finish().buffer);
        expect(read[0]).toBe(numbers.length);
        expect([...read.subarray(1)]).toEqual([...numbers, ...numbers]);
      }),
      { numRuns: 20 },
    );
  });
});
