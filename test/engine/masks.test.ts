/** No token is drawn before its mask is there, whenever a request comes, and nobody else waits for it. */
import { describe, expect, test } from 'vitest';
import { ChunkSize } from '../../src/engine/chunk-size.ts';
import type { FormatMatcher } from '../../src/engine/grammar.ts';
import { Guide } from '../../src/engine/guide.ts';
import { PagePool } from '../../src/engine/kv-cache.ts';
import { EngineLoop } from '../../src/engine/loop.ts';
import type { Request } from '../../src/engine/request.ts';
import { Sampler, samplingSettings } from '../../src/engine/sampling.ts';
import { type Outcome, Scheduler } from '../../src/engine/scheduler.ts';
import { Sequence } from '../../src/engine/sequence.ts';
import { TandemError } from '../../src/errors.ts';
import type { Batch, PassResult } from '../../src/program/batch.ts';
import { FakeExecutable } from './fake-executable.ts';
import { byteTokenizer } from './fake-tokenizer.ts';

const VOCAB = 258;

/** A form that allows everything; its mask is empty until `fill`. */
class SlowMatcher implements FormatMatcher {
  readonly mask = new Uint32Array(Math.ceil(VOCAB / 32));
  ready = false;
  settled!: Promise<void>;
  #resolve!: () => void;
  #reject!: (error: unknown) => void;
  readonly #onEmpty: (matcher: SlowMatcher) => void;

  constructor(onEmpty: (matcher: SlowMatcher) => void = () => {}) {
    this.#onEmpty = onEmpty;
    this.#empty();
  }
  accept(): void {
    this.#empty();
  }
  fill(): void {
    this.mask.fill(0xffffffff);
    this.ready = true;
    this.#resolve();
  }
  fail(error: unknown): void {
    this.#reject(error);
  }
  dispose(): void {}
  #empty(): void {
    this.mask.fill(0);
    this.ready = false;
    this.settled = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.settled.catch(() => {});
    this.#onEmpty(this);
  }
}

/** Refuses to draw under an empty mask. */
class MaskedExecutable extends FakeExecutable {
  drawn = 0;
  override compute(batch: Batch): PassResult {
    for (const { sampling } of batch.outputs)
      if (sampling?.mask) {
        this.drawn++;
        if (sampling.mask.every((word) => word === 0)) throw new Error('a draw under an empty mask');
      }
    return super.compute(batch);
  }
}

function sequenceOf(length: number, generate: number, format?: FormatMatcher): Sequence {
  const prompt = Int32Array.from({ length }, (_, i) => i % 200);
  const guide = format && new Guide({ tokenizer: byteTokenizer, vocabSize: VOCAB, format });
  return new Sequence({
    prompt,
    maxLen: length + generate,
    sampler: new Sampler(samplingSettings({ seed: 1 }, {}, VOCAB), prompt, guide),
    stopTokens: new Set(),
  });
}

function schedulerOf(): Scheduler {
  const chunk = new ChunkSize({ minRows: 64, maxRows: 64, firstRows: 64, targetMs: 400 });
  return new Scheduler({ pool: new PagePool(64), maxRows: 128, maxOutputs: 16, maxSequences: 32, chunk });
}

describe('a mask that is not there', () => {
  test('keeps its sequence from drawing, not from computing its prompt, and nobody else from anything', () => {
    const scheduler = schedulerOf();
    const executable = new MaskedExecutable({ pages: 64, vocabSize: VOCAB });
    const matcher = new SlowMatcher();
    const guided = sequenceOf(100, 3, matcher);
    const free = sequenceOf(10, 20);
    scheduler.add(guided);
    scheduler.add(free);
    const pass = (): Outcome[] => {
      const plan = scheduler.next();
      return plan === undefined ? [] : scheduler.commit(plan, executable.compute(plan.batch));
    };
    for (let i = 0; i < 6; i++) pass();
    expect(guided.computedLen).toBe(99);
    expect(guided.generatedLen).toBe(0);
    expect(free.generatedLen).toBeGreaterThanOrEqual(4);
    matcher.fill();
    pass();
    expect(guided.generatedLen).toBe(1);
    while (free.finish === undefined) pass();
    expect(guided.generatedLen).toBe(1);
    expect(scheduler.next()).toBeUndefined(); // nothing but waiting
    matcher.fill();
    pass();
    matcher.fill();
    pass();
    expect(guided.finish).toBe('length');
    expect(scheduler.stats.freePages).toBe(64);
  });
});

describe('the loop', () => {
  const settle = async (turns: number) => {
    for (let i = 0; i < turns; i++) await Promise.resolve();
  };

  class Waiting implements Request {
    readonly sequence: Sequence;
    readonly done: Promise<unknown>;
    #done!: (error?: unknown) => void;
    constructor(sequence: Sequence) {
      this.sequence = sequence;
      this.done = new Promise((resolve) => {
        this.#done = resolve;
      });
    }
    started(): void {}
    advance(): boolean {
      return false;
    }
    finish(): void {
      this.#done();
    }
    fail(error: unknown): void {
      this.#done(error);
    }
  }

  test('draws under masks only, at whatever moment requests come and masks are filled', async () => {
    const late: Waiting[] = [];
    const executable = new MaskedExecutable({
      pages: 64,
      vocabSize: VOCAB,
      during: () => settle(executable.passes.length % 5),
    });
    const loop = new EngineLoop(schedulerOf(), executable);
    const submit = (delay: number) => {
      const matcher = new SlowMatcher((self) => {
        if (delay % 3 === 0) setTimeout(() => self.fill(), delay % 7);
        else settle(delay).then(() => self.fill());
      });
      const request = new Waiting(sequenceOf(1 + (delay % 3), 6, matcher));
      late.push(request);
      loop.submit(request, () => {});
    };
    for (let moment = 0; moment < 40; moment++) settle(moment).then(() => submit(moment));
    await settle(50);
    expect(await Promise.all(late.map(({ done }) => done))).toEqual(Array(40).fill(undefined));
    expect(executable.drawn).toBe(40 * 6);
    await loop.dispose();
  });

  test('an output that leaves its form ends alone', async () => {
    const executable = new MaskedExecutable({ pages: 64, vocabSize: VOCAB });
    const loop = new EngineLoop(schedulerOf(), executable);
    const left = new TandemError('NATIVE_FAILED', { room: 'engine', rule: 'a token keeps the form' });
    const bad = new Waiting(sequenceOf(3, 5, new SlowMatcher((self) => setTimeout(() => self.fail(left), 1))));
    const good = new Waiting(sequenceOf(3, 5));
    loop.submit(bad, () => {});
    loop.submit(good, () => {});
    expect(await bad.done).toBe(left);
    expect(await good.done).toBeUndefined();
    await loop.dispose();
  });
});
