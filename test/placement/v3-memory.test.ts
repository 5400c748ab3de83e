/**
 * All of DeepSeek-V3 in Q4_K_M but its routed experts, and a context, in the memory of one card: 8k in 14 GB, 128k in 24 GB. From
 * headers alone, all that lies there counted; test/gpu/memory.test.ts holds the counting against a driver.
 */
import { beforeAll, describe, expect, it } from 'vitest';
import { decidePlacement } from '../../src/engine/auto-place.ts';
import { memoryFor } from '../../src/engine/gpus.ts';
import { readRules } from '../../src/engine/rules.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS } from '../../src/models/public-configs.ts';
import { headerCheckpoint } from '../../src/models/synthesize.ts';
import { describedMachine } from '../../src/placement/described-machine.ts';
import { memoryByDevice } from '../../src/placement/device-memory.ts';
import { usableOf } from '../../src/placement/fit.ts';
import { lowerBoth } from '../../src/placement/phases.ts';
import { plan } from '../../src/placement/plan.ts';
import { parseProfile } from '../../src/placement/profile.ts';
import type { Program } from '../../src/program/program.ts';

const GB = 1e9;
const ROWS = { maxRows: 2048, maxOutputs: 64 };
let v3: Program;
beforeAll(async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v3'], { name: 'v3', mix: 'q4_k_m' });
  v3 = (await buildProgram(checkpoint)).program;
});

const machine = (card: number) =>
  parseProfile(
    {
      cpu: { isa: 'amx', tiles: 'amx', cores: 64 },
      memory: { bytes: 512 * GB, bandwidth: 600 * GB },
      gpus: [{ device: 'cuda:0', memoryBytes: card, bandwidth: 1008 * GB, bf16: 150e12 }],
    },
    'test',
  );

describe.each([
  [14 * GB, 8192],
  [24 * GB, 131072],
])('a card of %i bytes and %i tokens', (card, context) => {
  it('the plan places it so', () => {
    const { fit } = plan(v3, machine(card), { context });
    expect(fit).toMatchObject({ kind: 'hybrid', fits: 'memory', context });
    expect(fit.vram).toBeLessThanOrEqual(usableOf(card));
  });

  it.each(['automatic', 'one-gpu'])('so does load, %s, and all that lies there is counted', async (by) => {
    const profile = machine(card);
    const described = describedMachine(profile);
    const request = { available: 500 * GB, contextLength: context, maxRows: ROWS.maxRows };
    const rules = by === 'automatic' ? decidePlacement(v3, described, request).rules : await readRules(by);
    const placed = lowerBoth(v3, described, { rules });
    const onCard = placed.steps.filter(({ placement }) => placement!.device === 'cuda:0');
    expect(new Set(onCard.map(({ op }) => op))).toContain('mla');
    expect(onCard.some(({ op }) => op === 'experts')).toBe(false);
    const memory = memoryFor(placed, described, { ...request, ...ROWS, modelContext: v3.contextLength });
    expect(memory.contextLength).toBe(context);
    const [held] = memoryByDevice(placed, { pages: memory.pages, ...ROWS }).filter(({ device }) => device === 'cuda:0');
    expect(held.kernels).toBeGreaterThan(128 * 2 ** 20);
    expect(held.buffers).toBeGreaterThan(0.5 * GB);
    expect(memory.pages * v3.kv.pageTokens).toBeGreaterThanOrEqual(context);
    expect(held.weights).toBeGreaterThan(9 * GB);
    expect(held.total).toBeLessThanOrEqual(usableOf(card));
  });
});
