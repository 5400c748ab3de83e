/**
 * Laws of passes on GPUs: a graph gives the bits of single launches, a row those that it has alone, a prompt in pieces those of the
 * whole; pages of the cache have one order wherever their layers lie. Over the fake driver and emulated kernels.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { TINY_VOCABULARY, tinyProgram } from '../conformance/tiny-program.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const LIMITS = { pages: 8, maxRows: 16, maxOutputs: 16, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const HYBRID: readonly RuleDescription[] = [
  { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } },
  { place: { device: 'cuda:{layer * gpus / layers}' } },
];
const reason = fakeDriverProblem();
const { program, checkpoint } = tinyProgram({ seed: 11, layers: [['gqa', 'experts'], ['mla', 'experts']] }); // biome-ignore format: one line

const model = (rules: readonly RuleDescription[]) =>
  nativeBackend().prepare(
    lower(program, MACHINE, { exact: true, activations: 'f32', rules: parseRules(rules) }),
    checkpoint,
    LIMITS,
  );
type Model = Awaited<ReturnType<typeof model>>;

const tokens = (count: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (i * 7 + seed) % TINY_VOCABULARY);
const PROMPTS = [
  { tokens: tokens(5, 1), pages: [3] },
  { tokens: tokens(2, 2), pages: [0] },
];
const NEXT = [
  { tokens: [4], firstPosition: 5, pages: [3] },
  { tokens: [9], firstPosition: 2, pages: [0] },
  { tokens: [17], pages: [6] },
];
const logitsOf = async (on: Model, sequences: Parameters<typeof batchOf>[0]) =>
  (await on.run(batchOf(sequences))).logits!;

describe.skipIf(reason)(`laws of GPUs ${reason ?? ''}`, () => {
  let gpu: Model;
  let cpu: Model;
  beforeAll(async () => {
    await useFakeDriver('gpus=2');
    gpu = await model(HYBRID);
    cpu = await model([]);
  }, 300_000);
  afterAll(() => Promise.all([gpu?.dispose(), cpu?.dispose()]));

  it('a graph gives the bits of single launches, in the first pass and later', async () => {
    const passes: Float32Array[][] = [];
    for (const graphs of ['0', '1']) {
      process.env.TANDEM_CUDA_GRAPHS = graphs;
      const own: Float32Array[] = [];
      await gpu.run(batchOf(PROMPTS));
      for (const count of [1, 3, 2, 3]) own.push(await logitsOf(gpu, NEXT.slice(0, count)));
      passes.push(own);
    }
    expect(passes[1]).toEqual(passes[0]);
    expect(passes[1].every((logits) => logits.every(Number.isFinite))).toBe(true);
  });

  it('a row has the bits that it has alone, and those of a prompt in pieces', async () => {
    const all = await logitsOf(gpu, [...PROMPTS, { tokens: tokens(6, 3), pages: [5] }]);
    const alone = await logitsOf(gpu, [PROMPTS[0]]);
    expect(alone).toEqual(all.subarray(0, alone.length));
    const { tokens: whole, pages } = PROMPTS[0];
    await gpu.run(batchOf([{ tokens: whole.slice(0, 2), pages }]));
    const rest = await logitsOf(gpu, [{ tokens: whole.slice(2), firstPosition: 2, pages }]);
    expect(rest).toEqual(alone.subarray(2 * TINY_VOCABULARY));
  });

  it('pages have the order of a cache on the CPU, and serve where they are written to', async () => {
    await gpu.run(batchOf(PROMPTS));
    await cpu.run(batchOf(PROMPTS));
    const [own, other] = [await gpu.readPage!(3), await cpu.readPage!(3)];
    expect(own.length).toBe(other.length);
    const [a, b] = [own, other].map((bytes) => new Float32Array(bytes.slice().buffer));
    const positions = 64;
    // The place of a position in a stream: [heads][positions][width], streams of all layers one after the other.
    let start = 0;
    for (const { heads, width } of program.kv.layers.flatMap(({ streams }) => streams)) {
      for (let head = 0; head < heads; head++, start += positions * width)
        for (let i = start; i < start + 5 * width; i++) expect(Math.abs(a[i] - b[i])).toBeLessThan(1e-4);
    }
    expect(start).toBe(a.length);
    const before = await logitsOf(gpu, [NEXT[0]]);
    await gpu.writePage!(7, own);
    expect(await logitsOf(gpu, [{ ...NEXT[0], pages: [7] }])).toEqual(before);
  });

  it('experts are counted as on the CPU', async () => {
    const [before, expected] = [gpu.expertVisits!(), cpu.expertVisits!()];
    await gpu.run(batchOf(NEXT.slice(2)));
    await cpu.run(batchOf(NEXT.slice(2)));
    const [after, then] = [gpu.expertVisits!(), cpu.expertVisits!()];
    const grown = (to: Uint32Array, from: Uint32Array) => to.map((count, i) => count - from[i]);
    expect(grown(after.counts, before.counts)).toEqual(grown(then.counts, expected.counts));
    expect(grown(after.counts, before.counts).some((count) => count > 0)).toBe(true);
    expect(after.layers).toEqual(then.layers);
  });

  it('the logits are those of the CPU', async () => {
    const [a, b] = [await logitsOf(gpu, PROMPTS), await logitsOf(cpu, PROMPTS)];
    a.forEach((logit, i) => {
      expect(Math.abs(logit - b[i])).toBeLessThan(1e-4 * (1 + Math.abs(b[i])));
    });
  });
});
