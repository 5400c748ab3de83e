import { expect, test } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import { activeWeights } from './active-weights.ts';
import { lower } from './lower.ts';
import { tileRule } from './tiles.ts';
import { worthwhileRows, worthwhileRowsOf } from './worthwhile-rows.ts';

const program = async (name: keyof typeof PUBLIC_CONFIGS) =>
  (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' }))).program;
const fast = { device: 'cpu', tiles: tileRule('avx512-bf16') } as const;

test('four fifths of the products belong to the rows', async () => {
  const lite = lower(await program('deepseek-v2-lite'), fast);
  const rows = worthwhileRowsOf(lite);
  expect(rows(0)).toBe(0);
  for (const position of [512, 8192, 65536]) {
    const expansion = 27 * 16 * 512 * (128 + 128) * position;
    const rest = rows(position) * (activeWeights(lite) + 27 * 16 * (128 + 64 + 128) * position);
    expect(rest / (rest + expansion)).toBeCloseTo(0.8, 6);
  }
  expect(rows(8192)).toBeGreaterThan(400);
});

test('none where nothing is expanded: exact mode, grouped queries', async () => {
  expect(worthwhileRowsOf(lower(await program('deepseek-v2-lite'), fast, { exact: true }))(8192)).toBe(0);
  expect(worthwhileRowsOf(lower(await program('qwen3-30b-a3b'), fast))(8192)).toBe(0);
  expect(worthwhileRows([], 1e9)(8192)).toBe(0);
});
