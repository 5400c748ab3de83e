/** Which quantization is advised, when none is, and what is said to help. */
import { beforeAll, describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import type { QuantMix } from '../models/quant-mix.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { advise, type Candidate, enoughMemory, looserLimits } from './advice.ts';
import { type PlanRequest, plan } from './plan.ts';
import { type MachineProfile, parseProfile } from './profile.ts';

const GB = 1e9;
const MIXES: readonly QuantMix[] = ['bf16', 'q8_0', 'q6_k', 'q4_k_m', 'q3_k', 'iq2_xxs', 'iq1_s'];

/** A server without a card that has so much memory, of a bandwidth. */
const withMemory = (bytes: number, { bandwidth = 614 * GB, cpu = { isa: 'amx', tiles: 'amx', cores: 64 } } = {}) =>
  parseProfile({ cpu, memory: { bytes, available: bytes, bandwidth }, disk: { bandwidth: 5 * GB } }, 'test');
const DESK = { bandwidth: 60 * GB, cpu: { isa: 'avx2', tiles: '', cores: 8 } };

let v3: { quant: string; program: Program }[];
beforeAll(async () => {
  v3 = await Promise.all(
    MIXES.map(async (quant) => {
      const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v3'], { name: 'v3', mix: quant });
      return { quant, program: (await buildProgram(checkpoint)).program };
    }),
  );
});
const on = (machine: MachineProfile, request: PlanRequest = { context: 4096 }) =>
  v3.map(({ quant, program }) => ({ quant, program, plan: plan(program, machine, request) }));
const rate = ({ plan: { decode } }: Candidate) => decode!.tokensPerSecond.expected;

describe('advice', () => {
  it('the most bits that are fluent; fewer where memory is short', () => {
    expect(advise(on(withMemory(2000 * GB)))).toEqual({ quant: 'q6_k', why: expect.stringMatching(/6\.\d a weight/) });
    expect(advise(on(withMemory(450 * GB))).quant).toBe('q4_k_m');
    expect(advise(on(withMemory(350 * GB)))).toEqual({
      quant: 'q3_k',
      why: expect.stringMatching(/that fit; below four bits/),
    });
  });

  it('where nothing is fluent, the fastest of four bits or more, and that it is slow', () => {
    expect(advise(on(withMemory(2000 * GB, DESK)))).toEqual({
      quant: 'q4_k_m',
      why: expect.stringMatching(/, though slower than people read$/),
    });
  });

  it('from the disk where nothing fits: the fastest, if it gives a token a second; else none', () => {
    const why = expect.stringMatching(
      /^experts would be read from the disk for each token \(141 GB of weights, \d+(\.\d)? GB of memory\)$/,
    );
    expect(advise(on(withMemory(100 * GB)))).toEqual({ quant: 'iq1_s', runs: 'iq1_s', why });
    const little = on(withMemory(24 * GB, DESK));
    expect(rate(little.find(({ quant }) => quant === 'iq1_s')!)).toBeLessThan(1);
    expect(advise(little)).toEqual({ runs: 'iq1_s', why });
    expect(advise(on(withMemory(4 * GB)))).toEqual({
      why: expect.stringMatching(
        /^even \w+ needs 1\d\.\d GB of memory, its experts on the disk; there are 4\.00 GB of memory$/,
      ),
    });
    expect(advise([])).toEqual({ why: 'there is nothing to choose from' });
  });

  it('in memory that is too slow: fewer bits that give a token a second; else none', () => {
    const all = on(withMemory(2000 * GB, { ...DESK, bandwidth: 24 * GB }));
    const [most, , , four, , , least] = all;
    expect(rate(four)).toBeLessThan(1);
    expect(advise([most, four])).toEqual({ runs: 'q4_k_m', why: expect.stringMatching(/reads more than its memory/) });
    const { decode, ...rest } = least.plan;
    const tokensPerSecond = { low: 1, expected: 1.2, high: 1.5 };
    const faster = { ...least, plan: { ...rest, decode: { ...decode!, tokensPerSecond } } };
    expect(advise([most, four, faster])).toEqual({
      quant: 'iq1_s',
      why: expect.stringMatching(/that answer at a token a second; below four bits/),
    });
  });
});

describe('what would do', () => {
  it('memory: with what is said to be enough it fits, with a hundredth less it does not', () => {
    const machine = withMemory(24 * GB);
    const found = enoughMemory(on(machine), machine, { context: 4096 });
    expect(found.map(({ quant }) => quant)).toEqual(['iq1_s', 'q4_k_m']);
    for (const { quant, ram, tokensPerSecond } of found) {
      const fits = (bytes: number) => on(withMemory(bytes)).find((one) => one.quant === quant)!;
      expect(fits(ram).plan.fit.fits).toBe('memory');
      expect(rate(fits(ram))).toBeCloseTo(tokensPerSecond, 6);
      expect(fits(ram * 0.99).plan.fit.fits).toBe('disk');
    }
  });

  it('limits of the request, where it is they that stand in the way', () => {
    const machine = withMemory(512 * GB);
    expect(looserLimits(v3, machine, { ram: 16 * GB })).toMatchObject([
      { limit: 'ram', candidate: { quant: 'q4_k_m' } },
    ]);
    expect(looserLimits(v3, machine, { context: 4096 })).toMatchObject([{ limit: 'context' }]);
    expect(looserLimits(v3, withMemory(24 * GB, DESK), { ram: 16 * GB, context: 4096 })).toEqual([]);
    expect(looserLimits(v3, machine, {})).toEqual([]);
  });
});
