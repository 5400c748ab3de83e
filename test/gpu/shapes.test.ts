/**
 * Tiny models of every public architecture on GPUs, in the layouts of their files: all on a GPU, experts on the CPU, by layers on two;
 * prompts of some sequences at once, and answers by graphs. Each step against the reference, logits against the CPU. Over the fake
 * driver and emulated kernels: nothing here has run on a card.
 */
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { comparePrograms, describeFailure } from '../../src/backend/compare.ts';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { referenceBackend } from '../../src/backend/reference.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { buildProgram } from '../../src/models/index.ts';
import type { PublicModel } from '../../src/models/public-configs.ts';
import type { FolderFormat } from '../../src/models/synthesize-folder.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { batchOf } from '../conformance/tiny-batches.ts';
import { folderCheckpoint } from '../golden/folders.ts';
import { type TinyModel, tinyModel } from '../golden/make-tiny.ts';
import { nmse } from '../golden/run.ts';
import { TINY_CONFIGS } from '../golden/tiny-configs.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const LIMITS = { pages: 6, maxRows: 48, maxOutputs: 48, threads: 2 };
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const PLACES: Readonly<Record<string, readonly RuleDescription[]>> = {
  'all on a GPU': [{ place: { device: 'cuda:0' } }],
  'experts on the CPU': [
    { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } },
    { place: { device: 'cuda:0' } },
  ],
  'two GPUs': [{ place: { device: 'cuda:{layer * gpus / layers}' } }],
};

const MODELS: readonly (readonly [config: string, place: string, layout: (tiny: TinyModel) => Promise<Checkpoint>])[] =
  [
    ['deepseek-v3, groups, YaRN', 'all on a GPU', (tiny) => tiny.gguf({ kvB: 'split' })],
    ['deepseek-v3, groups, YaRN', 'experts on the CPU', (tiny) => tiny.huggingFace()],
    ['deepseek-v2-lite, YaRN', 'experts on the CPU', (tiny) => tiny.gguf()],
    ['kimi-k2, one group, YaRN without a ramp', 'two GPUs', (tiny) => tiny.gguf({ kvB: 'split' })],
    ['glm4-moe, norms of heads, groups', 'all on a GPU', (tiny) => tiny.gguf()],
    ['gpt-oss, YaRN with a ramp', 'all on a GPU', (tiny) => tiny.gguf({ experts: 'mxfp4' })],
    ['gpt-oss', 'experts on the CPU', (tiny) => tiny.huggingFace({ packed: true })],
    ['qwen3-moe', 'experts on the CPU', (tiny) => tiny.gguf({ experts: 'each' })],
    ['mixtral', 'two GPUs', (tiny) => tiny.gguf({ experts: 'gate-up' })],
    ['llama 3.1', 'all on a GPU', (tiny) => tiny.huggingFace()],
  ];

/** As they are published. */
const PUBLISHED: readonly (readonly [model: PublicModel, format: FolderFormat, place: string])[] = [
  ['deepseek-v3', 'f8_e4m3', 'all on a GPU'],
  ['deepseek-v3', 'f8_e4m3', 'experts on the CPU'],
  ['qwen3-30b-a3b', 'f8_e4m3', 'two GPUs'],
  ['kimi-k2-thinking', 'int4_g32', 'all on a GPU'],
];
const tokens = (count: number, seed: number) => Array.from({ length: count }, (_, i) => (i * i * 7 + seed * 31) % 272);
const PROMPTS = [
  { tokens: tokens(26, 1), pages: [3] },
  { tokens: tokens(2, 2), pages: [0] },
];
const ANSWERS = [
  { tokens: [4], firstPosition: 26, pages: [3] },
  { tokens: [9], firstPosition: 2, pages: [0] },
  { tokens: [17], pages: [5] },
];
const BATCHES = [batchOf(PROMPTS), batchOf(ANSWERS)] as const;

describe.skipIf(reason)(`architectures on GPUs ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver('gpus=2'), 300_000);
  afterEach(() => {
    delete process.env.TANDEM_CUDA_GRAPHS;
  });

  it.each(MODELS)('%s, %s', async (config, place, layout) => {
    await judge(await layout(await tinyModel(TINY_CONFIGS[config])), place);
  });

  it.each(PUBLISHED)('a folder of %s in %s, %s', async (model, format, place) => {
    await judge(await folderCheckpoint(model, format), place);
  });

  async function judge(checkpoint: Checkpoint, place: string): Promise<void> {
    const { program } = await buildProgram(checkpoint, { kvType: 'f32' });
    const on = (rules: readonly RuleDescription[]) =>
      lower(program, MACHINE, { exact: true, activations: 'f32', rules: parseRules(rules) });
    await using gpu = await nativeBackend().prepare(on(PLACES[place]), checkpoint, LIMITS);
    await using cpu = await nativeBackend().prepare(on([]), checkpoint, LIMITS);
    await using right = await referenceBackend({ trackMagnitudes: true }).prepare(gpu.program, checkpoint, LIMITS);

    const { firstFailure: step } = await comparePrograms({ left: gpu, right, batches: BATCHES, ops: OPS });
    expect(step && `${step.name}: ${describeFailure(step)}`).toBeUndefined();

    // Answers again, over the same cache: as single launches, and as a graph.
    const [prompts, answers] = BATCHES;
    process.env.TANDEM_CUDA_GRAPHS = '0';
    const { logits: single } = await gpu.run(answers);
    process.env.TANDEM_CUDA_GRAPHS = '1';
    expect((await gpu.run(answers)).logits, 'graphs give the bits of single launches').toEqual(single);
    await cpu.run(prompts);
    expect(nmse(single!, (await cpu.run(answers)).logits!), 'logits are those of the CPU').toBeLessThan(1e-10);
    await checkpoint.close();
  }
});
