/**
 * Experts that GPUs hold beside the processor's (decision 016): whatever they hold, the answer is that of the CPU within the bound;
 * uploads that fail are misses. Over the fake driver and emulated kernels: nothing here has run on a card.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SharingCounts, SharingPlan } from '../../src/backend/backend.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { type Engine, load } from '../../src/index.ts';
import { withDeferredExperts } from '../../src/models/deferred-experts.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const LIMITS = { pages: 8, maxRows: 96, maxOutputs: 96, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const HYBRID: readonly RuleDescription[] = [
  { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } },
  { place: { device: 'cuda:{layer * gpus / layers}' } },
];
const reason = fakeDriverProblem();
const EXPERTS = 4;
const LAYERS = 2;

/** `experts` of each layer; an upload for every hit that it would have brought. */
const holding = (experts: number): SharingPlan => ({
  hot: { slots: Int32Array.of(experts, experts), bytes: 0, payBack: 0.01 },
});
let told = 0;
function fail(symbol: string, nth: number, result: number): void {
  process.env.TANDEM_FAKE_CUDA_FAIL = `${symbol}:${nth}:${result}:${told++}`;
}

describe.skipIf(reason)(`experts that GPUs hold ${reason ?? ''}`, () => {
  const { program, checkpoint } = tinyProgram({ seed: 22, score: 'softmax', layers: [['gqa', 'experts'], ['mla', 'experts']], format: 'q8_0' }); // biome-ignore format: one line
  const prepare = (rules: readonly RuleDescription[], sharing: SharingPlan = {}) =>
    nativeBackend().prepare(
      lower(program, MACHINE, { exact: true, activations: 'f32', rules: parseRules(rules) }),
      checkpoint,
      { ...LIMITS, sharing },
    );
  type Model = Awaited<ReturnType<typeof prepare>>;
  let cpu: Model;
  beforeAll(async () => {
    await useFakeDriver('gpus=2');
    cpu = await prepare([]);
  }, 300_000);
  afterAll(async () => {
    delete process.env.TANDEM_FAKE_CUDA_FAIL;
    await cpu?.dispose();
  });

  const prompt = batchOf([{ tokens: [1, 2, 3], pages: [1] }, { tokens: [4, 5], pages: [2] }]); // biome-ignore format: one line
  const next = (step: number) =>
    batchOf([{ tokens: [(step * 7) % TINY_VOCABULARY], firstPosition: 3 + step, pages: [1] }]);
  /** Its logits are those of the CPU. */
  async function same(model: Model, batch: ReturnType<typeof next>): Promise<void> {
    const [{ logits }, { logits: expected }] = [await model.run(batch), await cpu.run(batch)];
    logits!.forEach((logit, i) => {
      expect(Math.abs(logit - expected![i])).toBeLessThan(1e-4 * (1 + Math.abs(expected![i])));
    });
  }
  const counts = (model: Model): SharingCounts => model.sharingCounts!()!;
  /** Passes of one token until what uploads beside them are to bring is there; they come when they come. Gives their number. */
  async function passes(pass: (step: number) => Promise<unknown>, enough: () => boolean): Promise<number> {
    let step = 0;
    for (; step < 30 || (!enough() && step < 1000); step++) await pass(step % 30);
    return step;
  }

  it.each([1, 2, EXPERTS])(
    '%i of 4 held: the logits are those of the CPU, and every choice is counted once',
    async (held) => {
      await using model = await prepare(HYBRID, holding(held));
      await same(model, prompt);
      expect(counts(model)).toMatchObject({ hits: 0, misses: 0, uploads: 0 }); // prompts count for nothing
      const passed = await passes(
        (step) => same(model, next(step)),
        () =>
          counts(model).uploads >= held && counts(model).hits > 0 && (held === EXPERTS || counts(model).evictions > 0),
      );
      const { slots, hits, misses, uploads, evictions, failures, ...rest } = counts(model);
      expect(slots).toBe(held * LAYERS);
      const chosen = program.steps.find(({ op }) => op === 'experts')!.inputs[1]!;
      expect(hits + misses).toBe(passed * LAYERS * (chosen.kind === 'value' ? chosen.columns : 0));
      expect(hits).toBeGreaterThan(0);
      expect(uploads).toBeGreaterThanOrEqual(held);
      expect(failures).toBe(0);
      expect(rest.held).toBeLessThanOrEqual(slots);
      // Where all have a place nobody is sent away; where few have, the table goes on changing.
      expect(evictions > 0).toBe(held < EXPERTS);
    },
  );

  it('late experts are held like others: both steps of a layer read one table', async () => {
    const late = withDeferredExperts(program, 1);
    const on = (rules: readonly RuleDescription[], sharing: SharingPlan = {}) =>
      nativeBackend().prepare(
        lower(late, MACHINE, { exact: true, activations: 'f32', rules: parseRules(rules) }),
        checkpoint,
        { ...LIMITS, sharing },
      );
    await using plain = await on([]);
    await using model = await on([HYBRID[0], { place: { device: 'cuda:0' } }], holding(2));
    const alike = async (batch: ReturnType<typeof next>) => {
      const [{ logits }, { logits: expected }] = [await model.run(batch), await plain.run(batch)];
      logits!.forEach((logit, i) => {
        expect(Math.abs(logit - expected![i])).toBeLessThan(1e-4 * (1 + Math.abs(expected![i])));
      });
    };
    await alike(prompt);
    const passed = await passes(
      (step) => alike(next(step)),
      () => counts(model).uploads >= 4 && counts(model).hits > 0,
    );
    const { slots, hits, misses, failures } = counts(model);
    expect(slots).toBe(2 * LAYERS);
    expect(hits + misses).toBe(passed * LAYERS * 2);
    expect(hits).toBeGreaterThan(0);
    expect(failures).toBe(0);
  });

  it('a model that was told to hold none shares nothing', async () => {
    await using model = await prepare(HYBRID);
    await same(model, prompt);
    await same(model, next(0));
    expect(model.sharingCounts!()).toBeUndefined();
    expect(model.description['hot experts']).toBeUndefined();
  });

  it('a graph gives the bits of single launches, with what is held and without', async () => {
    await using model = await prepare(HYBRID, holding(EXPERTS));
    await model.run(prompt);
    let misses = -1;
    let missed = -1;
    await passes(
      async (step) => {
        if (step % 4 === 0) [misses, missed] = [counts(model).misses, misses];
        await model.run(next(step % 4));
      },
      () => missed === misses && counts(model).misses === misses,
    );
    ({ misses } = counts(model));
    const logits: (Float32Array | undefined)[] = [];
    for (const graphs of ['0', '1']) {
      process.env.TANDEM_CUDA_GRAPHS = graphs;
      logits.push((await model.run(next(0))).logits);
    }
    delete process.env.TANDEM_CUDA_GRAPHS;
    expect(logits[1]).toEqual(logits[0]);
    expect(counts(model).misses).toBe(misses); // everything was a hit
  });

  it('an upload that fails is a miss, and no pass fails by it', async () => {
    await using model = await prepare(HYBRID, holding(EXPERTS));
    await same(model, prompt);
    for (let step = 0; step < 300 && counts(model).failures === 0; step++) {
      // Eight copies are what a pass is told, two more the tables after one that failed; then comes the upload, or the next pass.
      fail('cuMemcpyHtoDAsync_v2', step % 2 === 0 ? 9 : 11, 1);
      await model.run(next(step % 30)).catch(() => {});
    }
    expect(counts(model).failures).toBeGreaterThan(0);
    await model.run(next(0)).catch(() => {}); // what is left of it
    await passes(
      (step) => same(model, next(step)),
      () => counts(model).uploads > 0,
    );
    expect(counts(model).uploads).toBeGreaterThan(0);
  });

  it('more rows than a graph has, and steps one by one, use none', async () => {
    await using model = await prepare(HYBRID, holding(EXPERTS));
    await model.run(prompt);
    const before = counts(model);
    const many = batchOf(Array.from({ length: 70 }, (_, i) => ({ tokens: [i % 40], pages: [i % 8], slot: i })));
    await model.run(many);
    const stepper = await model.start(next(0));
    for (let index = 0; index < model.program.steps.length; index++) await stepper.step(index);
    await stepper.finish();
    await model.run(prompt);
    expect(counts(model)).toEqual(before);
  });

  it('a model says what it holds; exact mode holds nothing', async () => {
    const options = { contextLength: 256, maxBatchRows: 32, threads: 2, rules: 'one-gpu' } as const;
    await expect(load(undefined, { ...options, exact: true, hotExperts: 2 })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringMatching(/hotExperts is off in exact mode/),
    });
    await using exact = await load(undefined, { ...options, exact: true });
    expect(exact.info.execution['hot experts']).toBeUndefined();
    expect(exact.info.numerics).toBe('exact');
    await using plain = await load(undefined, { ...options, rules: 'cpu', activations: 'f32' });
    await using engine = await load(undefined, { ...options, hotExperts: 2, streamPrefill: 'off', activations: 'f32' });
    expect(engine.info.execution['hot experts']).toMatch(/^room for \d+ in \d layers$/);
    expect(engine.info.numerics).toBe('fast');
    const ask = (of: Engine) => of.generate(of.tokenize('What is 9 + 0?'), { maxTokens: 6, temperature: 0 });
    const { tokens } = await ask(plain);
    // Uploads run beside passes: when the first of them arrives is theirs to say.
    for (let asked = 0; asked < 50 && !engine.sharingCounts()?.hits; asked++)
      expect((await ask(engine)).tokens).toEqual(tokens);
    const { hits, misses, uploads } = engine.sharingCounts()!;
    expect(hits).toBeGreaterThan(0);
    expect(misses).toBeGreaterThan(0);
    expect(uploads).toBeGreaterThan(0);
  });
});
