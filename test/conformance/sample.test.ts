/** sample: tokens exactly as the reference's for every parameter; log-probabilities; rows that have no token. */
import { describe, expect, it } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import { type Batch, GREEDY, type SamplingRecord } from '../../src/program/batch.ts';
import type { Program } from '../../src/program/program.ts';
import { floats, type GivenValue, judgeOp, nativeIsas, type OpCase, random, runOp } from './harness.ts';
import { memoryCheckpoint } from './memory-checkpoint.ts';

const { isas, reason } = await nativeIsas();

const SEEDED: SamplingRecord = { ...GREEDY, seedLow: 1, seedHigh: 2, position: 3 };

/** A record with every parameter on or off by chance; numbers are what f32 holds. */
function randomRecord(next: () => number, vocabulary: number): SamplingRecord {
  const maybe = (value: () => number, off: number) => (next() < 0.5 ? off : Math.fround(value()));
  const token = () => Math.floor(next() * vocabulary);
  const some = (count: number) => Int32Array.from({ length: next() < 0.5 ? 0 : count }, token);
  const penaltyTokens = Int32Array.from(new Set(some(Math.min(20, vocabulary))));
  const biasTokens = Int32Array.from(new Set(some(5)));
  const mask = Uint32Array.from({ length: Math.ceil(vocabulary / 32) }, () => next() * 2 ** 32);
  mask[0] |= 1;
  return {
    temperature: maybe(() => 0.05 + 2 * next(), next() < 0.3 ? 0 : 1),
    topK: Math.floor(maybe(() => 1 + next() * Math.min(vocabulary * 1.2, 60), 0)),
    topP: maybe(() => next(), 1),
    minP: maybe(() => next() ** 3, 0),
    repetitionPenalty: maybe(() => 0.8 + next(), 1),
    presencePenalty: maybe(() => next() - 0.3, 0),
    frequencyPenalty: maybe(() => next() - 0.3, 0),
    seedLow: Math.floor(next() * 2 ** 32),
    seedHigh: Math.floor(next() * 2 ** 32),
    position: Math.floor(next() * 1e6),
    topLogprobs: 0,
    penaltyTokens,
    penaltyCounts: penaltyTokens.map(() => Math.floor(next() * 4)),
    biasTokens,
    biasValues: Float32Array.from(biasTokens, () => 8 * next() - 4),
    mask: next() < 0.5 ? mask : undefined,
  };
}

const rowsOf = (records: readonly SamplingRecord[]) => records.map((sampling, row) => ({ row, sampling }));

/** V logits are a row of the table: `embed`, `gather-rows` and `sample` make the smallest Program that draws tokens. */
function tableProgram(vocabSize: number): Program {
  const placement = { device: 'cpu', activation: 'f32' } as const;
  const value = (id: number) => ({ kind: 'value', value: id, start: 0, columns: vocabSize }) as const;
  const step = (op: string, inputs: Program['steps'][number]['inputs'], output: number) =>
    ({ op, name: op, layer: -1, inputs, outputs: [output], attributes: {}, placement }) as const;
  return {
    name: 'table',
    vocabSize,
    contextLength: 1024,
    values: [
      { id: 0, name: 'x', type: 'f32', rows: 'T', columns: vocabSize },
      { id: 1, name: 'logits', type: 'f32', rows: 'O', columns: vocabSize },
      { id: 2, name: 'token', type: 'i32', rows: 'O', columns: 1 },
    ],
    weights: [{ id: 0, name: 'table', shape: [vocabSize, vocabSize], format: 'f32', parts: ['table'] }],
    kv: { pageTokens: 64, type: 'f32', layers: [] },
    steps: [
      step('embed', [{ kind: 'weight', weight: 0 }], 0),
      step('gather-rows', [value(0)], 1),
      step('sample', [value(1)], 2),
    ],
    logits: 1,
  };
}

function tableCheckpoint(table: Float32Array, vocabSize: number) {
  const bytes = new Uint8Array(table.buffer, table.byteOffset, table.byteLength);
  return memoryCheckpoint([{ name: 'table', shape: [vocabSize, vocabSize], format: 'f32', bytes }]);
}

/** Sums of exponentials are f32 in native. */
function expectClose(actual: Float32Array, expected: Float32Array): void {
  expect(actual.length).toBe(expected.length);
  for (let i = 0; i < expected.length; i++) expect(Math.abs(actual[i] - expected[i])).toBeLessThan(1e-5);
}

function batchOf(tokens: readonly number[], records: readonly SamplingRecord[]): Batch {
  const pages = Int32Array.of(0);
  return {
    tokens: Int32Array.from(tokens),
    sequences: [{ slot: 0, firstRow: 0, rows: tokens.length, firstPosition: 0, pages }],
    outputs: rowsOf(records),
    wantLogits: false,
  };
}

describe.skipIf(reason).each(isas)(`sample, %s ${reason ?? ''}`, (isa) => {
  it('greedy: the largest, the lowest of equals, at any length', async () => {
    for (let columns = 1; columns <= 70; columns++) {
      const logits = floats(3, columns, columns);
      if (columns % 2)
        logits.data.forEach((x, i) => {
          logits.data[i] = Math.round(x);
        });
      await judgeOp({ op: 'sample', inputs: [logits], outputs: rowsOf([SEEDED, SEEDED, SEEDED]) }, isa);
    }
  });

  it('leaves rows out that ask for nothing', async () => {
    const outputs = [SEEDED, null, SEEDED].map((sampling, row) => ({ row, sampling }));
    await judgeOp({ op: 'sample', inputs: [floats(3, 100, 1)], outputs }, isa);
  });

  it.each([1, 2, 31, 33, 300, 5000])('every parameter, vocabulary %i', async (vocabulary) => {
    const next = random(vocabulary);
    for (const spread of [0.01, 1, 12]) {
      for (let round = 0; round < 4; round++) {
        const records = Array.from({ length: 25 }, () => randomRecord(next, vocabulary));
        const logits = floats(records.length, vocabulary, vocabulary + round, spread);
        // Some rows with many equal logits, some with what cannot be drawn.
        for (let i = 0; i < 5 * vocabulary; i++) logits.data[i] = Math.round(logits.data[i] * 2) / 2;
        for (let r = 5; r < 10; r++)
          for (let t = 1; t < vocabulary; t += 3) logits.data[r * vocabulary + t] = t % 2 ? -Infinity : Number.NaN;
        await judgeOp({ op: 'sample', inputs: [logits], outputs: rowsOf(records) }, isa, { threads: 1 + (round % 3) });
      }
    }
  });

  it('draws each token as often as it should be', async () => {
    const weights = [0.5, 0.25, 0.15, 0.1];
    const rows = 2000;
    const logits: GivenValue = {
      rows,
      columns: 4,
      data: Float32Array.from({ length: rows * 4 }, (_, i) => Math.log(weights[i % 4])),
    };
    const records = Array.from({ length: rows }, (_, position) => ({ ...SEEDED, temperature: 1, position }));
    const test: OpCase = { op: 'sample', inputs: [logits], outputs: rowsOf(records) };
    await judgeOp(test, isa);
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const [{ data }] = await runOp(nativeBackend(), test, { isa });
    weights.forEach((share, token) => {
      const count = data.filter((drawn) => drawn === token).length;
      expect(Math.abs(count / rows - share)).toBeLessThan(4 * Math.sqrt((share * (1 - share)) / rows));
    });
  });

  it('reports log-probabilities of the raw logits', async () => {
    const vocabulary = 301;
    const table = floats(vocabulary, vocabulary, 1, 4).data as Float32Array;
    for (let i = 0; i < 40 * vocabulary; i++) table[i] = Math.round(table[i]);
    const next = random(9);
    const records = Array.from({ length: 60 }, (_, i) => ({ ...randomRecord(next, vocabulary), topLogprobs: i % 21 }));
    const batch = batchOf(
      records.map((_, i) => i),
      records,
    );
    const limits = { pages: 1, maxRows: 64, maxOutputs: 64, isa, threads: 2 };
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const program = tableProgram(vocabulary);
    const checkpoint = tableCheckpoint(table, vocabulary);
    await using native = await nativeBackend().prepare(program, checkpoint, limits);
    await using reference = await referenceBackend().prepare(program, checkpoint, limits);
    const actual = await native.run(batch);
    const expected = await reference.run(batch);
    expect(actual.tokens).toEqual(expected.tokens);
    expectClose(actual.logprobs, expected.logprobs);
    expected.top.forEach(({ tokens, logprobs }, o) => {
      expect(actual.top[o].tokens).toEqual(tokens);
      expectClose(actual.top[o].logprobs, logprobs);
    });
  });

  it.each([
    ['masked', 1, { ...SEEDED, mask: new Uint32Array(2) }],
    ['NaN', Number.NaN, SEEDED],
    ['-inf', -Infinity, { ...SEEDED, temperature: 1 }],
  ] as const)('an output row whose logits are all %s draws nothing, the others do', async (_, logit, record) => {
    const vocabulary = 40;
    const logits = floats(2, vocabulary, 1);
    logits.data.fill(logit, vocabulary);
    const test: OpCase = { op: 'sample', inputs: [logits], outputs: rowsOf([SEEDED, record]) };
    await judgeOp(test, isa);
    const { nativeBackend } = await import('../../src/backend/native/backend.ts');
    const [{ data }] = await runOp(nativeBackend(), test, { isa });
    expect(data[0]).toBeGreaterThanOrEqual(0);
    expect(data[1]).toBe(-1);
  });
});
