/** How long a context may be and how many pages there are. */
import { describe, expect, test } from 'vitest';
import { chooseMemory } from '../../src/engine/memory.ts';
import { pageBytes } from '../../src/program/program.ts';
import { tinyProgram } from '../conformance/tiny-program.ts';

const { program } = tinyProgram({ seed: 1 }); // contextLength 4096 = 64 pages
const page = pageBytes(program.kv);
const choose = (request: { contextLength?: number; kvBytes?: number; available?: number }) =>
  chooseMemory(program, { modelContext: 4096, maxRows: 64, maxOutputs: 8, available: 2 ** 40, ...request });

describe('chooseMemory', () => {
  test('plenty: the whole context of the model, eight times', () => {
    expect(choose({})).toMatchObject({ contextLength: 4096, contextLimit: 'model', pages: 8 * 64, kv: 8 * 64 * page });
  });

  test('a shorter context as asked', () => {
    expect(choose({ contextLength: 100 })).toMatchObject({ contextLength: 100, contextLimit: 'option', pages: 16 });
  });

  test('a KV budget below a whole context shortens it and says so', () => {
    expect(choose({ kvBytes: 3.5 * page })).toMatchObject({ contextLength: 192, contextLimit: 'memory', pages: 3 });
    expect(choose({ kvBytes: 100 * page })).toMatchObject({ contextLength: 4096, contextLimit: 'model', pages: 100 });
  });

  test('a context that was asked for is not shortened but refused, with the numbers', () => {
    expect(() => choose({ contextLength: 4096, kvBytes: 3 * page })).toThrow(
      expect.objectContaining({
        code: 'PLACEMENT_IMPOSSIBLE',
        message: expect.stringMatching(/4096 tokens.*192 tokens/),
      }),
    );
  });

  test('a budget below one page is refused', () => {
    expect(() => choose({ kvBytes: page - 1 })).toThrow(expect.objectContaining({ code: 'PLACEMENT_IMPOSSIBLE' }));
  });

  test('by the machine: half of what weights and buffers leave, an eighth where they leave nothing', () => {
    const { weights, buffers } = choose({});
    expect(choose({ available: weights + buffers + 20 * page }).pages).toBe(10);
    const tight = Math.max(weights, 16 * page);
    expect(choose({ available: tight }).pages).toBe(Math.floor(tight / 8 / page));
  });
});
