/**
 * Programs of public models as text, built from descriptions alone. A refactor does not move them; a change of a model or
 * of placement shows as a diff. `npx vitest run test/snapshots -u` writes them anew.
 */
import { describe, expect, test } from 'vitest';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../src/models/public-configs.ts';
import type { QuantMix } from '../../src/models/quant-mix.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { headerOnly, huggingFaceTensors, syntheticModel } from '../../src/models/synthetic.ts';
import { OPS } from '../../src/ops/index.ts';
import { lower } from '../../src/placement/lower.ts';
import { printProgram } from '../../src/program/print.ts';
import { validateProgram } from '../../src/program/validate.ts';

const GGUF: readonly (readonly [PublicModel, QuantMix])[] = [
  ['deepseek-v3', 'q4_k_m'],
  ['deepseek-v2-lite', 'q4_k_m'],
  ['deepseek-v2', 'q8_0'],
  ['kimi-k2', 'q4_k_m'],
  ['glm-4.5-air', 'q4_k_m'],
  ['qwen3-30b-a3b', 'q4_k_m'],
  ['qwen3-0.6b', 'q8_0'],
  ['mixtral-8x7b', 'q4_k_m'],
  ['llama-3.1-8b', 'q4_k_m'],
];

describe('GGUF', () => {
  test.each(GGUF)('%s %s', async (name, mix) => {
    const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix });
    const { program, unused } = await buildProgram(checkpoint);
    const placed = validateProgram(lower(program, { device: 'cpu' }), OPS);
    expect(unused).toEqual([]);
    await expect(printProgram(placed)).toMatchFileSnapshot(`./${name}.${mix}.txt`);
  });
});

const FOLDERS: readonly (readonly [PublicModel, boolean])[] = [
  ['deepseek-v3', true],
  ['deepseek-v2-lite', false],
  ['glm-4.5-air', false],
  ['qwen3-30b-a3b', false],
  ['mixtral-8x7b', false],
  ['llama-3.1-8b', false],
];

describe('Hugging Face', () => {
  test.each(FOLDERS)('%s, fp8 %s', async (name, fp8) => {
    const config = PUBLIC_CONFIGS[name];
    const tensors = huggingFaceTensors(await syntheticModel(config), { fp8 });
    const { program, unused } = await buildProgram(headerOnly('huggingface', name, tensors, { config }));
    const placed = validateProgram(lower(program, { device: 'cpu' }), OPS);
    expect(unused).toEqual([]);
    await expect(printProgram(placed)).toMatchFileSnapshot(`./${name}.${fp8 ? 'fp8' : 'bf16'}.txt`);
  });
});
