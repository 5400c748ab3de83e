/**
 * Where the parts of a model go on a machine and whether they fit: the decision behind the automatic placement and behind
 * `tandem plan`. Arithmetic over sizes and a profile; nothing is allocated.
 */
import { TandemError } from '../errors.ts';
import { PAGE_TOKENS } from '../program/program.ts';
import { gpuWorkBytes } from './gpu-memory.ts';
import { availableOf, type MachineProfile, usedGpus } from './profile.ts';
import type { Sizes } from './sizes.ts';

export interface FitRequest {
  /** Tokens that one sequence must reach; default: what the model has, as far as memory goes. */
  readonly context?: number;
  /** Most bytes of memory, and of all GPUs together; default: what is available. */
  readonly ram?: number;
  readonly vram?: number;
  /** Most rows of a pass. */
  readonly rows?: number;
}

/** All sizes in bytes. */
export interface Fit {
  /** `cpu`: everything; `hybrid`: experts on the processor, all else on GPUs; `gpu`: everything. */
  readonly kind: 'cpu' | 'hybrid' | 'gpu';
  /** Share of the experts of the processor that its memory holds; the rest is read from the disk. */
  readonly inMemory: number;
  /** `memory`: all of it; `disk`: it runs, with experts read from the disk again and again; `no`: it does not. */
  readonly fits: 'memory' | 'disk' | 'no';
  /** With all weights in memory; the limit it is held against. */
  readonly ram: number;
  readonly ramLimit: number;
  readonly vram: number;
  readonly vramLimit: number;
  /** Below this it does not run: experts on the disk. */
  readonly leastRam: number;
  /** Tokens of one sequence. */
  readonly context: number;
  readonly kv: number;
  /** Layers with experts that the GPUs hold, the first ones. */
  readonly gpuLayers: number;
  /** Why so, for people. */
  readonly reason: string;
}

/** Of a card, kept free: for its driver, for others, for what grows. */
const HEADROOM = { share: 0.05, bytes: 0.5e9 };
/** Outputs of a pass; logits are held for so many rows. */
export const OUTPUTS = 64;
/** Rows of a pass that a plan counts buffers for. */
export const ROWS = 2048;
/** Of what weights leave, the most that the cache takes when nobody says how long a context is to be; of memory that experts want whole. */
export const CACHE_SHARE = { left: 0.5, all: 0.125 };
/** Shortest context that a model is said to run with when nobody asks for another. */
export const LEAST_CONTEXT = 512;

/** What a machine has room for, in bytes: of its memory, and of each card. */
export interface Room {
  readonly ram: number;
  readonly cards: readonly number[];
}

export function roomOf(profile: MachineProfile): Room {
  return { ram: availableOf(profile), cards: usedGpus(profile).map(({ memoryBytes }) => memoryBytes) };
}

/** REQUEST_INVALID for a context that the model does not have. */
export function fitModel(sizes: Sizes, room: Room, request: FitRequest = {}): Fit {
  checkContext(sizes, request);
  const limits = limitsOf(room, request);
  const buffers = sizes.bufferPerRow * (request.rows ?? ROWS) + sizes.bufferPerOutput * OUTPUTS;
  if (limits.vram > 0) {
    const placed = withGpu(sizes, request, limits, buffers);
    if (placed) return placed;
  }
  const note = limits.vram > 0 ? `dense weights and cache exceed the ${gigabytes(limits.vram)} of VRAM: ` : '';
  return onProcessor(sizes, request, limits, buffers, note);
}

function checkContext({ contextLength }: Sizes, { context }: FitRequest): void {
  if (context === undefined || (Number.isInteger(context) && context >= 1 && context <= contextLength)) return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'placement',
    rule: `the context is 1 to ${contextLength} tokens`,
    given: `${context} were asked for`,
  });
}

export interface Limits {
  readonly ram: number;
  readonly vram: number;
}

/** Of what there is what a plan may fill. */
export function limitsOf({ ram, cards }: Room, request: FitRequest): Limits {
  const all = cards.reduce((sum, bytes) => sum + usableOf(bytes), 0);
  return { ram: Math.min(ram, request.ram ?? Infinity), vram: Math.min(all, request.vram ?? Infinity) };
}

function onProcessor(sizes: Sizes, request: FitRequest, limits: Limits, buffers: number, note: string): Fit {
  const least = sizes.weightBytes - sizes.routedBytes + buffers;
  const memory = contextFor(sizes, request, limits.ram - least, CACHE_SHARE.all);
  const ram = sizes.weightBytes + buffers + memory.kv;
  const leastRam = least + memory.kv;
  const spare = limits.ram - leastRam;
  const fits = ram <= limits.ram ? 'memory' : sizes.routedBytes > 0 && spare >= 0 ? 'disk' : 'no';
  const reason =
    fits === 'memory'
      ? `${note}all ${gigabytes(sizes.weightBytes)} of weights lie in memory`
      : fits === 'disk'
        ? `${note}${gigabytes(sizes.routedBytes)} of experts exceed what is left of memory (${gigabytes(spare)}): the rest is read from the disk`
        : `${note}it needs ${gigabytes(sizes.routedBytes > 0 ? leastRam : ram)} of memory at least, ${gigabytes(limits.ram)} are available`;
  return {
    kind: 'cpu',
    gpuLayers: 0,
    inMemory: fits === 'memory' || sizes.routedBytes === 0 ? 1 : clamp(spare / sizes.routedBytes),
    fits,
    ram,
    ramLimit: limits.ram,
    vram: 0,
    vramLimit: limits.vram,
    leastRam,
    ...memory,
    reason,
  };
}

/** Dense weights and the cache on the GPUs, experts as far as there is room; undefined where the dense ones exceed it. */
function withGpu(sizes: Sizes, request: FitRequest, limits: Limits, buffers: number): Fit | undefined {
  const table = sizes.matrices.reduce((sum, { role, bytes }) => sum + (role === 'embed' ? bytes : 0), 0);
  const dense = sizes.weightBytes - sizes.routedBytes - table;
  const pass = { maxRows: request.rows ?? ROWS, maxOutputs: OUTPUTS, context: request.context ?? sizes.contextLength };
  const held = dense + buffers + gpuWorkBytes(sizes.gpuWorks, pass, PAGE_TOKENS);
  const memory = contextFor(sizes, request, limits.vram - held, CACHE_SHARE.left);
  const base = held + memory.kv;
  if (base > limits.vram || memory.context < (request.context ?? Math.min(LEAST_CONTEXT, sizes.contextLength)))
    return undefined;
  const layer = sizes.moeLayers === 0 ? 0 : sizes.routedBytes / sizes.moeLayers;
  const gpuLayers = layer === 0 ? 0 : Math.min(sizes.moeLayers, Math.floor((limits.vram - base) / layer));
  const kept = sizes.routedBytes - gpuLayers * layer;
  const leastRam = table + buffers;
  const ram = leastRam + kept;
  const spare = limits.ram - leastRam;
  const fits = ram <= limits.ram ? 'memory' : spare >= 0 ? 'disk' : 'no';
  const experts = gpuLayers === 0 ? 'no experts' : `the experts of ${gpuLayers} of ${sizes.moeLayers} layers`;
  const whole = kept === 0;
  return {
    kind: whole ? 'gpu' : 'hybrid',
    gpuLayers,
    inMemory: fits === 'memory' ? 1 : clamp(spare / kept),
    fits,
    ram,
    ramLimit: limits.ram,
    vram: base + gpuLayers * layer,
    vramLimit: limits.vram,
    leastRam,
    ...memory,
    reason: whole
      ? `all ${gigabytes(sizes.weightBytes)} fit the VRAM (${gigabytes(limits.vram)})`
      : `the VRAM (${gigabytes(limits.vram)}) holds dense weights, cache and ${experts}; ${gigabytes(kept)} of experts lie in memory${fits === 'memory' ? '' : ' as far as it goes'}`,
  };
}

/**
 * The context that was asked for, whatever there is; else the model's, clipped where the cache would take more than half
 * of what is left beside the routed experts, or the share `crowded` of all that is left where these do not fit.
 */
function contextFor(
  { kvBytesPerToken, contextLength, routedBytes }: Sizes,
  { context }: FitRequest,
  left: number,
  crowded: number,
): { context: number; kv: number } {
  const page = kvBytesPerToken * PAGE_TOKENS;
  const bytes = (tokens: number) => Math.ceil(tokens / PAGE_TOKENS) * page;
  if (context !== undefined) return { context, kv: bytes(context) };
  const free = left > routedBytes ? (left - routedBytes) * CACHE_SHARE.left : Math.max(0, left) * crowded;
  const fitting = page === 0 ? contextLength : Math.floor(free / page) * PAGE_TOKENS;
  const tokens = Math.max(Math.min(LEAST_CONTEXT, contextLength), Math.min(contextLength, fitting));
  return { context: tokens, kv: bytes(tokens) };
}

/** Bytes of a card that a plan may fill; Infinity of one that does not say what it has. */
export function usableOf(bytes: number): number {
  if (bytes === Infinity) return bytes;
  return Math.max(0, bytes - Math.max(bytes * HEADROOM.share, HEADROOM.bytes));
}

export function clamp(share: number): number {
  return Math.min(1, Math.max(0, share));
}

/** `382 GB`, `14.2 GB`: decimal, as disks and papers count. */
export function gigabytes(bytes: number): string {
  const value = Math.max(0, bytes) / 1e9;
  return value < 1 ? `${Math.round(value * 1000)} MB` : `${value >= 100 ? Math.round(value) : value.toPrecision(3)} GB`;
}
