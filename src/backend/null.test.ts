import { describe, expect, it } from 'vitest';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { TINY_VOCABULARY, tinyProgram } from '../../test/conformance/tiny-program.ts';
import { nullBackend, nullToken } from './null.ts';

const { program, checkpoint } = tinyProgram({ seed: 1, kvType: 'bf16' });
const LIMITS = { pages: 8, maxRows: 128, maxOutputs: 4 };

describe('null', () => {
  it('counts bytes of weights, buffers and cache', async () => {
    const executable = await nullBackend().prepare(program, checkpoint, LIMITS);
    const weights = [...checkpoint.tensors.values()].reduce((sum, { bytes }) => sum + bytes, 0);
    // gqa: k and v of 16; mla: 32 + 8. Two bytes each, 64 tokens a page.
    expect(executable.description).toMatchObject({ 'weight bytes': weights, 'kv bytes': 8 * 64 * (32 + 40) * 2 });
    const wider = await nullBackend().prepare(program, checkpoint, { ...LIMITS, maxRows: 256, maxOutputs: 8 });
    expect(wider.description['buffer bytes']).toBe(2 * Number(executable.description['buffer bytes']));
  });

  it('the next token is a function of token and position, whoever is in the batch', async () => {
    await using executable = await nullBackend().prepare(program, checkpoint, LIMITS);
    const alone = await executable.run(batchOf([{ tokens: [3, 4], firstPosition: 7, pages: [0], outputs: 'last' }]));
    const expected = nullToken(4, 8, TINY_VOCABULARY);
    expect([...alone.tokens]).toEqual([expected]);
    const parts = [
      { tokens: [9, 9, 9], pages: [1], outputs: 'last' as const },
      { tokens: [4], firstPosition: 8, pages: [0], outputs: 'last' as const },
    ];
    const batched = await executable.run(batchOf(parts));
    expect(batched.tokens[1]).toBe(expected);
    expect(batched.logits![TINY_VOCABULARY + expected]).toBe(1);
    const many = new Set(Array.from({ length: 1000 }, (_, position) => nullToken(4, position, TINY_VOCABULARY)));
    expect(many.size).toBe(TINY_VOCABULARY);
  });

  it('cancelled sequences get no token', async () => {
    await using executable = await nullBackend({ passMilliseconds: 10 }).prepare(program, checkpoint, LIMITS);
    const running = executable.run(
      batchOf([
        { tokens: [1], pages: [0], slot: 5 },
        { tokens: [1], pages: [1], slot: 6 },
      ]),
    );
    await new Promise((resolve) => setTimeout(resolve, 1));
    executable.cancel(5);
    expect([...(await running).tokens]).toEqual([-1, nullToken(1, 0, TINY_VOCABULARY)]);
  });
});
