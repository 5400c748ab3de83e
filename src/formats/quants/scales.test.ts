import { expect, test } from 'vitest';
import { decodeScales, encodeScales } from './scales.ts';

test.each(['f32', 'bf16', 'e8m0'] as const)(
  'scales of %s come back, also from a Buffer inside of a larger one',
  (type) => {
    const scales = Float32Array.of(0.5, 2, 0.25);
    const bytes = encodeScales(type, scales);
    const larger = Buffer.alloc(bytes.length + 7, 255);
    larger.set(bytes, 3);
    expect(decodeScales(type, bytes)).toEqual(scales);
    expect(decodeScales(type, larger.subarray(3, 3 + bytes.length))).toEqual(scales);
  },
);
