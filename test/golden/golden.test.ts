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
import { openCheckpoint } from '../../src/formats/open.ts';
import { floats } from './files.ts';
import { logitsOf, nmse } from './run.ts';

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
 * That engine keeps keys and values expanded, in f16. The rounding decides near ties of routers (deepseek-v2-lite: layer 2,
 * row 1, two experts 4e-5 apart; the other choice moves all logits by 2e-3), so the reference imitates it.
 */
describe('tiny models of another engine', () => {
  const names = ['deepseek-v2-lite', 'deepseek-v3-nogroup', 'qwen3-moe', 'qwen3', 'llama'];
  test.for(names)('%s', async (name, { skip }) => {
    const folder = join(models ?? '', 'tiny');
    if (models === undefined || !existsSync(join(folder, `${name}.gguf`))) return skip(reason);
    const about = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as { ids: number[]; logits: string };
    const checkpoint = await openCheckpoint(join(folder, `${name}.gguf`));
    const logits = await logitsOf(referenceBackend({ imitateF16Cache: true }), checkpoint, [about.ids]);
    await checkpoint.close();
    expect(nmse(logits, floats(join(folder, about.logits)))).toBeLessThan(1e-6);
  });
});
