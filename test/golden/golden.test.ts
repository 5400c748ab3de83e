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
import { logitsOf, nmse } from './run.ts';

function floats(path: string): Float32Array {
  const bytes = readFileSync(path);
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}

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
  test.for(['Q4_K_M', 'Q2_K', 'IQ4_XS'])('%s', async (format, { skip }) => {
    const model = join(models ?? '', `jug/jug-${format}.gguf`);
    if (models === undefined || !existsSync(model)) return skip(reason);
    expect(await agreement(model, join(models, `jug/golden/${format}.f32`), ids)).toBeLessThan(1e-9);
  });
});

describe('tiny models of another engine', () => {
  test.for(['deepseek-v2-lite', 'deepseek-v3-nogroup', 'qwen3-moe', 'qwen3', 'llama'])(
    '%s',
    async (name, { skip }) => {
      const folder = join(models ?? '', 'tiny');
      if (models === undefined || !existsSync(join(folder, `${name}.gguf`))) return skip(reason);
      const about = JSON.parse(readFileSync(join(folder, `${name}.json`), 'utf8')) as { ids: number[]; logits: string };
      expect(await agreement(join(folder, `${name}.gguf`), join(folder, about.logits), [about.ids])).toBeLessThan(1e-4);
    },
  );
});
