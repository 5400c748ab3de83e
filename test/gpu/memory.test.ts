/**
 * What a plan counts for GPUs is what models then take there: weights, cache, values of a pass, scratch memory of kernels, what a
 * pass is told. Held against what the fake driver gave.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import { listGpus } from '../../src/backend/native/gpus.ts';
import { buildProgram } from '../../src/models/index.ts';
import { memoryByDevice } from '../../src/placement/device-memory.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import { tinyModel } from '../golden/make-tiny.ts';
import { TINY_CONFIGS } from '../golden/tiny-configs.ts';
import { fakeDriverProblem, useFakeDriver } from './fake-driver.ts';

const reason = fakeDriverProblem();
const CARD = 4e9;
const MACHINE = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })) } as const;
const ALL: readonly RuleDescription[] = [{ place: { device: 'cuda:0' } }];
const HYBRID: readonly RuleDescription[] = [
  { match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } },
  { place: { device: 'cuda:0' } },
];
const LAYERS: readonly RuleDescription[] = [{ place: { device: 'cuda:{layer * gpus / layers}' } }];

/** Few rows: scratch memory by rows; many: as much as pieces of them may take. */
const LIMITS = [
  { pages: 8, maxRows: 200, maxOutputs: 16 },
  { pages: 64, maxRows: 60_000, maxOutputs: 64 },
] as const;

const PLACED = [
  ['deepseek-v3, groups, YaRN', 'all', ALL],
  ['deepseek-v2-lite, YaRN', 'experts on the CPU', HYBRID],
  ['qwen3-moe', 'all', ALL],
  ['qwen3-moe', 'by layers', LAYERS],
  ['gpt-oss', 'experts on the CPU', HYBRID],
] as const;

describe.skipIf(reason)(`memory of GPUs ${reason ?? ''}`, () => {
  beforeAll(() => useFakeDriver(`gpus=2;memory=${CARD}`), 300_000);

  /** Of both cards: the fake driver counts them together. */
  const taken = () => CARD - listGpus({ free: true }).gpus[0].freeBytes!;
  const built = async (config: string, fast: boolean, rules: readonly RuleDescription[]) => {
    const layout = config.startsWith('deepseek') ? { kvB: 'split' as const } : {};
    const tiny = await tinyModel(TINY_CONFIGS[config]);
    const checkpoint = await (config === 'gpt-oss' ? tiny.huggingFace({ packed: true }) : tiny.gguf(layout));
    const { program } = await buildProgram(checkpoint, { kvType: 'bf16' });
    const options = fast ? {} : ({ exact: true, activations: 'f32' } as const);
    return { checkpoint, placed: lower(program, MACHINE, { ...options, rules: parseRules(rules) }) };
  };

  it.each(
    PLACED.flatMap(([config, place, rules]) =>
      [true, false].flatMap((fast) => LIMITS.map((limits) => ({ config, place, rules, fast, limits }))),
    ),
  )('$config, $place, fast $fast, $limits.maxRows rows', async ({ config, rules, fast, limits }) => {
    const { checkpoint, placed } = await built(config, fast, rules);
    const cards = memoryByDevice(placed, limits).filter(({ device }) => device !== 'cpu');
    const counted = cards.reduce((sum, { total }) => sum + total, 0);
    await using model = await nativeBackend().prepare(placed, checkpoint, { ...limits, threads: 1 });
    expect(Math.abs(taken() - counted)).toBeLessThan(0.02 * counted + SMALL * cards.length);
    const { description } = model;
    const said = ['gpu weight bytes', 'gpu kv bytes', 'gpu buffer bytes'].map((name) => Number(description[name]));
    expect(said.reduce((sum, bytes) => sum + bytes, 0)).toBe(taken());
  });
});

/** Constants and paddings of a tiny model. */
const SMALL = 64e3;
