/**
 * What this machine gives at most, measured beside the benchmark: bytes read from memory, and the arithmetic of the unit
 * that the kernels use. Every figure is also said as a share of one of them.
 */
import type { PeakName, TileUnit } from '../../backend/native/binding.ts';
import { loadNative } from '../../backend/native/load.ts';
import type { Program, Step, StepPlacement } from '../../program/program.ts';
import type { Machine } from './report.ts';

export interface Ceiling {
  /** Read from memory, caches left behind. */
  readonly bytesPerSecond: number;
  /** Operations per second by unit, a product and a sum counted as two. */
  readonly peaks: Readonly<Partial<Record<PeakName, number>>>;
}

/** Bytes per second this machine reads from memory with so many threads (0: as a model takes). */
export function readBandwidth(threads: number, machine: Machine) {
  const { availableBytes } = loadNative().machine();
  const bytes = Math.min(Math.max(3 * machine.lastLevelCacheBytes, 1 << 30), Math.floor(availableBytes / 4));
  return loadNative().readBandwidth(threads, bytes);
}

/**
 * Runs `measure` between two measurements of the ceiling; their mean counts. What memory gives on a machine with neighbours
 * moves by a factor of two within seconds: a better moment before or after says nothing of this one.
 */
export async function underCeiling<Result>(
  options: { readonly wanted: boolean; readonly threads?: number; readonly machine: Machine },
  measure: () => Promise<Result>,
): Promise<{ result: Result; ceiling?: Ceiling }> {
  const { wanted, threads = 0, machine } = options;
  if (!wanted) return { result: await measure() };
  const before = ceilingNow(threads, machine);
  const result = await measure();
  return { result, ceiling: mean(before, ceilingNow(threads, machine)) };
}

function ceilingNow(threads: number, machine: Machine): Ceiling {
  const peaks = loadNative().peaks(threads);
  return {
    bytesPerSecond: readBandwidth(threads, machine).bytesPerSecond,
    peaks: Object.fromEntries(peaks.map(({ name, operationsPerSecond }) => [name, operationsPerSecond])),
  };
}

function mean(a: Ceiling, b: Ceiling): Ceiling {
  const peaks = { ...a.peaks };
  for (const [name, value] of Object.entries(b.peaks) as [PeakName, number][])
    peaks[name] = (value + (peaks[name] ?? value)) / 2;
  return { bytesPerSecond: (a.bytesPerSecond + b.bytesPerSecond) / 2, peaks };
}

/**
 * The unit that multiplies where a matrix of the step meets so many rows: tiles, int8 for rounded activations, else f32.
 * Undefined where its peak is not measured (scalar kernels, emulated tiles).
 */
export function unitOf(
  { activation, tiles }: StepPlacement,
  rows: number,
  { isa, tiles: unit }: { readonly isa: string; readonly tiles: TileUnit | '' },
): PeakName | undefined {
  if (tiles !== undefined && rows >= tiles)
    return unit === 'amx' ? 'amx_bf16' : unit === 'avx512-bf16' ? 'avx512_bf16' : undefined;
  const base = isa === 'avx2' ? 'avx2' : isa === 'avx512' || isa === 'amx' ? 'avx512' : undefined;
  return base && `${base}_${activation.startsWith('q8') ? 'int8' : 'f32'}`;
}

/** The step with the most multiplications for a token: its unit stands for the whole model. */
export function heaviest(program: Program, operations: (program: Program, step: Step) => number): Step {
  return program.steps.reduce((a, b) => (operations(program, b) > operations(program, a) ? b : a));
}

/** Rows that one matrix of the step meets, on average, when the pass has so many tokens. */
export function rowsPerMatrix(program: Program, { op, inputs }: Step, tokens: number): number {
  const [chosen, gate] = [inputs[1], inputs[3]];
  if (op !== 'experts' || chosen?.kind !== 'value' || gate?.kind !== 'weight') return tokens;
  const experts = program.weights[gate.weight].shape[0];
  const distinct = experts * (1 - (1 - chosen.columns / experts) ** tokens);
  return (tokens * chosen.columns) / distinct;
}
