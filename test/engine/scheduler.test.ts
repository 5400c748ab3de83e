/**
 * The scheduler against an executable that notices every slip (fake-executable.ts), under random arrivals, aborts,
 * finishes, failing passes and page shortages. fast-check prints the seed and the shrunk case of every failure.
 */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { ChunkSize } from '../../src/engine/chunk-size.ts';
import { PagePool, pagesFor } from '../../src/engine/kv-cache.ts';
import { PrefixCache } from '../../src/engine/prefix-cache.ts';
import { Sampler, type SamplingOptions, samplingSettings } from '../../src/engine/sampling.ts';
import { type Outcome, Scheduler } from '../../src/engine/scheduler.ts';
import { Sequence } from '../../src/engine/sequence.ts';
import { FakeExecutable, hashOf } from './fake-executable.ts';

interface Limits {
  pages?: number;
  maxRows?: number;
  maxOutputs?: number;
  maxSequences?: number;
  chunkRows?: number;
  /** Pages are shared by prefix. */
  prefixes?: boolean;
}

function house({
  pages = 64,
  maxRows = 128,
  maxOutputs = 16,
  maxSequences = 16,
  chunkRows = 64,
  prefixes = false,
}: Limits = {}) {
  const pool = new PagePool(pages);
  const cache = prefixes ? new PrefixCache(pool) : undefined;
  const chunk = new ChunkSize({ minRows: chunkRows, maxRows: chunkRows, firstRows: chunkRows, targetMs: 400 });
  const scheduler = new Scheduler({ pool, maxRows, maxOutputs, maxSequences, chunk, prefixes: cache });
  const executable = new FakeExecutable({ pages });
  const pass = (): Outcome[] | undefined => {
    const plan = scheduler.next();
    if (!plan) return undefined;
    expect(plan.batch.tokens.length).toBeLessThanOrEqual(maxRows);
    expect(plan.batch.outputs.length).toBeLessThanOrEqual(maxOutputs);
    scheduler.check();
    return scheduler.commit(plan, executable.compute(plan.batch));
  };
  return { pool, scheduler, executable, pass };
}

const VOCAB = 97;
/** Prompts of every third salt begin alike, for 70 tokens. */
function promptOf(length: number, salt: number): Int32Array {
  return Int32Array.from({ length }, (_, i) => hashOf([i < 70 ? salt % 3 : salt + 3, i]) % VOCAB);
}
function sequenceOf(
  length: number,
  generate: number,
  salt: number,
  options: SamplingOptions & { stop?: number[]; priority?: number } = {},
): Sequence {
  const prompt = promptOf(length, salt);
  const settings = samplingSettings({ seed: salt, frequencyPenalty: salt % 2, ...options }, {}, VOCAB);
  return new Sequence({
    prompt,
    maxLen: length + generate,
    sampler: new Sampler(settings, prompt),
    stopTokens: new Set(options.stop ?? (salt % 3 === 0 ? [3] : [])),
    priority: options.priority,
  });
}
/** What the sequence gives alone, in one chunk, with room for all. */
function alone(length: number, generate: number, salt: number): number[] {
  const { scheduler, pass } = house({ chunkRows: 4096, maxRows: 4097, pages: 128 });
  const sequence = sequenceOf(length, generate, salt);
  scheduler.add(sequence);
  while (pass());
  return [...sequence.tokens()];
}

/** As `expect`, but cheap enough for every pass of a property. */
function must(condition: boolean, rule: string): void {
  if (!condition) throw new Error(`broken: ${rule}`);
}

describe('batch laws on the scheduler', () => {
  const cases = Array.from({ length: 7 }, (_, i) => ({
    length: 1 + ((i * 53) % 200),
    generate: 60 + i * 23,
    salt: i + 1,
  }));
  const expected = cases.map(({ length, generate, salt }) => alone(length, generate, salt));

  test.each([
    ['a batch of 7', {}],
    ['chunks of 1', { chunkRows: 1 }],
    ['chunks of 5', { chunkRows: 5 }],
    ['chunks of 64', { chunkRows: 64 }],
    ['two rows a pass', { maxRows: 2, maxOutputs: 2 }],
    ['pages for one and a half', { pages: 6 }],
    ['one at a time', { maxSequences: 1 }],
    ['pages shared by prefix', { prefixes: true }],
    ['pages shared by prefix, for one and a half', { prefixes: true, pages: 6 }],
  ] as [string, Limits][])('%s gives the tokens of each sequence alone', (_, limits) => {
    const { scheduler, pool, pass } = house(limits);
    const sequences = cases.map(({ length, generate, salt }) => sequenceOf(length, generate, salt));
    for (const sequence of sequences) scheduler.add(sequence);
    while (pass());
    expect(sequences.map((sequence) => [...sequence.tokens()])).toEqual(expected);
    expect(scheduler.stats.freePages).toBe(pool.total);
    if (limits.pages === 6) expect(scheduler.stats.preemptions).toBeGreaterThan(0);
  });
});

test('who has all the pages it will ever need keeps none from others', () => {
  const { scheduler, pass } = house({ pages: 8 });
  const sequences = Array.from({ length: 8 }, (_, i) => sequenceOf(20, 30, i + 1, { stop: [] }));
  for (const sequence of sequences) scheduler.add(sequence);
  pass();
  expect(scheduler.stats).toMatchObject({ running: 8, waiting: 0, freePages: 0 });
  while (pass());
  expect(scheduler.stats).toMatchObject({ preemptions: 0, freePages: 8 });
  for (const sequence of sequences) expect(sequence.generatedLen).toBe(30);
});

describe('logits of every position', () => {
  test('arrive once each, in order, between decoding neighbours and across preemption', () => {
    const { scheduler, pass } = house({ pages: 6, maxOutputs: 2, chunkRows: 7 });
    const neighbour = sequenceOf(100, 150, 5);
    const wanted = promptOf(150, 9);
    const sequence = new Sequence({ prompt: wanted, maxLen: 0, sampler: null, stopTokens: new Set() });
    scheduler.add(neighbour);
    scheduler.add(sequence);
    const seen: number[] = [];
    for (let outcomes = pass(); outcomes; outcomes = pass())
      for (const outcome of outcomes)
        if (outcome.kind === 'logits') {
          expect(outcome.position).toBe(seen.length);
          for (let o = 0; o < outcome.data.length; o += VOCAB) seen.push(outcome.data[o]);
        }
    expect(seen).toEqual([...wanted].map((_, i) => Math.fround(hashOf(wanted.subarray(0, i + 1)) / 2 ** 32)));
    expect([...neighbour.tokens()]).toEqual(alone(100, 150, 5));
    expect(sequence.preemptions).toBe(1);
  });
});

describe('prefixes', () => {
  test('a prompt that was computed before is not computed again, but for its last page', () => {
    const { scheduler, pass } = house({ prefixes: true });
    scheduler.add(sequenceOf(300, 5, 2));
    while (pass());
    const again = sequenceOf(300, 5, 2);
    scheduler.add(again);
    const before = scheduler.stats.rows;
    while (pass());
    expect(again.cachedLen).toBe(256);
    expect(scheduler.stats.rows - before).toBe(300 - 256 + 4);
    expect([...again.tokens()]).toEqual(alone(300, 5, 2));
  });

  test('what a preempted sequence finds of its own again was not cached for it', () => {
    const { scheduler, pass } = house({ prefixes: true, pages: 4 });
    scheduler.add(sequenceOf(60, 100, 10, { stop: [] }));
    const young = sequenceOf(60, 150, 20, { stop: [] });
    scheduler.add(young);
    while (pass());
    expect(scheduler.stats.prefixes!.found).toBeGreaterThan(0);
    expect([young.preemptions, young.cachedLen]).toEqual([1, 0]);
  });

  test('logits that are wanted are computed, whatever is known', () => {
    const { scheduler, pass } = house({ prefixes: true });
    const prompt = promptOf(200, 2);
    const positions = (): number => {
      scheduler.add(new Sequence({ prompt, maxLen: 0, sampler: null, stopTokens: new Set(), logitsFrom: 130 }));
      let count = 0;
      for (let outcomes = pass(); outcomes; outcomes = pass())
        for (const outcome of outcomes) if (outcome.kind === 'logits') count += outcome.data.length / VOCAB;
      return count;
    };
    expect(positions()).toBe(70);
    const before = scheduler.stats.rows;
    expect(positions()).toBe(70);
    expect(scheduler.stats.rows - before).toBe(200 - 128);
  });
});

describe('order', () => {
  test('who has the higher priority runs first, and is never preempted for the lower one', () => {
    const { scheduler, pass } = house({ pages: 4, maxSequences: 8 });
    const background = sequenceOf(60, 150, 5, { priority: -1, stop: [] });
    const urgent = sequenceOf(60, 120, 8, { stop: [] });
    scheduler.add(background);
    pass();
    scheduler.add(urgent);
    while (urgent.state !== 'done') pass();
    expect(urgent.preemptions).toBe(0);
    expect(background.preemptions).toBeGreaterThan(0);
    const late = sequenceOf(10, 5, 11, { stop: [] });
    const first = sequenceOf(10, 5, 14, { priority: 3, stop: [] });
    const other = house({ maxSequences: 1 });
    other.scheduler.add(late);
    other.scheduler.add(first);
    while (first.state !== 'done') other.pass();
    expect(late.generatedLen).toBe(0);
  });

  test('decode rows come first and prefill rows of several sequences share the pass', () => {
    const { scheduler, pass } = house({ chunkRows: 64, maxRows: 64 });
    const first = sequenceOf(10, 30, 2);
    scheduler.add(first);
    pass();
    for (const [length, salt] of [
      [20, 4],
      [500, 6],
    ])
      scheduler.add(sequenceOf(length, 5, salt));
    const plan = scheduler.next()!;
    expect(plan.work.map(({ rows }) => rows)).toEqual([1, 20, 43]);
    expect(plan.prefillRows).toBe(63);
  });

  test('while nobody decodes the chunks are larger, and a prompt is cut into equal ones', () => {
    const fixed = (rows: number) => new ChunkSize({ minRows: rows, maxRows: rows, firstRows: rows, targetMs: 400 });
    const limits = { maxRows: 128, maxOutputs: 16, maxSequences: 16 };
    const scheduler = new Scheduler({ ...limits, pool: new PagePool(64), chunk: fixed(16), soloChunk: fixed(64) });
    const executable = new FakeExecutable({ pages: 64 });
    const rows = () => {
      const plan = scheduler.next()!;
      scheduler.commit(plan, executable.compute(plan.batch));
      return plan.work.map((work) => work.rows);
    };
    scheduler.add(sequenceOf(150, 30, 2));
    expect([rows(), rows(), rows(), rows()]).toEqual([[50], [50], [50], [1]]);
    scheduler.add(sequenceOf(90, 30, 4));
    expect([rows(), rows()]).toEqual([
      [1, 16],
      [1, 16],
    ]);
  });

  test('while nobody decodes a pass takes the rows that are worth its time, beside others it does not', () => {
    const fixed = (rows: number, mostMs: number) =>
      new ChunkSize({ minRows: rows, maxRows: 128, firstRows: rows, targetMs: 400, mostMs });
    const scheduler = new Scheduler({
      maxRows: 128,
      maxOutputs: 16,
      maxSequences: 16,
      pool: new PagePool(64),
      chunk: fixed(16, 1600),
      soloChunk: fixed(32, 1600),
      worthwhileRows: (position) => position / 2,
    });
    const executable = new FakeExecutable({ pages: 64, milliseconds: ({ tokens }) => 12.5 * tokens.length });
    const rows = () => {
      const plan = scheduler.next()!;
      scheduler.commit(plan, executable.compute(plan.batch));
      return plan.work.map((work) => work.rows);
    };
    scheduler.add(sequenceOf(2000, 30, 2));
    expect([rows(), rows(), rows(), rows(), rows(), rows(), rows()].flat()).toEqual([32, 32, 32, 48, 72, 105, 120]);
    while (scheduler.sequences()[0].generatedLen === 0) rows();
    scheduler.add(sequenceOf(300, 30, 4));
    expect(rows()).toEqual([1, 16]);
  });

  test('a short prompt is not stuck behind a long one', () => {
    const { scheduler, pass } = house({ chunkRows: 32, pages: 100 });
    scheduler.add(sequenceOf(3000, 5, 2));
    pass();
    const short = sequenceOf(40, 5, 4);
    scheduler.add(short);
    let passes = 0;
    while (short.generatedLen === 0) {
      pass();
      passes++;
    }
    expect(passes).toBeLessThanOrEqual(4);
  });

  test('a prefill goes on while decodes fill the pass', () => {
    const { scheduler, pass } = house({ maxRows: 4, maxOutputs: 4, maxSequences: 6, chunkRows: 4 });
    const decoding = Array.from({ length: 5 }, (_, i) => sequenceOf(2, 200, 100 + i));
    for (const sequence of decoding) scheduler.add(sequence);
    for (let i = 0; i < 6; i++) pass();
    const late = sequenceOf(40, 5, 4);
    scheduler.add(late);
    for (let i = 0; i < 45; i++) pass();
    expect(late.generatedLen).toBeGreaterThan(0);
  });

  test('an eighth of the rows stays for who prefills, however many decode', () => {
    const { scheduler, pass } = house({ maxRows: 16, maxOutputs: 32, maxSequences: 32, chunkRows: 16 });
    for (let i = 0; i < 20; i++) scheduler.add(sequenceOf(2, 60, 100 + i, { stop: [] }));
    for (let i = 0; i < 8; i++) pass();
    scheduler.add(sequenceOf(40, 5, 4));
    const plan = scheduler.next()!;
    expect([plan.batch.tokens.length, plan.prefillRows]).toEqual([16, 2]);
  });

  test('a newcomer does not go before who waits longer for rows', () => {
    const { scheduler, pass } = house({ chunkRows: 16 });
    const [first, second, newcomer] = [2, 4, 8].map((salt) => sequenceOf(300, 5, salt));
    scheduler.add(first);
    scheduler.add(second);
    pass();
    pass();
    expect([first.computedLen, second.computedLen]).toEqual([16, 16]);
    scheduler.add(newcomer);
    expect(scheduler.next()!.work.map(({ sequence }) => sequence)).toEqual([first]);
  });

  test('after a pass that failed each of it runs alone once, then all together again', () => {
    const { scheduler, executable, pass } = house();
    for (const salt of [2, 4, 8]) scheduler.add(sequenceOf(5, 30, salt, { stop: [] }));
    pass();
    expect(scheduler.fail(scheduler.next()!)).toEqual([]);
    const sizes = Array.from({ length: 5 }, () => {
      const plan = scheduler.next()!;
      scheduler.commit(plan, executable.compute(plan.batch));
      return plan.work.length;
    });
    expect(sizes).toEqual([1, 1, 1, 3, 3]);
  });

  test('a newcomer waits until a page for each that runs and may grow stays free beside its own', () => {
    const { scheduler, pass } = house({ pages: 4 });
    for (const salt of [2, 4]) scheduler.add(sequenceOf(64, 60, salt));
    pass();
    pass(); // each has its second page
    scheduler.add(sequenceOf(10, 5, 8));
    for (let i = 0; i < 20; i++) pass();
    expect(scheduler.stats).toMatchObject({ running: 2, waiting: 1, preemptions: 0 });
    while (pass());
    expect(scheduler.stats).toMatchObject({ waiting: 0, preemptions: 0 });

    const other = house({ pages: 4 });
    for (const length of [65, 65]) other.scheduler.add(sequenceOf(length, 100, 2)); // three pages in the end
    other.pass(); // two pages are free, the second would take both
    expect(other.scheduler.stats).toMatchObject({ running: 1, waiting: 1, freePages: 2 });
  });

  test('the youngest is preempted and the oldest never is', () => {
    const { scheduler, pass } = house({ pages: 4 });
    const [old, young] = [sequenceOf(60, 150, 10, { stop: [] }), sequenceOf(60, 150, 20, { stop: [] })].map(
      (sequence) => {
        scheduler.add(sequence);
        return sequence;
      },
    );
    while (pass());
    expect(old.preemptions).toBe(0);
    expect(young.preemptions).toBe(1);
  });
});

describe('refusals', () => {
  test('a sequence that can never fit is refused with the numbers', () => {
    const { scheduler } = house({ pages: 2 });
    expect(() => scheduler.add(sequenceOf(100, 30, 1))).toThrow(/129 tokens need 3 pages of 64, there are 2/);
    scheduler.add(sequenceOf(100, 29, 1));
  });

  test('limits out of range are refused', () => {
    expect(() => house({ maxRows: 1 })).toThrow(/maxRows is an integer in \[2,/);
    expect(() => house({ maxSequences: 5000 })).toThrow(/maxSequences is an integer in \[1, 4096\]; got 5000/);
  });

  test('two passes at once and a pass that ends twice are refused', () => {
    const { scheduler, executable } = house();
    scheduler.add(sequenceOf(3, 3, 1));
    const plan = scheduler.next()!;
    expect(() => scheduler.next()).toThrow(/one pass is in flight/);
    scheduler.commit(plan, executable.compute(plan.batch));
    expect(() => scheduler.fail(plan)).toThrow(/ends once/);
  });

  test('a draw without a token fails that sequence only', () => {
    const { scheduler, executable, pool } = house();
    const [bad, good] = [sequenceOf(3, 3, 2), sequenceOf(3, 3, 4)];
    scheduler.add(bad);
    scheduler.add(good);
    const plan = scheduler.next()!;
    const result = executable.compute(plan.batch);
    result.tokens[plan.work.find(({ sequence }) => sequence === bad)!.firstOutput] = -1;
    const outcomes = scheduler.commit(plan, result);
    expect(outcomes.find(({ sequence }) => sequence === bad)).toMatchObject({
      kind: 'failed',
      error: { code: 'NATIVE_FAILED' },
    });
    expect([bad.state, good.state]).toEqual(['done', 'running']);
    expect(pool.free).toBe(pool.total - 1);
  });
});

test('random arrivals, aborts, failures and shortages: pages stay accounted for, everybody ends, texts are the lone ones', () => {
  const event = fc.oneof(
    {
      weight: 8,
      arbitrary: fc.record({
        kind: fc.constant('arrive' as const),
        length: fc.integer({ min: 1, max: 80 }),
        generate: fc.integer({ min: 1, max: 170 }),
        priority: fc.integer({ min: -1, max: 1 }),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({ kind: fc.constant('abort' as const), which: fc.nat(1000), inFlight: fc.boolean() }),
    },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('fail' as const) }) },
    { weight: 8, arbitrary: fc.record({ kind: fc.constant('pass' as const), times: fc.integer({ min: 1, max: 12 }) }) },
  );
  const limits = fc.record({
    pages: fc.integer({ min: 4, max: 9 }),
    maxRows: fc.integer({ min: 2, max: 80 }),
    maxOutputs: fc.integer({ min: 2, max: 8 }),
    maxSequences: fc.integer({ min: 1, max: 8 }),
    chunkRows: fc.integer({ min: 1, max: 64 }),
    prefixes: fc.boolean(),
  });
  let preemptions = 0;
  let found = 0;
  fc.assert(
    fc.property(limits, fc.array(event, { minLength: 10, maxLength: 60, size: 'max' }), (limit, events) => {
      const { scheduler, executable, pool } = house(limit);
      const live: { sequence: Sequence; length: number; generate: number; salt: number }[] = [];
      const ended: typeof live = [];
      const settle = () => {
        for (let i = live.length - 1; i >= 0; i--)
          if (live[i].sequence.state === 'done') ended.push(...live.splice(i, 1));
      };
      const abort = (which: number) => {
        if (live.length > 0) scheduler.remove(live.splice(which % live.length, 1)[0].sequence);
      };
      const onePass = (during?: () => void, failing = false): boolean => {
        const plan = scheduler.next();
        if (!plan) return false;
        scheduler.check();
        must(plan.batch.tokens.length > 0, 'a pass computes something');
        must(plan.batch.tokens.length <= limit.maxRows, 'rows stay below the limit');
        must(plan.batch.outputs.length <= limit.maxOutputs, 'outputs stay below the limit');
        const result = executable.compute(plan.batch);
        during?.();
        if (failing) {
          const failed = new Set(scheduler.fail(plan));
          for (let i = live.length - 1; i >= 0; i--) if (failed.has(live[i].sequence)) live.splice(i, 1);
        } else {
          scheduler.commit(plan, result);
        }
        for (const { sequence } of live) {
          must(sequence.computedLen <= sequence.length, 'computedLen ≤ length');
          must(sequence.length <= sequence.maxLen, 'length ≤ maxLen');
          must(sequence.pages.length >= pagesFor(sequence.computedLen), 'computed positions have pages');
        }
        scheduler.check();
        settle();
        return true;
      };
      events.forEach((what, salt) => {
        if (what.kind === 'arrive') {
          const { length, generate, priority } = what;
          const sequence = sequenceOf(length, generate, salt, { priority });
          scheduler.add(sequence);
          live.push({ sequence, length, generate, salt });
        } else if (what.kind === 'abort') {
          if (what.inFlight) onePass(() => abort(what.which));
          else abort(what.which);
        } else if (what.kind === 'fail') onePass(undefined, true);
        else for (let i = 0; i < what.times; i++) onePass();
        scheduler.check();
      });
      // Each pass computes a row at least; recomputing after preemptions is what makes it more than the tokens.
      let budget = 20_000;
      while (onePass()) must(--budget > 0, 'everybody ends');
      preemptions += scheduler.stats.preemptions;
      found += scheduler.stats.prefixes?.found ?? 0;
      expect(live).toEqual([]);
      expect(scheduler.stats).toMatchObject({ running: 0, waiting: 0, freePages: pool.total });
      for (const { sequence, length, generate, salt } of ended)
        expect([...sequence.tokens()]).toEqual(alone(length, generate, salt));
    }),
    { numRuns: 60 },
  );
  // The draw varies from run to run: this only says that both did happen.
  expect(preemptions).toBeGreaterThan(0);
  expect(found).toBeGreaterThan(0);
});
