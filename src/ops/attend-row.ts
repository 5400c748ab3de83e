/**
 * The inside of both attentions: one query row of one head over the positions it may see.
 *
 * Error of y = Σ pₜ·vₜ where the scores are known up to ε·Aₜ: every pₜ is off by pₜ·(Aₜ + Σ p·A), so y is off by
 * ε·Σ pₜ·|vₜ|·(1 + Aₜ + Σ p·A); that sum is the magnitude.
 *
 * Fast mode may round q, k, v and p to bf16, in kernels that have a use for it: the reference does not, the magnitude
 * makes room for the `steps` of bf16 that operands are off by.
 */
import { ARITHMETIC } from './bound.ts';
import { softmax } from './math.ts';

/** One step of bf16 relative to its value: two operands, each off by half of it. */
const BF16_STEP = 2 ** -8;

export interface AttendedRow {
  /** Scores of the visible positions; overwritten by their softmax. */
  readonly scores: Float64Array;
  /** Aₜ: scale of each score's own error; undefined where magnitudes are not asked. */
  readonly scoreMagnitudes?: Float64Array;
  /** Positions [first, visible) are visible; absent: from 0. */
  readonly first?: number;
  readonly visible: number;
  /** A score without a value that takes part in the softmax. */
  readonly sink?: number;
  /** [positions, width]. */
  readonly values: Float64Array | Float32Array;
  /** Σ|a·b| of each value where it is itself a product; else |v| counts. */
  readonly valueMagnitudes?: Float64Array;
  readonly width: number;
  /** How many steps of bf16 a product may be off by, over its operands; absent: none. */
  readonly steps?: number;
}

/** Writes y[at … at+width) and its magnitude. */
export function attendRow(row: AttendedRow, y: Float32Array, magnitude: Float32Array | undefined, at: number): void {
  const { scores, scoreMagnitudes, first = 0, visible, sink, values, valueMagnitudes, width, steps = 0 } = row;
  softmax(scores.subarray(first, visible), visible - first, sink);
  const sums = new Float64Array(width);
  for (let t = first; t < visible; t++) for (let i = 0; i < width; i++) sums[i] += scores[t] * values[t * width + i];
  y.set(sums, at);
  if (!magnitude || !scoreMagnitudes) return;
  const room = 1 + (steps * BF16_STEP) / (ARITHMETIC.c * ARITHMETIC.epsilonAccumulate);
  let mean = 0;
  for (let t = first; t < visible; t++) mean += scores[t] * scoreMagnitudes[t];
  sums.fill(0);
  for (let t = first; t < visible; t++) {
    const share = room * scores[t] * (1 + scoreMagnitudes[t] + mean);
    for (let i = 0; i < width; i++) {
      const at = t * width + i;
      sums[i] += share * (valueMagnitudes ? valueMagnitudes[at] : Math.abs(values[at]));
    }
  }
  magnitude.set(sums, at);
}
