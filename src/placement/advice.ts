/** Which of several quantizations to take on a machine, or that none is worth it there, and what would change that. */
import type { Program } from '../program/program.ts';
import { gigabytes } from './fit.ts';
import { type Plan, type PlanRequest, plan } from './plan.ts';
import type { MachineProfile } from './profile.ts';

/** One quantization among several. */
export interface Candidate {
  readonly quant: string;
  readonly plan: Plan;
}

export interface Advice {
  /** Of the candidates; absent where none gives a token a second. */
  readonly quant?: string;
  readonly why: string;
  /** Where none is advised, or from the disk alone: the fastest that runs at all. */
  readonly runs?: string;
}

/** Tokens per second that are as fast as people read. */
export const READING = 8;
/** Below this nobody waits for an answer. */
export const USABLE = 1;
/** Bits per weight from which quality hardly gains, and below which each bit shows. */
const ENOUGH = 6.7;
const FEW = 4;

/**
 * The most bits, up to about 6.5 a weight, that are in memory and as fast as people read; where none is, the fastest of at
 * least four bits; where memory has less room than that, or less speed than a token a second, the most bits that give one.
 * From the disk only where nothing fits, and nothing at all where the best of it is slower than a token a second.
 */
export function advise(candidates: readonly Candidate[]): Advice {
  if (candidates.length === 0) return { why: 'there is nothing to choose from' };
  const inMemory = candidates.filter(({ plan }) => plan.fit.fits === 'memory');
  const usable = inMemory.filter(({ plan }) => rate(plan) >= USABLE);
  const good = usable.filter(({ plan }) => plan.bitsPerWeight >= FEW);
  const fluent = good.filter(({ plan }) => plan.bitsPerWeight <= ENOUGH && rate(plan) >= READING);
  if (fluent.length > 0) {
    const { quant, plan } = best(fluent, bits);
    return { quant, why: `the most bits (${bitsOf(plan)}) that answer as fast as people read` };
  }
  if (good.length > 0) {
    const { quant, plan } = best(good, ({ plan }) => rate(plan));
    const slow = rate(plan) < READING ? ', though slower than people read' : '';
    return { quant, why: `the fastest with four bits or more (${bitsOf(plan)})${slow}` };
  }
  if (usable.length > 0) {
    const { quant, plan } = best(usable, bits);
    const more = usable.length < inMemory.length ? 'answer at a token a second' : 'fit';
    return {
      quant,
      why: `the most bits (${bitsOf(plan)}) that ${more}; below four bits answers get worse with each bit`,
    };
  }
  const runs = candidates.filter(({ plan }) => plan.fit.fits !== 'no');
  if (runs.length === 0) return { why: noneFits(candidates) };
  const { quant, plan } = best(runs, ({ plan }) => rate(plan));
  const from = plan.fit.fits === 'memory' ? 'each token reads more than its memory delivers in time' : onDisk(plan);
  return { ...(rate(plan) >= USABLE && { quant }), runs: quant, why: from };
}

function onDisk({ weightBytes, fit }: Plan): string {
  return `experts would be read from the disk for each token (${gigabytes(weightBytes)} of weights, ${haveOf(fit)})`;
}

function noneFits(candidates: readonly Candidate[]): string {
  const { quant, plan } = best(candidates, ({ plan }) => -plan.fit.leastRam);
  const which = candidates.length > 1 ? `even ${quant}` : 'it';
  const { fit } = plan;
  if (fit.leastRam <= fit.ramLimit) return fit.reason; // not memory: rules put too much on a card
  const routed = fit.leastRam < fit.ram;
  return `${which} needs ${gigabytes(fit.leastRam)} of memory${routed ? ', its experts on the disk' : ''}; there are ${haveOf(fit)}`;
}

function haveOf({ ramLimit, vramLimit }: Plan['fit']): string {
  return `${gigabytes(ramLimit)} of memory${vramLimit > 0 ? ` and ${gigabytes(vramLimit)} of VRAM` : ''}`;
}

/** Memory with which a quantization would not touch the disk, and what it then gives. */
export interface EnoughMemory {
  readonly quant: string;
  readonly ram: number;
  readonly tokensPerSecond: number;
}

/** A context to hold a conversation in, where nobody asks for another. */
const CONVERSATION = 8192;

/** For the smallest quantization and the smallest of at least four bits, on a machine of this bandwidth: ascending; none where a card is too small. */
export function enoughMemory(
  candidates: readonly (Candidate & { readonly program: Program })[],
  profile: MachineProfile,
  request: PlanRequest,
): EnoughMemory[] {
  const { container: _, ...host } = profile;
  const roomy = { ...host, memory: { ...profile.memory, bytes: ENDLESS, available: ENDLESS } };
  const smallest = (from: readonly (Candidate & { readonly program: Program })[]) =>
    from.length === 0 ? [] : [best(from, ({ plan }) => -plan.weightBytes)];
  const chosen = new Set([
    ...smallest(candidates),
    ...smallest(candidates.filter(({ plan }) => plan.bitsPerWeight >= FEW)),
  ]);
  return [...chosen].flatMap(({ quant, program }) => {
    const context = request.context ?? Math.min(CONVERSATION, program.contextLength);
    const made = plan(program, roomy, { ...request, ram: undefined, context });
    return made.fit.fits === 'no' ? [] : [{ quant, ram: made.fit.ram, tokensPerSecond: rate(made) }];
  });
}

/** More than any machine has. */
const ENDLESS = 2 ** 50;

/** Limits of the request without which a quantization would be advised, with that advice. */
export function looserLimits(
  sized: readonly { readonly quant: string; readonly program: Program }[],
  profile: MachineProfile,
  request: PlanRequest,
): { readonly limit: keyof PlanRequest; readonly candidate: Candidate }[] {
  return LIMITS.flatMap((limit) => {
    if (request[limit] === undefined) return [];
    const looser = { ...request, [limit]: undefined };
    const candidates = sized.map(({ quant, program }) => ({ quant, plan: plan(program, profile, looser) }));
    const { quant, runs } = advise(candidates);
    const candidate = runs === undefined ? candidates.find((one) => one.quant === quant) : undefined;
    return candidate ? [{ limit, candidate }] : [];
  });
}

const LIMITS = ['context', 'ram', 'vram', 'rules'] as const satisfies readonly (keyof PlanRequest)[];

function best<T extends Candidate>(candidates: readonly T[], measure: (candidate: T) => number): T {
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
