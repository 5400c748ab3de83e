import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { rowBytes } from '../dtype.ts';
import { quantFormat } from './index.ts';

const fixtures = new URL('fixtures/', import.meta.url);
const index: Record<string, { rows: number; cols: number; bytes: number }> = JSON.parse(
  readFileSync(new URL('index.json', fixtures), 'utf8'),
);

function bitsOf(values: Float32Array): Uint32Array {
  return new Uint32Array(values.buffer, values.byteOffset, values.length);
}

describe('vectors of an independent decoder', () => {
  it.each(Object.entries(index))('%s decodes to exactly these bits', (name, { rows, cols, bytes }) => {
    const format = quantFormat(name.toLowerCase());
    const blocks = readFileSync(new URL(`${name}.blocks`, fixtures));
    const expected = new Uint32Array(new Uint8Array(readFileSync(new URL(`${name}.f32`, fixtures))).buffer);
    const size = rowBytes(format, cols);
    expect(blocks.length).toBe(bytes);
    expect(size * rows).toBe(bytes);
    const out = new Float32Array(cols);
    for (let row = 0; row < rows; row++) {
      format.decodeRow(blocks.subarray(row * size, (row + 1) * size), out);
      expect(bitsOf(out)).toEqual(expected.subarray(row * cols, (row + 1) * cols));
    }
  });
});
