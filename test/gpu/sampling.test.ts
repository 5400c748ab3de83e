/**
 * Tokens drawn on a GPU: those that the CPU draws from the same logits, with every parameter, by graphs and without; whole requests
 * with seeds, penalties, forms and log-probabilities. Over the fake driver and emulated kernels: nothing here has run on a card.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { type ChatOptions, type Engine, load } from '../../src/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import type { Batch, PassResult, SamplingRecord } from '../../src/program/batch.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const LIMITS = { pages: 16, maxRows: 16, maxOutputs: 16, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0'].map((name) => ({ name })) } as const;
/** Logits have the bits of the CPU: it computes them. */
const DRAWN: readonly RuleDescription[] = [{ match: { op: 'sample' }, place: { device: 'cuda:0' } }];
const { program, checkpoint } = tinyProgram({ seed: 31, layers: [['gqa', 'dense']] });

const model = (rules: readonly RuleDescription[]) =>
  nativeBackend().prepare(lower(program, MACHINE, { exact: true, rules: parseRules(rules) }), checkpoint, LIMITS);
type Model = Awaited<ReturnType<typeof model>>;

/** Sequences at their first position, a token each, with these records. */
function pass(records: readonly (Partial<SamplingRecord> | null)[]): Batch {
  const batch = batchOf(records.map((_, i) => ({ tokens: [(7 * i + 3) % TINY_VOCABULARY], pages: [i] })));
  const outputs = batch.outputs.map(({ row, sampling }, i) => ({
    row,
    sampling: records[i] === null ? null : { ...sampling!, ...records[i] },
  }));
  return { ...batch, outputs };
}

/** Bits of these tokens. */
function mask(tokens: readonly number[]): Uint32Array {
  const words = new Uint32Array(Math.ceil(TINY_VOCABULARY / 32));
  for (const token of tokens) words[token >> 5] |= 1 << (token & 31);
  return words;
}

function expectSame(actual: PassResult, expected: PassResult): void {
  expect([...actual.tokens]).toEqual([...expected.tokens]);
  actual.logprobs.forEach((logprob, i) => {
    if (expected.tokens[i] < 0) expect(logprob).toBeNaN();
    else expect(logprob).toBeCloseTo(expected.logprobs[i], 5);
  });
  actual.top.forEach(({ tokens, logprobs }, i) => {
    expect([...tokens]).toEqual([...expected.top[i].tokens]);
    logprobs.forEach((logprob, j) => {
      expect(logprob).toBeCloseTo(expected.top[i].logprobs[j], 5);
    });
  });
}

describe.skipIf(reason)(`sampling on a GPU ${reason ?? ''}`, () => {
  const opened: { dispose(): Promise<void> }[] = [];
  let gpu: Model;
  let cpu: Model;
  beforeAll(async () => {
    await useFakeDriver('gpus=1;memory=4000000000');
    gpu = await model(DRAWN);
    cpu = await model([]);
    opened.push(gpu, cpu);
  }, 300_000);
  afterAll(() => Promise.all(opened.map((one) => one.dispose())));

  it('tokens and log-probabilities are those of the CPU, whatever is asked for', async () => {
    const all = Array.from({ length: TINY_VOCABULARY }, (_, i) => i);
    const rows: (Partial<SamplingRecord> | null)[] = [
      {},
      null,
      { temperature: 0.7, seedLow: 5, topLogprobs: 20 },
      { temperature: 1.3, topK: 5, topP: 0.8, minP: 0.05, seedHigh: 9, topLogprobs: 3 },
      {
        temperature: 0.9,
        repetitionPenalty: 1.4,
        presencePenalty: 0.5,
        frequencyPenalty: 0.25,
        penaltyTokens: Int32Array.from(all.filter((t) => t % 3 > 0)),
        penaltyCounts: Int32Array.from(all.filter((t) => t % 3 > 0).map((t) => t % 4)),
        topLogprobs: 1,
      },
      { mask: mask([7, 33]), topLogprobs: 2 },
      { mask: mask([]) },
      { biasTokens: Int32Array.of(4, 39), biasValues: Float32Array.of(-90, 80) },
      { temperature: 2, biasTokens: Int32Array.of(1), biasValues: Float32Array.of(3), mask: mask([1, 2, 3, 38]) },
    ];
    for (let seed = 0; seed < 6; seed++) {
      const records = rows.map((row) => row && { ...row, seedLow: (row.seedLow ?? 0) + seed });
      // Of one row and of all, by graphs; and beside a prompt, without.
      for (const batch of [pass(records), pass(records.slice(3, 4))])
        expectSame(await gpu.run(batch), await cpu.run(batch));
      const prompt = batchOf([{ tokens: [1, 2, 3], pages: [0] }], records[3]!);
      expectSame(await gpu.run(prompt), await cpu.run(prompt));
    }
  });

  it('lists that grow from pass to pass keep their places in a graph', async () => {
    for (const count of [0, 1, TINY_VOCABULARY, 2]) {
      const penaltyTokens = Int32Array.from({ length: count }, (_, i) => i);
      const batch = pass(
        Array.from({ length: 16 }, () => ({ repetitionPenalty: 1.5, penaltyTokens, penaltyCounts: penaltyTokens })),
      );
      expectSame(await gpu.run(batch), await cpu.run(batch));
    }
  });

  it('a token that a list names twice is refused by its number', async () => {
    const twice = { biasTokens: Int32Array.of(4, 4), biasValues: Float32Array.of(1, 1) };
    await expect(gpu.run(pass([twice]))).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringMatching(/name a token once; token 4 is named twice/),
    });
    expectSame(await gpu.run(pass([{}])), await cpu.run(pass([{}])));
  });

  it('whole requests: seeds, penalties, forms, log-probabilities', async () => {
    const options = { contextLength: 256, threads: 2, exact: true } as const;
    const drawn: Engine = await load(undefined, { ...options, rules: DRAWN });
    const whole: Engine = await load(undefined, { ...options, rules: 'cpu' });
    opened.push(drawn, whole);
    // Emulated kernels are slow: few tokens, with all that can be asked for.
    const asked: ChatOptions = {
      maxTokens: 4,
      temperature: 1.1,
      seed: 3,
      topP: 0.95,
      presencePenalty: 0.4,
      logprobs: 4,
      thinking: false,
      format: {
        type: 'schema',
        schema: { type: 'object', properties: { sum: { type: 'integer' } }, required: ['sum'] },
      },
    };
    const ask = (engine: Engine) => engine.chat([{ role: 'user', content: 'What is 3 + 4?' }], asked);
    const [actual, expected] = [await ask(drawn), await ask(whole)];
    expect(actual.tokens).toEqual(expected.tokens);
    expect(actual.tokens).toHaveLength(4);
  });
});
