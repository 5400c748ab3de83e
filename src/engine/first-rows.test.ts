import { expect, test } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import { lower } from '../placement/lower.ts';
import { tileRule } from '../placement/tiles.ts';
import { firstRows } from './first-rows.ts';

test('a prompt of 512 is one pass of V2-Lite on two threads with tiles, a few without, many of V3', async () => {
  const program = async (name: 'deepseek-v2-lite' | 'deepseek-v3') =>
    (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' }))).program;
  const lite = await program('deepseek-v2-lite');
  const fast = lower(lite, { device: 'cpu', tiles: tileRule('amx') });
  expect(firstRows(fast, { isa: 'amx', threads: 2 }, 1500)).toBeGreaterThan(512);
  const plain = firstRows(lite, { isa: 'avx512', threads: 2 }, 1500);
  expect(plain).toBeGreaterThan(128);
  expect(plain).toBeLessThan(512);
  expect(firstRows(await program('deepseek-v3'), { isa: 'avx512', threads: 2 }, 1500)).toBeLessThan(16);
  expect(firstRows(lite, {}, 1500)).toBeLessThan(16);
});
