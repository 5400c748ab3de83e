/**
 * The reference backend against logits of independent implementations.
 *
 * models/jug: an f32 PyTorch implementation. TANDEM_MODELS names a folder with larger sets (`jug/jug-FORMAT.gguf` with
 * `jug/golden/FORMAT.f32`, `tiny/NAME.gguf` with `NAME.json`); its f16 caches limit the agreement of the tiny ones.
 */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { referenceBackend } from '../../src/backend/reference.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { openCheckpoint } from '../../src/formats/open.ts';
import { floats } from './files.ts';
import { logitsOf, nmse, placedProgram, wholeBatch } from './run.ts';

async function agreement(model: string, golden: string, sequences: number[][]): Promise<number> {
  const checkpoint = await openCheckpoint(model);
  try {
    return nmse(await logitsOf(referenceBackend(), checkpoint, sequences), floats(golden));
  } finally {
    await checkpoint.close();
  }
}

const { ids } = JSON.parse(readFileSync('models/jug/golden/index.json', 'utf8')) as { ids: number[][] };

describe('jug', () => {
  test.each([
    ['hf', 'hf'],
    ['jug-Q8_0.gguf', 'Q8_0'],
  ])('%s', async (model, golden) => {
    expect(await agreement(`models/jug/${model}`, `models/jug/golden/${golden}.f32`, ids)).toBeLessThan(1e-9);
  });
});

const models = process.env.TANDEM_MODELS;
const reason = 'needs TANDEM_MODELS, a folder of models too large to commit';

describe('jug in other formats', () => {
  test.for(['Q4_K_M', 'Q2_K', 'IQ4_XS', 'IQ2_XXS', 'IQ1_S', 'MXFP4'])('%s', async (format, { skip }) => {
    const model = join(models ?? '', `jug/jug-${format}.gguf`);
    if (models === undefined || !existsSync(model)) return skip(reason);
    expect(await agreement(model, join(models, `jug/golden/${format}.f32`), ids)).toBeLessThan(1e-9);
  });
});

/**
 * Near ties of the router that the other engine's f16 caches decide the other way: there the k-th and the next expert
 * differ by less than 1e-4 in their logits. One flipped choice changes that row, and all that attend to it, by 1e-3.
 */
const NEAR_TIES: Readonly<Record<string, { layer: number; row: number }>> = {
  'deepseek-v2-lite': { layer: 2, row: 1 },
};

/** Logits with the near tie decided for the next expert. Softmax without renormalization. */
async function logitsAcrossTie(checkpoint: Checkpoint, ids: number[], tie: { layer: number; row: number }) {
  const program = await placedProgram(checkpoint);
  const limits = { pages: 1, maxRows: ids.length, maxOutputs: ids.length };
  await using executable = await referenceBackend().prepare(program, checkpoint, limits);
  const stepper = await executable.start(wholeBatch(ids));
  for (const [index, step] of program.steps.entries()) {
    await stepper.step(index);
    if (step.op !== 'router' || step.layer !== tie.layer) continue;
    const input = step.inputs[0];
    if (input?.kind !== 'value') throw new Error('the router reads logits');
    const topk = Number(step.attributes.topk);
    const all = await stepper.read(input.value);
    const row = [...all.subarray(tie.row * input.columns, (tie.row + 1) * input.columns)];
    const order = row.map((_, expert) => expert).sort((a, b) => row[b] - row[a]);
    expect(row[order[topk - 1]] - row[order[topk]]).toBeLessThan(1e-4);
    const [chosen, weights] = [await stepper.read(step.outputs[0]), await stepper.read(step.outputs[1])];
    chosen[tie.row * topk + topk - 1] = order[topk];
    weights[tie.row * topk + topk - 1] = Math.exp(row[order[topk]]) / row.reduce((sum, x) => sum + Math.exp(x), 0);
    await stepper.write(step.outputs[0], chosen);
    await stepper.write(step.outputs[1], weights);
  }
  return (await stepper.finish()).logits!;
}

describe('tiny models of another engine', () => {
  const names = ['deepseek-v2-lite', 'deepseek-v3-nogroup', 'qwen3-moe', 'qwen3', 'llama'];
  test.for(names)('%s', async (name, { skip }) => {
    const folder = join(models ?? '', 'tiny');
    if (models === undefined || !existsSync(join(folder, `${name}.gguf`))) return skip(reason);
    const about = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as { ids: number[]; logits: string };
    const checkpoint = await openCheckpoint(join(folder, `${name}.gguf`));
    const tie = NEAR_TIES[name];
    const logits = tie
      ? await logitsAcrossTie(checkpoint, about.ids, tie)
      : await logitsOf(referenceBackend(), checkpoint, [about.ids]);
    await checkpoint.close();
    expect(nmse(logits, floats(join(folder, about.logits)))).toBeLessThan(1e-6);
  });
});
