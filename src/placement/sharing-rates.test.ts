/** What pays on a machine decides what is shared by itself; what was asked for by a number is done. */
import { beforeAll, describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { describedMachine } from './described-machine.ts';
import { planSharing, type SharingRequest, sharedLayers } from './expert-sharing.ts';
import { lower } from './lower.ts';
import { parseProfile } from './profile.ts';
import { parseRules } from './rules-file.ts';
import { withRates } from './sharing-rates.ts';

const GB = 1e9;
const REQUEST: SharingRequest = { hotExperts: 'auto', streamPrefill: 'auto', maxRows: 2048 };
const machine = (dram: number, gpu: number, pcie: number) =>
  parseProfile(
    {
      cpu: { isa: 'avx2', cores: 16 },
      memory: { bytes: 64 * GB, bandwidth: dram * GB, measured: true },
      gpus: [{ device: 'cuda:0', memoryBytes: 24 * GB, bandwidth: gpu * GB, bf16: 100e12, pcie: pcie * GB }],
    },
    'test',
  );
let program: Program;
beforeAll(async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v2-lite'], { name: 'lite', mix: 'q4_k_m' });
  ({ program } = await buildProgram(checkpoint));
});
const ratesOf = (profile: ReturnType<typeof machine>, request = REQUEST) => {
  const rules = parseRules([{ match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }]); // biome-ignore format: one line
  const placed = lower(program, describedMachine(profile), { rules });
  const layers = sharedLayers(placed);
  const wanted = withRates(placed, layers, profile, request);
  return { layers, wanted, plan: planSharing(layers, () => ({ free: 20 * GB, total: 24 * GB }), wanted) };
};

describe('what is known of a machine', () => {
  it('hits that pay an upload back: the memory of an expert over what a hit saves', () => {
    const [slow, fast] = [ratesOf(machine(60, 300, 25)), ratesOf(machine(60, 1000, 25))];
    expect(fast.wanted.payBack).toBeGreaterThan(0.3);
    expect(fast.wanted.payBack).toBeLessThan(slow.wanted.payBack!);
    expect(fast.plan.hot!.payBack).toBe(fast.wanted.payBack);
  });

  it('a card that reads no faster than the processor holds nothing by itself', () => {
    const { wanted, plan } = ratesOf(machine(200, 100, 25));
    expect(wanted.payBack).toBe(Infinity);
    expect(plan.hot).toBeUndefined();
    const asked = ratesOf(machine(200, 100, 25), { ...REQUEST, hotExperts: 2 }).plan.hot!;
    expect(asked.slots.some((slots) => slots === 2)).toBe(true);
    expect(asked.payBack).toBeUndefined();
  });

  it('a faster bus streams from fewer rows', () => {
    const [slow, fast] = [ratesOf(machine(60, 1000, 6)), ratesOf(machine(60, 1000, 50))];
    expect(fast.wanted.streamPays).toBeLessThan(slow.wanted.streamPays!);
    expect(fast.plan.stream!.from).toBe(fast.wanted.streamPays);
  });

  it('nothing known: the defaults', () => {
    expect(withRates(program, [], undefined, REQUEST)).toBe(REQUEST);
  });
});
