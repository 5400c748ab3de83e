/** What `load` decides by itself: where steps go within a budget, and what it refuses before anything is loaded. */
import { beforeAll, describe, expect, it } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { decidePlacement, placeAutomatically } from '../../src/engine/auto-place.ts';
import { load } from '../../src/index.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import type { Program } from '../../src/program/program.ts';

const GB = 1e9;
let lite: Program;
beforeAll(async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v2-lite'], { name: 'lite', mix: 'q4_k_m' });
  lite = (await buildProgram(checkpoint)).program;
});

const request = { available: 64 * GB, maxRows: 2048 };
const cards = (...memory: (number | undefined)[]) => ({
  device: 'cpu' as const,
  devices: [{ name: 'cpu' }, ...memory.map((bytes, i) => ({ name: `cuda:${i}`, memory: bytes }))],
});

describe('the automatic placement', () => {
  it('leaves a machine without GPUs alone, as it does GPUs that do not say what they hold', () => {
    expect(placeAutomatically(lite, { device: 'cpu' }, request)).toEqual([]);
    expect(placeAutomatically(lite, cards(undefined), request)).toEqual([]);
  });

  it('fills GPUs within the budget', () => {
    expect(decidePlacement(lite, cards(24 * GB), request).fit).toMatchObject({ kind: 'gpu' });
    const { fit, rules } = decidePlacement(lite, cards(24 * GB), { ...request, vram: 6 * GB, contextLength: 8192 });
    expect(fit).toMatchObject({ kind: 'hybrid', context: 8192 });
    expect(fit.vram).toBeLessThanOrEqual(6 * GB);
    expect(rules.every(({ origin }) => origin.startsWith('automatic: '))).toBe(true);
    expect(decidePlacement(lite, cards(24 * GB), { ...request, vram: 0 }).rules).toEqual([]);
  });

  it('refuses with numbers', () => {
    expect(() => placeAutomatically(lite, { device: 'cpu' }, { ...request, available: 0.5 * GB })).toThrow(
      /^\[placement\] this model needs 1\d\.\d GB RAM \(\d\.\d+ GB with the experts on the disk\) for a context of 512 tokens; you have 500 MB RAM; /,
    );
  });
});

describe.skipIf(nativeProblem())('load', () => {
  it('refuses a budget that cannot hold the model, before it reads weights', async () => {
    await expect(
      load(undefined, { memory: 3e6, contextLength: 64, onProgress: () => expect.unreachable() }),
    ).rejects.toMatchObject({
      code: 'PLACEMENT_IMPOSSIBLE',
      message: expect.stringMatching(/^\[placement\] this model needs \d+ MB RAM .*; you have 3 MB RAM; /),
    });
  });

  it('takes budgets for what they are', async () => {
    await expect(load(undefined, { vram: -1 })).rejects.toThrow(/vram is .*1/);
    await using engine = await load(undefined, { vram: 1e9, memory: 1e9, contextLength: 64 });
    expect(engine.info.contextLength).toBe(64);
  });
});
