/** What `load` decides by itself: where steps go within a budget, and what it refuses before anything is loaded. */
import { beforeAll, describe, expect, it } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { checkPlaced, decidePlacement, placeAutomatically } from '../../src/engine/auto-place.ts';
import { load } from '../../src/index.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { lowerBoth } from '../../src/placement/phases.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import type { Program } from '../../src/program/program.ts';

const GB = 1e9;
const messageOf = (run: () => void): string => {
  try {
    run();
  } catch (error) {
    return (error as Error).message;
  }
  return '';
};
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

describe('rules of users that put too much on a device', () => {
  const WANTED = { ...request, maxOutputs: 64 };
  const DENSE = { place: { device: 'cuda:0' } };
  const placed = (...rules: RuleDescription[]) => lowerBoth(lite, cards(24 * GB), { rules: parseRules(rules) });
  const everything = () => placed({ match: { op: ['embed', 'sample'] }, place: { device: 'cpu' } }, DENSE);
  const experts = (layers: string) =>
    placed(
      { match: { op: ['embed', 'sample'] }, place: { device: 'cpu' } },
      { match: { op: 'experts', layers }, place: { device: 'cuda:0' } },
      { match: { op: 'experts' }, place: { device: 'cpu' } },
      DENSE,
    );

  it('are refused with numbers, the rule that does most, and what would fit', () => {
    expect(() => checkPlaced(everything(), cards(24 * GB), WANTED)).not.toThrow();
    const refused =
      /^\[placement\] what lies on cuda:0 fits its 8\.00 GB; rules\[1\] puts 10\.\d GB there; weights 10\.\d GB, buffers \d+ MB, cache 16 MB \(512 tokens\); place the experts of (\d+) instead of 26 layers there, or take a shorter context$/;
    const message = messageOf(() => checkPlaced(everything(), cards(8 * GB), WANTED));
    expect(message).toMatch(refused);
    const fitting = Number(refused.exec(message)![1]);
    expect(() => checkPlaced(experts(`1-${fitting}`), cards(8 * GB), WANTED)).not.toThrow();
    expect(() => checkPlaced(experts(`1-${fitting + 2}`), cards(8 * GB), WANTED)).toThrow('rules[1]');
  });

  it('count a context that is asked for, and the budget of all GPUs', () => {
    const machine = cards(12 * GB);
    expect(() => checkPlaced(everything(), machine, WANTED)).not.toThrow();
    expect(() => checkPlaced(everything(), machine, { ...WANTED, contextLength: 60_000 })).toThrow(/cache 1\.\d+ GB/);
    expect(() => checkPlaced(everything(), machine, { ...WANTED, vram: 9 * GB })).toThrow(
      'what lies on cuda:0 is within the budget of 9.00 GB for GPUs',
    );
    const two = lowerBoth(lite, cards(9 * GB, 9 * GB), {
      rules: parseRules([{ place: { device: 'cuda:{layer * gpus / layers}' } }]),
    });
    expect(() => checkPlaced(two, cards(9 * GB, 9 * GB), WANTED)).not.toThrow();
    expect(() => checkPlaced(two, cards(9 * GB, 9 * GB), { ...WANTED, vram: 10 * GB })).toThrow('what lies on cuda:1');
  });

  it('on the processor experts may stay on the disk, all else may not', () => {
    const here = placed({ place: { device: 'cpu' } });
    expect(() => checkPlaced(here, cards(24 * GB), { ...WANTED, available: 3 * GB })).not.toThrow();
    expect(() => checkPlaced(here, cards(24 * GB), { ...WANTED, available: 0.5 * GB })).toThrow(
      'what lies on cpu fits its 500 MB',
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
