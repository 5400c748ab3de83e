import { describe, expect, it } from 'vitest';
import { TandemError } from '../errors.ts';
import { duplicateKey } from './json-keys.ts';
import { memorySource } from './memory-source.ts';
import { readSafetensors } from './safetensors.ts';
import { safetensors } from './safetensors-bytes.ts';

const file = (header: unknown, data = 0, length?: number | bigint) =>
  memorySource(safetensors(header, data, length), 'x');

async function refusal(header: unknown, data = 0, length?: number | bigint): Promise<TandemError> {
  const error = await readSafetensors(file(header, data, length), 0).catch((error: unknown) => error);
  expect(error).toBeInstanceOf(TandemError);
  return error as TandemError;
}

describe('a safetensors header', () => {
  it('gives tensors their place and type', async () => {
    const header = {
      __metadata__: { format: 'pt' },
      w: { dtype: 'BF16', shape: [2, 3], data_offsets: [4, 16] },
      scalar: { dtype: 'F32', shape: [], data_offsets: [0, 4] },
      fp8: { dtype: 'F8_E4M3', shape: [2, 2], data_offsets: [16, 20] },
      ids: { dtype: 'I32', shape: [1], data_offsets: [20, 24] },
      none: { dtype: 'U8', shape: [0, 5], data_offsets: [24, 24] },
      __proto__x: { dtype: 'I64', shape: [1], data_offsets: [24, 32] },
    };
    const tensors = await readSafetensors(file(header, 32), 3);
    const start = 8 + JSON.stringify(header).length;
    expect(tensors).toEqual([
      { name: 'w', shape: [2, 3], format: 'bf16', file: 3, offset: start + 4, bytes: 12 },
      { name: 'scalar', shape: [], format: 'f32', file: 3, offset: start, bytes: 4 },
      { name: 'fp8', shape: [2, 2], format: 'f8_e4m3', file: 3, offset: start + 16, bytes: 4 },
      { name: 'ids', shape: [1], format: 'i32', file: 3, offset: start + 20, bytes: 4 },
      { name: 'none', shape: [0, 5], format: 'u8', file: 3, offset: start + 24, bytes: 0 },
      { name: '__proto__x', shape: [1], format: 'i64', file: 3, offset: start + 24, bytes: 8 },
    ]);
  });

  const tensor = { dtype: 'F32', shape: [2], data_offsets: [0, 8] };
  const cases: [what: string, says: string, header: unknown, length?: number | bigint][] = [
    ['a length beyond the file', 'claims', { w: tensor }, 10_000],
    ['a length of 2^60', 'claims', { w: tensor }, 2n ** 60n],
    ['no JSON', 'is JSON', '{"w": '],
    ['a list', 'JSON object', []],
    ['a key twice', 'twice', '{"w":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"\\u0077":{}}'],
    ['a tensor without shape', 'data_offsets', { w: { dtype: 'F32', data_offsets: [0, 4] } }],
    ['a negative length', 'data_offsets', { w: { ...tensor, shape: [-2] } }],
    ['a broken length', 'data_offsets', { w: { ...tensor, shape: [0.5] } }],
    ['one offset', 'data_offsets', { w: { ...tensor, data_offsets: [0] } }],
    ['offsets the wrong way', 'span', { w: { ...tensor, data_offsets: [8, 0] } }],
    ['a wrong size', 'span', { w: { ...tensor, shape: [3] } }],
    ['2^60 elements', 'data_offsets', { w: { ...tensor, shape: [2 ** 60] } }],
    ['a tensor that is null', 'data_offsets', { w: null }],
  ];
  it.each(cases)('with %s is refused: %s', async (_, says, header, length) => {
    const error = await refusal(header, 8, length);
    expect(error.code).toBe('FORMAT_INVALID');
    expect(error.message).toContain(says);
  });

  it('names an unknown dtype and the known ones', async () => {
    const error = await refusal({ w: { ...tensor, dtype: 'toString' } }, 8);
    expect(error.code).toBe('FORMAT_UNSUPPORTED');
    expect(error.message).toMatch(/BF16.*"w" has dtype toString/);
  });

  it('tells a Git LFS pointer from a model', async () => {
    const pointer = new TextEncoder().encode('version https://git-lfs.github.com/spec/v1');
    await expect(readSafetensors(memorySource(pointer), 0)).rejects.toThrow('git lfs pull');
  });

  it('is missing in a file of seven bytes', async () => {
    const reading = readSafetensors(memorySource(new Uint8Array(7)), 0);
    await expect(reading).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
  });
});

describe('duplicateKey', () => {
  it.each([
    ['{"a":1,"b":{"a":2}}', undefined],
    ['{"a":["a","a",{"b":1}],"c":"\\"a\\":"}', undefined],
    ['[{"a":1},{"a":1}]', undefined],
    ['{"a":{"x":[],"y":1,"x":2}}', 'x'],
    ['{"a":[1,2],"b":"}","a":0}', 'a'],
    ['"text"', undefined],
  ])('%s: %s', (json, key) => expect(duplicateKey(json)).toBe(key));
});
