/**
 * Seconds that work takes on the processor of a profile: by what its kernels were measured to reach, else by the ceiling
 * of its memory and units times shares that kernels of this version reach (the one table below).
 */
import type { FormatName } from '../formats/dtype.ts';
import { quantFormat } from '../formats/quants/index.ts';
import { distinctExperts } from './physics.ts';
import { type MachineProfile, threadsOf } from './profile.ts';
import type { AttentionWork, MatrixWork } from './sizes.ts';
import { tileRule } from './tiles.ts';

/**
 * Measured on a Zen 4 with two cores, 2026-11-23, as shares of what the machine gave in the same run; AMX computed
 * (decision 010). To be measured again when kernels change: `tandem bench experts`, `tandem bench ops`.
 */
const SHARES = {
  /** Of the bandwidth that all threads read: weights of one row. Of a data sheet's bandwidth a machine reads 0.8. */
  read: 0.75,
  dataSheet: 0.8,
  /** Of a unit's peak: many rows; attention. */
  peak: 0.45,
  attention: 0.2,
  /**
   * Experts of a model take so much longer than those of the probe where they meet many rows: 1.15 to 1.3 measured with
   * DeepSeek-V2-Lite's (1408 wide), 1.09 to 1.13 with Qwen3-30B's; single rows and other matrices take as long.
   */
  experts: 1.15,
  /** Weights per second and core that one row needs decoded, where that is slower than memory. */
  decodeRate: { plain: 28e9, books: 13e9, scalar: 0.7e9 },
};

/** Operations per second and core at 3 GHz, where a profile has no peaks. */
const PEAKS = {
  scalar: { int8: 6e9, bf16: 6e9, f32: 6e9 },
  avx2: { int8: 190e9, bf16: 96e9, f32: 96e9 },
  avx512: { int8: 384e9, bf16: 96e9, f32: 96e9 },
  amx: { int8: 384e9, bf16: 3.1e12, f32: 192e9 },
};

/**
 * Seconds that a matrix product takes: of `rows` tokens, of which those that share an expert read it once. `tiles`: rows from which
 * it runs on tiles (Infinity: never); default: as the machine has it by itself.
 */
export function matrixSeconds(work: MatrixWork, rows: number, profile: MachineProfile, tiles?: number): number {
  if (work.op === 'mla') return 0; // counted with attention
  if (work.op === 'embed' || work.op === 'other')
    return ((work.op === 'embed' ? rows / work.experts : 1) * work.bytes) / readable(profile);
  const distinct = distinctOf(work, rows);
  const touched = (work.weights * distinct) / work.experts;
  return touched * weightSeconds(work.op, work.format, (rows * work.chosen) / distinct, profile, tiles);
}

/** Bytes of a matrix that `rows` tokens read: of experts those that they meet, of a table a row each. */
export function bytesTouched(work: MatrixWork, rows: number): number {
  const share = work.op === 'embed' ? Math.min(1, rows / work.experts) : distinctOf(work, rows) / work.experts;
  return work.bytes * share;
}

function distinctOf({ experts, chosen }: MatrixWork, rows: number): number {
  return experts === 1 ? 1 : distinctExperts(experts, chosen, rows);
}

/** Bytes per second that all threads read there. */
export function readable({ memory }: MachineProfile): number {
  return memory.bandwidth * (memory.measured ? 1 : SHARES.dataSheet);
}

/** Seconds a weight that meets `rows` rows. */
function weightSeconds(
  op: 'linear' | 'experts',
  format: FormatName,
  rows: number,
  profile: MachineProfile,
  tiles?: number,
): number {
  const measured = profile.kernels?.matrices.filter((kernel) => kernel.op === op) ?? [];
  const own = measured.find((kernel) => kernel.format === format);
  const company = op === 'experts' ? 1 + (SHARES.experts - 1) * Math.min(1, (rows - 1) / 3) : 1;
  const usual = (of: FormatName) => guessed(of, rows, profile, tileRule(profile.cpu.tiles)(op, of));
  const guess = tiles === undefined ? usual(format) : guessed(format, rows, profile, tiles);
  // Kernels were measured as they run by themselves.
  const near = own ?? measured.find((kernel) => kernel.format === 'q4_k') ?? measured[0];
  return near ? company * at(near.costs, rows) * (guess / usual(near.format)) : guess;
}

/** Between measured row counts and beyond them in a straight line. */
function at(costs: readonly (readonly [rows: number, seconds: number])[], rows: number): number {
  if (rows <= costs[0][0] || costs.length === 1) return costs[0][1] * (costs.length === 1 ? Math.max(1, rows) : 1);
  const found = costs.findIndex(([measured]) => measured >= rows);
  const upper = found < 0 ? costs.length - 1 : found;
  const [[r0, t0], [r1, t1]] = [costs[upper - 1], costs[upper]];
  return Math.max(t0 + ((t1 - t0) * (rows - r0)) / (r1 - r0), costs[0][1]);
}

function guessed(format: FormatName, rows: number, profile: MachineProfile, tiles = Infinity): number {
  const { blockBytes, blockSize } = quantFormat(format);
  const { decodeRate } = SHARES;
  const { isa } = profile.cpu;
  const rate = isa === 'scalar' ? decodeRate.scalar : /^iq[123]/.test(format) ? decodeRate.books : decodeRate.plain;
  return Math.max(
    blockBytes / blockSize / (readable(profile) * SHARES.read),
    1 / (rate * threadsOf(profile)),
    (2 * rows) / (peakFor(format, rows, profile, tiles) * SHARES.peak),
  );
}

/** Of the unit that multiplies rows of a format (`tiles.ts`): tiles, int8 for rounded activations, else f32. */
function peakFor(format: FormatName, rows: number, profile: MachineProfile, tiles: number): number {
  const unit = profile.cpu.tiles;
  const plain = format === 'bf16' || format === 'f16' || format === 'f8_e4m3';
  if (format === 'f32') return peak('f32', profile);
  if (rows >= tiles && (unit === 'amx' || unit === 'avx512-bf16')) return peak('bf16', profile);
  return peak(plain ? 'f32' : 'int8', profile);
}

function peak(unit: 'int8' | 'bf16' | 'f32', profile: MachineProfile): number {
  return profile.peaks[unit] ?? PEAKS[profile.cpu.isa][unit] * threadsOf(profile);
}

/** Seconds of the attention of one token that sees `context` positions. */
export function attentionDecodeSeconds(work: AttentionWork, context: number, profile: MachineProfile): number {
  const { product, weight } = attentionCosts(work, profile).decode;
  const seen = Math.min(context, work.window ?? Infinity);
  return weight * work.weights + product * work.productsPerPair * work.layers * seen;
}

/** Seconds of the attention of rows at positions [first, first + rows) of one sequence; not `tiled`: each row by itself. */
export function attentionPrefillSeconds(
  work: AttentionWork,
  first: number,
  rows: number,
  profile: MachineProfile,
  tiled = true,
): number {
  const { prefill, decode } = attentionCosts(work, profile);
  const pairs = attentionPairs(work, first, rows) * work.layers;
  if (!tiled) return decode.weight * work.weights * rows + decode.product * work.productsPerPair * pairs;
  // Keys and values of all positions that are seen are expanded once a pass.
  return prefill.weight * work.weights * (first + rows) + prefill.product * work.expandedPerPair * pairs;
}

/** Pairs of rows at positions [first, first + rows) with what each sees. */
export function attentionPairs({ window }: AttentionWork, first: number, rows: number): number {
  return pairsUpTo(first + rows, window) - pairsUpTo(first, window);
}

/** Σ over positions [0, n) of the positions that each sees. */
function pairsUpTo(n: number, window = Infinity): number {
  const growing = Math.min(n, window);
  return (growing * (growing + 1)) / 2 + Math.max(0, n - growing) * (Number.isFinite(window) ? window : 0);
}

function attentionCosts({ op, productsPerPair, kvBytesPerToken, layers }: AttentionWork, profile: MachineProfile) {
  const measured = profile.kernels?.attention.find((kernel) => kernel.op === op);
  if (measured) return measured;
  const arithmetic = 2 / (peak('f32', profile) * SHARES.attention);
  const cached = kvBytesPerToken / (productsPerPair * layers) / (readable(profile) * SHARES.read);
  const weight = 2 / (peak('f32', profile) * SHARES.peak);
  const rows = 2 / (peak(profile.cpu.tiles === 'amx' ? 'bf16' : 'f32', profile) * SHARES.attention);
  return { decode: { product: Math.max(arithmetic, cached), weight }, prefill: { product: rows, weight } };
}

/** Seconds of a step without matrices that writes `columns` values for each of `rows`. */
export function smallSeconds(columns: number, rows: number, profile: MachineProfile): number {
  const measured = profile.kernels?.small;
  if (measured) return measured.step + columns * (rows - 1) * measured.value;
  // Two barriers a step, and each value read and written.
  return 2e-6 + (columns * rows * 8) / readable(profile);
}

/** Seconds of a pass beside its steps. */
export function passSeconds({ kernels }: MachineProfile): number {
  return kernels?.pass ?? 100e-6;
}
