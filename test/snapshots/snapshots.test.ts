/**
 * Programs of public models as text, built from descriptions alone. A refactor does not move them; a change of a model or
 * of placement shows as a diff. `npx vitest run test/snapshots -u` writes them anew.
 */
import { describe, expect, test } from 'vitest';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../src/models/public-configs.ts';
import type { QuantMix } from '../../src/models/quant-mix.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { type FolderOptions, headerOnly, huggingFaceTensors, syntheticModel } from '../../src/models/synthetic.ts';
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
  ['gpt-oss-120b', 'mxfp4'],
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

const FOLDERS: readonly (readonly [PublicModel, string, FolderOptions])[] = [
  ['deepseek-v3', 'fp8', { fp8: 'f32' }],
  ['deepseek-v2-lite', 'bf16', {}],
  ['glm-4.5-air', 'bf16', {}],
  ['gpt-oss-20b', 'mxfp4', {}],
  ['kimi-k2-thinking', 'int4', { int4: true }],
  ['qwen3-30b-a3b', 'bf16', {}],
  ['mixtral-8x7b', 'bf16', {}],
  ['llama-3.1-8b', 'bf16', {}],
];

describe('Hugging Face', () => {
  test.each(FOLDERS)('%s %s', async (name, kind, options) => {
    const config = PUBLIC_CONFIGS[name];
    const tensors = huggingFaceTensors(await syntheticModel(config), options);
    const { program, unused } = await buildProgram(headerOnly('huggingface', name, tensors, { config }));
    const placed = validateProgram(lower(program, { device: 'cpu' }), OPS);
    expect(unused).toEqual([]);
    await expect(printProgram(placed)).toMatchFileSnapshot(`./${name}.${kind}.txt`);
  });
});
