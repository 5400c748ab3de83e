import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { random } from '../../test/conformance/random.ts';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from '../../test/conformance/tiny-program.ts';
import type { Checkpoint } from '../formats/checkpoint.ts';
import { FORMAT_NAMES } from '../formats/dtype.ts';
import { OPS } from '../ops/index.ts';
import { validateProgram } from '../program/validate.ts';
import { nullBackend } from './null.ts';
import { referenceBackend } from './reference.ts';

const LIMITS = { pages: 32, maxRows: 512, maxOutputs: 512 };

function tokens(count: number, seed: number): number[] {
  const next = random(seed);
  return Array.from({ length: count }, () => Math.floor(next() * TINY_VOCABULARY));
}

async function prepare(options: TinyOptions, weightLimit?: number) {
  const { program, checkpoint } = tinyProgram(options);
  return referenceBackend({ weightLimit }).prepare(program, checkpoint, LIMITS);
}

describe('batch laws: the same bits however a sequence is computed', () => {
  const options: TinyOptions = {
    seed: 1,
    kvType: 'bf16',
    layers: [
      ['gqa', 'experts'],
      ['mla', 'experts'],
      ['mla-split', 'dense'],
    ],
  };
  const prompt = tokens(130, 7);
  const alone = (async () => {
    await using executable = await prepare(options);
    return (await executable.run(batchOf([{ tokens: prompt, pages: [0, 1, 2] }]))).logits!;
  })();

  it.each([1, 5, 64])('in chunks of %i', async (size) => {
    await using executable = await prepare(options);
    const expected = await alone;
    for (let start = 0; start < prompt.length; start += size) {
      const part = prompt.slice(start, start + size);
      const batch = batchOf([{ tokens: part, firstPosition: start, pages: [3, 1, 9] }]);
      const { logits } = await executable.run(batch);
      expect(logits).toEqual(expected.subarray(start * TINY_VOCABULARY, (start + part.length) * TINY_VOCABULARY));
    }
  });

  it('in a batch of 7, prefill and decode rows mixed', async () => {
    await using executable = await prepare(options);
    const expected = await alone;
    const others = [1, 2, 3, 4, 5, 6].map((n) => ({ tokens: tokens(n * 9, n), pages: [n + 3] }));
    const first = batchOf([...others.slice(0, 3), { tokens: prompt.slice(0, 129), pages: [0, 1, 2] }]);
    await executable.run(first);
    const decode = { tokens: prompt.slice(129), firstPosition: 129, pages: [0, 1, 2], slot: 9 };
    const more = others.slice(0, 3).map((other) => ({ ...other, firstPosition: other.tokens.length, tokens: [5] }));
    const { logits, tokens: sampled } = await executable.run(batchOf([...more, ...others.slice(3), decode]));
    const row = logits!.subarray(-TINY_VOCABULARY);
    expect(row).toEqual(expected.subarray(129 * TINY_VOCABULARY));
    expect(sampled.at(-1)).toBe(row.indexOf(Math.max(...row)));
  });
});

describe('weights', () => {
  it.each(FORMAT_NAMES)('%s: kept, decoded row by row, fused or split give the same', async (format) => {
    const options: TinyOptions = { seed: 3, format, fast: true };
    const batch = batchOf([{ tokens: tokens(5, 1), pages: [0] }]);
    const { logits } = await (await prepare(options)).run(batch);
    expect(logits!.every(Number.isFinite)).toBe(true);
    expect(new Set(logits).size).toBeGreaterThan(TINY_VOCABULARY);
    expect((await (await prepare(options, 0)).run(batch)).logits).toEqual(logits);
    expect((await (await prepare(options, 100_000)).run(batch)).logits).toEqual(logits);
    expect((await (await prepare({ ...options, split: true }, 100_000)).run(batch)).logits).toEqual(logits);
  });

  it('reads only the experts that were chosen', async () => {
    const { program, checkpoint } = tinyProgram({ seed: 4, split: true, layers: [['gqa', 'experts']] });
    const read: string[] = [];
    const spy: Checkpoint = {
      ...checkpoint,
      readTensor(name) {
        read.push(name);
        return checkpoint.readTensor(name);
      },
    };
    const executable = await referenceBackend().prepare(program, spy, LIMITS);
    await executable.run(batchOf([{ tokens: [1], pages: [0] }]));
    expect(read.filter((name) => name.includes('experts.down')).length).toBe(2);
  });

  it('a missing tensor is named', async () => {
    const { program, checkpoint } = tinyProgram({ seed: 4 });
    const tensors = new Map(checkpoint.tensors);
    tensors.delete('layers.1.mla.weight');
    tensors.delete('head.weight');
    const broken = referenceBackend().prepare(program, { ...checkpoint, tensors }, LIMITS);
    await expect(broken).rejects.toThrow('memory has no tensor head.weight');
  });
});

describe('passes', () => {
  it('take turns, and none after dispose', async () => {
    const executable = await prepare({ seed: 5 });
    const batch = batchOf([{ tokens: tokens(9, 2), pages: [0] }]);
    const stepper = await executable.start(batch);
    let ended = false;
    const second = executable.run(batch).then(() => {
      ended = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(ended).toBe(false);
    await stepper.finish();
    await second;
    await executable.dispose();
    await executable.dispose();
    await expect(executable.run(batch)).rejects.toMatchObject({ code: 'DISPOSED' });
  });

  it('cancel during a pass: no token for that sequence, the others as ever', async () => {
    await using executable = await prepare({ seed: 5 });
    const batch = batchOf([
      { tokens: tokens(9, 2), pages: [0], slot: 3, outputs: 'last' },
      { tokens: tokens(4, 3), pages: [1], slot: 4, outputs: 'last' },
    ]);
    const whole = await executable.run(batch);
    const running = executable.run(batch);
    setImmediate(() => executable.cancel(3));
    const cut = await running;
    expect(whole.tokens[0]).toBeGreaterThanOrEqual(0);
    expect([...cut.tokens]).toEqual([-1, whole.tokens[1]]);
    const both = executable.run(batch);
    setImmediate(() => [3, 4].map((slot) => executable.cancel(slot)));
    expect([...(await both).tokens]).toEqual([-1, -1]);
  });

  it.each([
    ['a token past the vocabulary', { tokens: [TINY_VOCABULARY], pages: [0] }, 'tokens are in [0, 40)'],
    ['a page past the cache', { tokens: [1], pages: [32] }, 'pages are in [0, 32)'],
    ['too few pages', { tokens: tokens(65, 1), pages: [0] }, 'a block table covers its positions'],
    ['too many rows', { tokens: tokens(513, 1), pages: [0, 1, 2, 3, 4, 5, 6, 7, 8] }, 'at most 512 rows'],
    ['a slot out of range', { tokens: [1], pages: [0], slot: 4096 }, 'slots are in [0, 4096)'],
  ])('refuses %s', async (_, part, message) => {
    await using executable = await prepare({ seed: 5 });
    await expect(executable.run(batchOf([part]))).rejects.toThrow(message);
  });

  it('log-probabilities sum to one and name the likeliest first', async () => {
    await using executable = await prepare({ seed: 6 });
    const batch = batchOf([{ tokens: [1, 2], pages: [0] }], { topLogprobs: 20 });
    const { top, tokens, logprobs } = await executable.run(batch);
    for (const [o, each] of top.entries()) {
      expect(each.tokens[0]).toBe(tokens[o]);
      expect(each.logprobs[0]).toBe(logprobs[o]);
      expect([...each.logprobs]).toEqual([...each.logprobs].sort((a, b) => b - a));
      expect(each.logprobs.reduce((sum, p) => sum + Math.exp(p), 0)).toBeLessThanOrEqual(1);
    }
  });
});

describe('random small Programs', () => {
  const layer = fc.tuple(fc.constantFrom('gqa', 'mla', 'mla-split'), fc.constantFrom('dense', 'experts'));
  const options = fc.record({
    seed: fc.integer({ min: 1, max: 1000 }),
    layers: fc.array(layer, { minLength: 1, maxLength: 3 }),
    format: fc.constantFrom('f32', 'bf16', 'q8_0', 'q5_1', 'f8_e4m3'),
    kvType: fc.constantFrom('f32', 'bf16'),
    fast: fc.boolean(),
    score: fc.constantFrom('softmax', 'sigmoid'),
  }) as fc.Arbitrary<TinyOptions>;

  it('are valid, and reference gives what null says: shapes of every value', async () => {
    await fc.assert(
      fc.asyncProperty(options, fc.integer({ min: 1, max: 9 }), async (tiny, rows) => {
        const { program, checkpoint } = tinyProgram(tiny);
        validateProgram(program, OPS);
        const batch = batchOf([{ tokens: tokens(rows, tiny.seed), pages: [0], outputs: 'last' }]);
        await using counted = await nullBackend().prepare(program, checkpoint, LIMITS);
        await using executable = await referenceBackend().prepare(program, checkpoint, LIMITS);
        const [shapes, pass] = [await counted.start(batch), await executable.start(batch)];
        for (const [index, step] of program.steps.entries()) {
          await pass.step(index);
          for (const id of step.outputs) {
            const [empty, full] = [await shapes.read(id), await pass.read(id)];
            expect(full.length).toBe(empty.length);
            expect(full.constructor).toBe(empty.constructor);
            expect(full.every(Number.isFinite)).toBe(true);
          }
        }
        await shapes.finish();
        await pass.finish();
      }),
      { numRuns: 25 },
    );
  });
});
