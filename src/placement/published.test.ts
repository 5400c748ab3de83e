/** Whole predictions against published speeds of DeepSeek-V3 in Q4_K_M, and where a GPU takes the experts of a prompt. */
import { beforeAll, describe, expect, it } from 'vitest';
import { buildProgram } from '../models/index.ts';
import { PUBLIC_CONFIGS } from '../models/public-configs.ts';
import { headerCheckpoint } from '../models/synthesize.ts';
import type { Program } from '../program/program.ts';
import { describedMachine } from './described-machine.ts';
import { sharedLayers } from './expert-sharing.ts';
import { lower } from './lower.ts';
import { plan } from './plan.ts';
import { parseProfile } from './profile.ts';
import { parseRules } from './rules-file.ts';
import { streamingFrom } from './streaming-from.ts';

const GB = 1e9;
let v3: Program;
beforeAll(async () => {
  const checkpoint = await headerCheckpoint(PUBLIC_CONFIGS['deepseek-v3'], { name: 'v3', mix: 'q4_k_m' });
  v3 = (await buildProgram(checkpoint)).program;
});

/** One card of 1008 GB/s: a 4090 or 3090 Ti. */
const machine = (cpu: object, bandwidth: number) =>
  parseProfile(
    {
      cpu,
      memory: { bytes: 1024 * GB, bandwidth: bandwidth * GB },
      gpus: [{ device: 'cuda:0', memoryBytes: 24 * GB, bandwidth: 1008 * GB, bf16: 150e12 }],
    },
    'test',
  );
const AMX = { isa: 'amx', tiles: 'amx', cores: 64 };
const AVX512 = { isa: 'avx512', cores: 64 };

describe('published speeds are in the range that is predicted', () => {
  it.each<[string, object, number, { decode: number; prefill?: readonly number[] }]>([
    ['KTransformers, 2 × Xeon 6454S, 4090D, AMX', AMX, 614, { decode: 12.2, prefill: [255, 286] }],
    ['the same without AMX', AVX512, 614, { decode: 12.2 }],
    ['the same on one socket', { ...AVX512, cores: 32 }, 307, { decode: 8.7, prefill: [54] }],
    ['KTransformers, EPYC 7773X, 3090 Ti', { isa: 'avx2', cores: 64 }, 204.8, { decode: 8.7, prefill: [83] }],
    ['llama.cpp there', { isa: 'avx2', cores: 64 }, 204.8, { decode: 4.4 }],
  ])('%s', (_, cpu, bandwidth, published) => {
    const made = plan(v3, machine(cpu, bandwidth), { context: 8192 });
    const [decode, prefill] = [made.decode!.tokensPerSecond, made.prefill!.tokensPerSecond];
    expect(published.decode).toBeGreaterThan(decode.low);
    expect(published.decode).toBeLessThan(decode.high);
    for (const rate of published.prefill ?? []) {
      expect(rate).toBeGreaterThan(prefill.low);
      expect(rate).toBeLessThan(prefill.high);
    }
  });
});

describe('experts stream through a card', () => {
  const from = (cpu: object, most: number) => {
    const profile = machine(cpu, 200);
    const rules = parseRules([{ match: { op: ['experts', 'embed', 'sample'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }]); // biome-ignore format: one line
    const placed = lower(v3, describedMachine(profile), { rules });
    return streamingFrom(placed, sharedLayers(placed), profile, most);
  };

  it('from few rows on beside a slow processor, from more beside a fast one, never beside tiles', () => {
    const [slow, fast] = [from({ isa: 'avx2', cores: 8 }, 16384)!, from(AVX512, 16384)!];
    expect(slow).toBeGreaterThan(100);
    expect(slow).toBeLessThan(512);
    expect(fast).toBeGreaterThan(2048);
    expect(from(AVX512, 2048)).toBe(Infinity);
    expect(from(AMX, 16384)).toBe(Infinity);
  });

  it('is predicted where it is done: never slower than the processor alone', () => {
    const rate = (cpu: object, prompt: number) => plan(v3, machine(cpu, 200), { context: 16384, prompt }).prefill!;
    expect(rate({ isa: 'avx2', cores: 8 }, 2048).streamed).toBe(true);
    expect(rate({ isa: 'avx2', cores: 8 }, 64).streamed).toBe(false);
    expect(rate(AMX, 8192).streamed).toBe(false);
    expect(rate(AMX, 2048).tokensPerSecond.expected).toBeGreaterThan(rate(AMX, 512).tokensPerSecond.expected);
  });
});
