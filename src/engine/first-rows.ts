/**
 * How many rows of a prompt the very first pass takes, before any speed was measured: a guess at the machine. Rather too
 * many than too few, since few rows read all experts for little; the next pass goes by what this one took.
 */
import { activeWeights } from '../placement/active-weights.ts';
import type { Program } from '../program/program.ts';

/** Operations per millisecond and thread of the kernels for many rows, by instruction set; tiles of AMX. */
const GUESS: Readonly<Record<string, number>> = { avx2: 2e8, avx512: 3e8, amx: 3e8 };
const TILES = 1e9;
/** Scalar kernels, and whatever does not say. */
const SLOW = 2e7;

/** `execution`: what the backend says of itself. */
export function firstRows(
  program: Program,
  execution: Readonly<Record<string, string | number>>,
  targetMs: number,
): number {
  const { isa, threads } = execution;
  const tiles = isa === 'amx' && program.steps.some(({ placement }) => placement?.tiles !== undefined);
  const each = tiles ? TILES : (GUESS[isa] ?? SLOW);
  return Math.floor((targetMs * each * Math.max(1, Number(threads ?? 1))) / (2 * activeWeights(program)));
}
