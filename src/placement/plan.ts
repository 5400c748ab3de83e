/**
 * What a machine makes of a model before anything is loaded: whether it fits, where it goes, how fast it will be, and
 * which of several quantizations to take.
 */
import { type Fit, type FitRequest, fitModel, gigabytes, roomOf } from './fit.ts';
import { PASS, type PassSize, type Prediction, predictDecode, predictPrefill, type Range } from './predict.ts';
import { type MachineProfile, threadsOf } from './profile.ts';
import type { Sizes } from './sizes.ts';

export interface PlanRequest extends FitRequest {
  /** Tokens of the prompt that prefill is predicted for, and after which decode is; default 512. */
  readonly prompt?: number;
  /** A fresh one for each model. */
  readonly passSize?: () => PassSize;
}

/** Bytes, seconds, tokens per second. */
export interface Plan {
  readonly fit: Fit;
  /** Of all weights. */
  readonly weightBytes: number;
  readonly bitsPerWeight: number;
  /** From the disk to the first token; absent where the disk's speed is not known. */
  readonly loadSeconds?: number;
  /** Absent where it does not fit. */
  readonly decode?: Prediction;
  readonly prefill?: Prediction & { readonly rows: number; readonly streamed: boolean };
  /** What limits decode. */
  readonly bottleneck: string;
  readonly prompt: number;
  readonly threads: number;
}

const PROMPT = 512;

export function plan(sizes: Sizes, profile: MachineProfile, request: PlanRequest = {}): Plan {
  const found = fitModel(sizes, roomOf(profile), { rows: PASS.rows, ...request });
  const prompt = Math.min(request.prompt ?? PROMPT, found.context);
  const common = {
    fit: found,
    weightBytes: sizes.weightBytes,
    bitsPerWeight: (sizes.weightBytes * 8) / sizes.parameters,
    prompt,
    threads: threadsOf(profile),
  };
  if (found.fits === 'no') return { ...common, bottleneck: 'memory is too small' };
  const decode = predictDecode(sizes, profile, found, { context: prompt });
  const loaded = found.fits === 'memory' ? sizes.weightBytes : sizes.weightBytes - sizes.routedBytes;
  return {
    ...common,
    ...(profile.disk && { loadSeconds: loaded / profile.disk.bandwidth }),
    decode,
    prefill: predictPrefill(sizes, profile, found, { prompt, rows: request.rows, passSize: request.passSize?.() }),
    bottleneck: decode.bottleneck,
  };
}

/** One quantization among several. */
export interface Candidate {
  readonly quant: string;
  readonly plan: Plan;
}

export interface Advice {
  /** Of the candidates; absent where none runs. */
  readonly quant?: string;
  readonly why: string;
}

/** Tokens per second that are as fast as people read. */
const READING = 8;
/** Bits per weight from which quality hardly gains, and below which each bit shows. */
const ENOUGH = 6.7;
const FEW = 4;

/**
 * The most bits, up to about 6.5 a weight, that are in memory and as fast as people read; where none is, the fastest of at
 * least four bits; where memory has less room than that, the most bits that fit. From the disk only where nothing fits.
 */
export function advise(candidates: readonly Candidate[]): Advice {
  const inMemory = candidates.filter(({ plan }) => plan.fit.fits === 'memory');
  const good = inMemory.filter(({ plan }) => plan.bitsPerWeight >= FEW);
  const fluent = good.filter(({ plan }) => plan.bitsPerWeight <= ENOUGH && rate(plan) >= READING);
  if (fluent.length > 0)
    return chosen(
      best(fluent, bits),
      ({ plan }) => `the most bits (${bitsOf(plan)}) that answer as fast as people read`,
    );
  if (good.length > 0)
    return chosen(best(good, ({ plan }) => rate(plan)), ({ plan }) => `the fastest with four bits or more (${bitsOf(plan)})`); // biome-ignore format: one thought a line
  if (inMemory.length > 0)
    return chosen(best(inMemory, bits), ({ plan }) => `the most bits (${bitsOf(plan)}) that fit; below four bits answers get worse with each bit`); // biome-ignore format: one thought a line
  const onDisk = candidates.filter(({ plan }) => plan.fit.fits === 'disk');
  if (onDisk.length > 0)
    return chosen(best(onDisk, ({ plan }) => rate(plan)), ({ plan }) => `none fits the memory; this one is the fastest with its experts on the disk (all of it needs ${gigabytes(plan.fit.ram)})`); // biome-ignore format: one thought a line
  const smallest = candidates.reduce<Candidate | undefined>(
    (a, b) => (a === undefined || b.plan.fit.leastRam < a.plan.fit.leastRam ? b : a),
    undefined,
  );
  if (!smallest) return { why: 'there is nothing to choose from' };
  const { leastRam, ramLimit } = smallest.plan.fit;
  return { why: `none fits: ${smallest.quant} needs ${gigabytes(leastRam)} of memory at least, ${gigabytes(ramLimit)} are available` }; // biome-ignore format: one thought a line
}

function chosen(candidate: Candidate, why: (candidate: Candidate) => string): Advice {
  return { quant: candidate.quant, why: why(candidate) };
}

function best(candidates: readonly Candidate[], measure: (candidate: Candidate) => number): Candidate {
  return candidates.reduce((a, b) => (measure(b) > measure(a) ? b : a));
}

function bits({ plan }: Candidate): number {
  return plan.bitsPerWeight;
}

function bitsOf({ bitsPerWeight }: Plan): string {
  return `${bitsPerWeight.toFixed(1)} a weight`;
}

function rate({ decode }: Plan): number {
  return decode?.tokensPerSecond.expected ?? 0;
}

export type { Range };
