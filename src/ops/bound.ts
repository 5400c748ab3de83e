/** Judges numbers by an op's bound: |y − ŷ| ≤ c · (ε_acc · Σ|a·b| + ε_out · |ŷ|), non-finite values in the same places. */
import type { Bound } from './op.ts';

/** One step of an f32 relative to its value: accumulation and output of every op. */
export const EPSILON = 2 ** -23;

/**
 * The usual bound. c = 16: a dot product of thousands of terms in a handful of f32 accumulators stays below 8 steps of
 * Σ|a·b|; twice that for the folding and the scales of block formats.
 */
export const ARITHMETIC: Bound = { c: 16, epsilonAccumulate: EPSILON, epsilonOut: EPSILON };

/** Ops that only move numbers, or round once. */
export const EXACT: Bound = { c: 0, epsilonAccumulate: 0, epsilonOut: 0 };

/** Numbers this small may be flushed: a vector exp clamps its argument where f32 becomes subnormal. */
const FLUSHED = 2 ** -110;

export function tolerance(bound: Bound, expected: number, magnitude: number): number {
  return FLUSHED + bound.c * (bound.epsilonAccumulate * magnitude + bound.epsilonOut * Math.abs(expected));
}

/** The element furthest outside, or nearest to, its bound. */
export interface Worst {
  readonly index: number;
  readonly actual: number;
  readonly expected: number;
  readonly tolerance: number;
  /** |actual − expected| / tolerance; above 1 is a failure; Infinity where NaN or ±∞ are in different places. */
  readonly ratio: number;
}

/** Ratio of one element's error to its tolerance. */
export function errorRatio(bound: Bound, actual: number, expected: number, magnitude: number): number {
  if (Number.isFinite(actual) && Number.isFinite(expected))
    return Math.abs(actual - expected) / tolerance(bound, expected, magnitude);
  return Object.is(actual, expected) || (Number.isNaN(actual) && Number.isNaN(expected)) ? 0 : Infinity;
}

/** Worst element of a float matrix; undefined when it is empty. */
export function worstError(
  bound: Bound,
  actual: Float32Array,
  expected: Float32Array,
  magnitude?: Float32Array,
): Worst | undefined {
  let worst = -1;
  let ratio = -1;
  for (let i = 0; i < expected.length; i++) {
    const r = errorRatio(bound, actual[i], expected[i], magnitude?.[i] ?? 0);
    if (r > ratio) {
      ratio = r;
      worst = i;
    }
  }
  if (worst < 0) return undefined;
  return {
    index: worst,
    actual: actual[worst],
    expected: expected[worst],
    tolerance: tolerance(bound, expected[worst], magnitude?.[worst] ?? 0),
    ratio,
  };
}

/**
 * Σ(y−ŷ)² / Σŷ², and the cosine of the angle between y and ŷ. Equal vectors give 0 and 1, zeros too; a NaN or ±∞ in the
 * same place of both is left out, anywhere else it makes both NaN or infinite.
 */
export function similarity(actual: Float32Array, expected: Float32Array): { nmse: number; cosine: number } {
  let error = 0;
  let aa = 0;
  let ee = 0;
  let ae = 0;
  for (let i = 0; i < expected.length; i++) {
    const a = actual[i];
    const e = expected[i];
    if (!Number.isFinite(e) && Object.is(a, e)) continue;
    error += (a - e) ** 2;
    aa += a * a;
    ee += e * e;
    ae += a * e;
  }
  if (error === 0) return { nmse: 0, cosine: 1 };
  return { nmse: error / ee, cosine: ae / Math.sqrt(aa * ee) };
}
