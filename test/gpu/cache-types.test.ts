/**
 * Caches of e4m3, a byte an element, on GPUs: steps within the bounds of their ops, pages out and in, whole requests, half the memory;
 * refused where the CPU would read one. Over the fake driver and emulated kernels: nothing here has run on a card.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { comparePrograms, describeFailure } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import { type Engine, type LoadOptions, load } from '../../src/index.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules } from '../../src/placement/rules-file.ts';
import { pageBytes } from '../../src/program/program.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const LIMITS = { pages: 8, maxRows: 80, maxOutputs: 8, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const tokens = (count: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (i * i + seed) % TINY_VOCABULARY);
const PROMPT = batchOf([
  { tokens: tokens(66, 1), pages: [5, 2], outputs: 'last' },
  { tokens: tokens(3, 2), pages: [1], outputs: 'last' },
]);
const ANSWER = batchOf([
  { tokens: tokens(1, 6), firstPosition: 3, pages: [1] },
  { tokens: tokens(1, 7), firstPosition: 66, pages: [5, 2] },
]);

function placed(options: TinyOptions) {
  const { program, checkpoint } = tinyProgram({ ...options, kvType: 'e4m3' });
  const rules = parseRules([
    { match: { op: ['experts', 'sample'] }, place: { device: 'cpu' } },
    { place: { device: 'cuda:{layer * gpus / layers}' } },
  ]);
  return { program: lower(program, MACHINE, { exact: true, activations: 'f32', rules }), checkpoint };
}

describe.skipIf(reason)(`caches of e4m3 on GPUs ${reason ?? ''}`, () => {
  const opened: Engine[] = [];
  let folder: string;
  async function open(options: LoadOptions): Promise<Engine> {
    const engine = await load(undefined, { contextLength: 256, threads: 2, rules: 'one-gpu', ...options });
    opened.push(engine);
    return engine;
  }
  beforeAll(async () => {
    await useFakeDriver('gpus=2;memory=4000000000');
    folder = await mkdtemp(join(tmpdir(), 'tandem-e4m3-'));
  }, 300_000);
  afterAll(async () => {
    await Promise.all(opened.map((engine) => engine.dispose()));
    await rm(folder, { recursive: true });
  });

  it.each<TinyOptions>([
    { seed: 41, layers: [['gqa', 'dense'], ['mla', 'experts']] }, // biome-ignore format: one line
    { seed: 42, layers: [['mla-split', 'dense']], format: 'q8_0' },
  ])('%o: steps stay within the bounds, and both sides store the same numbers', async (options) => {
    const { program, checkpoint } = placed(options);
    await using left = await nativeBackend().prepare(program, checkpoint, LIMITS);
    await using right = await referenceBackend({ trackMagnitudes: true }).prepare(program, checkpoint, LIMITS);
    const { firstFailure: step } = await comparePrograms({ left, right, batches: [PROMPT, ANSWER], ops: OPS });
    expect(step && `${step.name}: ${describeFailure(step)}`).toBeUndefined();
  });

  it('a page goes out and in, a byte an element', async () => {
    const { program, checkpoint } = placed({ seed: 43, layers: [['gqa', 'dense'], ['mla', 'dense']] }); // biome-ignore format: one line
    await using model = await nativeBackend().prepare(program, checkpoint, LIMITS);
    await model.run(PROMPT);
    const expected = (await model.run(ANSWER)).logits;
    const page = await model.readPage!(1);
    expect(page.length).toBe(pageBytes(program.kv));
    await model.writePage!(7, page);
    const moved = {
      ...ANSWER,
      sequences: ANSWER.sequences.map((s, i) => (i === 0 ? { ...s, pages: Int32Array.of(7) } : s)),
    };
    expect((await model.run(moved)).logits).toEqual(expected);
  });

  it('requests are answered, and prefixes outlive the process under a key of their own', async () => {
    const prefixCache = { directory: folder };
    const bytes = await open({ kvType: 'e4m3', prefixCache });
    const halves = await open({ kvType: 'bf16', prefixCache });
    expect(bytes.info.kv / bytes.stats().totalPages).toBeCloseTo(halves.info.kv / halves.stats().totalPages / 2, 0);
    const ask = (engine: Engine) => engine.chat([{ role: 'user', content: 'What is 9 + 0?' }]);
    expect((await ask(bytes)).text).toBe('9 + 0 = 9');
    expect((await ask(halves)).text).toBe('9 + 0 = 9');
  });

  it('on the CPU they are refused, by the rule and the step that would read one', async () => {
    await expect(load(undefined, { contextLength: 64, kvType: 'e4m3', rules: 'cpu' })).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
      message: expect.stringMatching(
        /a cache of e4m3 lies on a GPU, the CPU has f32 and bf16; cpu\.yaml:\d+ places .* on cpu; place it on cuda:N/,
      ),
    });
    const { program, checkpoint } = tinyProgram({ seed: 44, kvType: 'e4m3' });
    await expect(nativeBackend().prepare(lower(program, MACHINE), checkpoint, LIMITS)).rejects.toMatchObject({
      code: 'FORMAT_UNSUPPORTED',
      message: expect.stringMatching(/a cache of e4m3 lies on a GPU.*step "layers\.0\.append" \(kv-append, cpu\)/),
    });
  });
});
