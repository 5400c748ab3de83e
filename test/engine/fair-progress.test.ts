/** A long prompt does not stall the answers that run, and they do not stall it: gaps counted in passes, time pretended. */
import { describe, expect, test } from 'vitest';
import { ChunkSize } from '../../src/engine/chunk-size.ts';
import { PagePool } from '../../src/engine/kv-cache.ts';
import { Sampler, samplingSettings } from '../../src/engine/sampling.ts';
import { Scheduler } from '../../src/engine/scheduler.ts';
import { Sequence } from '../../src/engine/sequence.ts';
import type { Batch } from '../../src/program/batch.ts';
import { FakeExecutable } from './fake-executable.ts';

const PAGES = 2048;
const VOCAB = 97;

interface House {
  readonly maxRows?: number;
  readonly maxOutputs?: number;
  readonly targetMs?: number;
  readonly milliseconds?: (batch: Batch) => number;
}

function house({ maxRows = 512, maxOutputs = 16, targetMs = 400, milliseconds = () => 1 }: House) {
  const chunk = new ChunkSize({ minRows: 16, maxRows, firstRows: 64, targetMs });
  const soloChunk = new ChunkSize({ minRows: 64, maxRows, firstRows: maxRows, targetMs: 4 * targetMs });
  const pool = new PagePool(PAGES);
  const scheduler = new Scheduler({ pool, maxRows, maxOutputs, maxSequences: 64, chunk, soloChunk });
  const executable = new FakeExecutable({ pages: PAGES, contextLength: 32768, milliseconds });
  /** Rows of each sequence in one pass, and how long it pretends to take. */
  const pass = () => {
    const plan = scheduler.next()!;
    const result = executable.compute(plan.batch);
    scheduler.commit(plan, result);
    return { rows: new Map(plan.work.map(({ sequence, rows }) => [sequence, rows])), ms: result.milliseconds };
  };
  return { scheduler, pass };
}

function sequenceOf(length: number, generate: number): Sequence {
  const prompt = Int32Array.from({ length }, (_, i) => (i * 7) % VOCAB);
  return new Sequence({
    prompt,
    maxLen: length + generate,
    sampler: new Sampler(samplingSettings({ seed: length }, {}, VOCAB), prompt),
    stopTokens: new Set(),
  });
}

describe('fair progress', () => {
  test.each([
    ['as many as fit', 4, 16, 1],
    ['more than a pass has outputs', 12, 8, 2],
    ['many more', 40, 8, 6],
  ])('%s: running answers get a token every few passes while long prompts are read', (_, running, outputs, gap) => {
    const { scheduler, pass } = house({ maxOutputs: outputs });
    const answers = Array.from({ length: running }, (_, i) => sequenceOf(3 + i, 20_000));
    for (const answer of answers) scheduler.add(answer);
    while (answers.some(({ generatedLen }) => generatedLen === 0)) pass();
    const prompts = [sequenceOf(9000, 1), sequenceOf(8000, 1), sequenceOf(40, 1)];
    for (const prompt of prompts) scheduler.add(prompt);
    const last = new Map(answers.map((answer) => [answer, 0]));
    let passes = 0;
    let worst = 0;
    while (prompts.some(({ finish }) => finish === undefined)) {
      const { rows } = pass();
      passes++;
      for (const answer of answers)
        if (rows.has(answer)) {
          worst = Math.max(worst, passes - last.get(answer)!);
          last.set(answer, passes);
        }
      // An eighth of the rows, or what is left, is the prompts'.
      const read = prompts.reduce((sum, prompt) => sum + (rows.get(prompt) ?? 0), 0);
      const missing = prompts.reduce((sum, { pendingLen, finish }) => sum + (finish ? 0 : pendingLen), 0);
      expect(read).toBeGreaterThanOrEqual(Math.min(16, missing));
    }
    for (const answer of answers) worst = Math.max(worst, passes - last.get(answer)!);
    expect(worst).toBeLessThanOrEqual(gap);
    expect(passes).toBeGreaterThan(20);
  });

  test('a short prompt is not behind a long one that came before it', () => {
    const { scheduler, pass } = house({ maxRows: 128 });
    const long = sequenceOf(20_000, 1);
    scheduler.add(long);
    for (let i = 0; i < 5; i++) pass();
    const short = sequenceOf(30, 1);
    scheduler.add(short);
    let passes = 0;
    while (short.finish === undefined) {
      pass();
      passes++;
    }
    expect(passes).toBeLessThanOrEqual(3);
    expect(long.finish).toBeUndefined();
  });

  test.each([
    ['a fast machine', 0.5],
    ['a slow one', 12],
  ])('passes beside running answers take about their target on %s', (_, msPerRow) => {
    const { scheduler, pass } = house({ maxRows: 2048, milliseconds: ({ tokens }) => 20 + tokens.length * msPerRow });
    const answer = sequenceOf(5, 20_000);
    scheduler.add(answer);
    while (answer.generatedLen === 0) pass();
    const prompt = sequenceOf(16_000, 1);
    scheduler.add(prompt);
    const times: number[] = [];
    while (prompt.finish === undefined) times.push(pass().ms);
    const settled = times.slice(8, -1); // the chunk doubles from 64 rows
    expect(Math.max(...times)).toBeLessThan(2.5 * 400);
    expect(Math.max(...settled)).toBeLessThan(1.1 * 400);
    expect(Math.min(...settled)).toBeGreaterThan(msPerRow > 1 ? 0.5 * 400 : 0.3 * 400);
  });
});
