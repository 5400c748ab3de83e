/**
 * Every rule file that ships, on every architecture, on a machine with two GPUs that nobody has: the placed Programs as
 * text. `npx vitest run test/placement -u` writes them anew.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { shippedRules } from '../../src/engine/rules.ts';
import { withDeferredExperts } from '../../src/models/deferred-experts.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { headerOnly, huggingFaceTensors, syntheticModel } from '../../src/models/synthetic.ts';
import { OPS } from '../../src/ops/index.ts';
import { memoryByDevice } from '../../src/placement/device-memory.ts';
import type { Machine } from '../../src/placement/lower.ts';
import { lower } from '../../src/placement/lower.ts';
import { ruleWarnings } from '../../src/placement/match.ts';
import { lowerPhases } from '../../src/placement/phases.ts';
import { parseRulesFile } from '../../src/placement/rules-file.ts';
import { tileRule } from '../../src/placement/tiles.ts';
import { printProgram } from '../../src/program/print.ts';
import type { Program } from '../../src/program/program.ts';
import { validateProgram } from '../../src/program/validate.ts';
import { TINY_CONFIGS } from '../golden/tiny-configs.ts';

const FOLDER = new URL('../../rules/', import.meta.url);
const FILES = readdirSync(FOLDER).filter((file) => file.endsWith('.yaml'));
const MACHINE: Machine = {
  device: 'cpu',
  devices: ['cpu', 'cuda:0', 'cuda:1'].map((name) => ({ name })),
  tiles: tileRule('amx'),
  hasTiles: true,
};

const MODELS = {
  'deepseek-v3': 'deepseek-v3, groups, YaRN',
  'deepseek-v2': 'deepseek-v2-lite, YaRN',
  'glm4-moe': 'glm4-moe, norms of heads, groups',
  'gpt-oss': 'gpt-oss',
  llama: 'llama',
  mixtral: 'mixtral',
  qwen3: 'qwen3, tied',
  'qwen3-moe': 'qwen3-moe',
};

function rulesOf(file: string) {
  return parseRulesFile(readFileSync(new URL(file, FOLDER), 'utf8'), file);
}

async function tiny(model: keyof typeof MODELS): Promise<Program> {
  const config = TINY_CONFIGS[MODELS[model]];
  const checkpoint = headerOnly('huggingface', model, huggingFaceTensors(await syntheticModel(config), {}), { config });
  return (await buildProgram(checkpoint)).program;
}

test('all of them ship', async () => {
  expect((await shippedRules()).map((name) => `${name}.yaml`).toSorted()).toEqual(FILES.toSorted());
  const { files } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
  expect(files).toContain('rules');
});

describe.each(FILES)('%s', (file) => {
  test.each(Object.keys(MODELS) as (keyof typeof MODELS)[])('%s', async (model) => {
    const program = await tiny(model);
    const { prefill, decode } = lowerPhases(program, MACHINE, { rules: rulesOf(file) });
    const texts = [prefill, decode].map((placed) => printProgram(validateProgram(placed, OPS)));
    const text = texts[0] === texts[1] ? texts[0] : `prefill\n${texts[0]}\ndecode\n${texts[1]}`;
    const warnings = ruleWarnings(program, rulesOf(file)).map((warning) => `warning: ${warning}\n`);
    await expect([...warnings, text].join('')).toMatchFileSnapshot(`./${file.replace('.yaml', '')}.${model}.txt`);
  });
});

/** GB of weights on each device, and kB of cache a token. */
async function sizes(file: string, model: 'deepseek-v3' | 'kimi-k2') {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS[model], { name: model, mix: 'q4_k_m' });
  const { program } = await buildProgram(checkpoint);
  const placed = lower(program, MACHINE, { rules: rulesOf(file) });
  const memory = memoryByDevice(placed, { pages: 0, maxRows: 512, maxOutputs: 1 });
  return Object.fromEntries(memory.map(({ device, weights }) => [device, Math.round(weights / 1e8) / 10]));
}

test('the files for one card say what lies on it', async () => {
  expect({
    24: await sizes('deepseek-v3-24gb.yaml', 'deepseek-v3'),
    12: await sizes('deepseek-v3-12gb.yaml', 'deepseek-v3'),
    kimi: await sizes('deepseek-v3-24gb.yaml', 'kimi-k2'),
  }).toMatchInlineSnapshot(`
    {
      "12": {
        "cpu": 396,
        "cuda:0": 8.4,
      },
      "24": {
        "cpu": 394.5,
        "cuda:0": 9.9,
      },
      "kimi": {
        "cpu": 613.6,
        "cuda:0": 7,
      },
    }
  `);
});

test('late experts go where a file puts experts', async () => {
  const late = withDeferredExperts(await tiny('deepseek-v3'), 1);
  for (const file of FILES) {
    const { steps } = lower(late, MACHINE, { rules: rulesOf(file) });
    const deviceOf = (name: string) => steps.find((step) => step.name === name)?.placement?.device;
    const names = late.steps.flatMap(({ op, name }) => (op === 'experts' && name.endsWith('.deferred') ? [name] : []));
    expect(names.length).toBeGreaterThan(0);
    for (const name of names) expect(deviceOf(name), file).toBe(deviceOf(name.replace(/\.deferred$/, '')));
  }
});
