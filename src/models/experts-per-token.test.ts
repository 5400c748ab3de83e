import { beforeAll, describe, expect, test } from 'vitest';
import { OPS } from '../ops/index.ts';
import type { Program } from '../program/program.ts';
import { validateProgram } from '../program/validate.ts';
import { expertsPerToken, lossyWarning, withExpertsPerToken } from './experts-per-token.ts';
import { buildProgram } from './index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from './public-configs.ts';
import { headerCheckpoint } from './synthesize.ts';

async function programOf(name: PublicModel): Promise<Program> {
  return (await buildProgram(await headerCheckpoint(PUBLIC_CONFIGS[name], { name, mix: 'q4_k_m' }))).program;
}

describe('experts a token', () => {
  let deepseek: Program;
  beforeAll(async () => {
    deepseek = await programOf('deepseek-v3');
  });

  test('every router chooses so many, and the Program is still one', () => {
    expect(expertsPerToken(deepseek)).toBe(8);
    const fewer = withExpertsPerToken(deepseek, 4);
    expect(expertsPerToken(fewer)).toBe(4);
    const routers = fewer.steps.filter(({ op }) => op === 'router');
    expect(routers).toHaveLength(58);
    expect(routers.every(({ attributes }) => attributes.topk === 4)).toBe(true);
    expect(routers.flatMap(({ outputs }) => outputs).every((id) => fewer.values[id].columns === 4)).toBe(true);
    expect(() => validateProgram(fewer, OPS)).not.toThrow();
    expect(expertsPerToken(deepseek)).toBe(8);
  });

  test.each([0, -1, 2.5, 129, Number.NaN])('%d is out of bounds', (count) => {
    expect(() => withExpertsPerToken(deepseek, count)).toThrow(/from 1 to 128 \(deepseek-v3 was trained with 8\)/);
  });

  test('a dense model has none', async () => {
    const dense = await programOf('qwen3-0.6b');
    expect(expertsPerToken(dense)).toBeUndefined();
    expect(() => withExpertsPerToken(dense, 4)).toThrow(
      /is for models with routed experts; qwen3 has none; leave it out/,
    );
  });

  test('it is told what that means', () => {
    expect(lossyWarning(8, 8)).toBeUndefined();
    expect(lossyWarning(8, 6)).toBe('6 experts a token where the model was trained with 8: faster, and lossy');
    expect(lossyWarning(8, 10)).toMatch(/slower, and not what it was made for/);
  });
});
