/**
 * Rows of a prompt below which a pass wastes its time. In fast mode `mla` expands keys and values of all earlier positions
 * in every pass, whatever the pass's rows: far into a long prompt that costs as much as some hundred rows do.
 *
 *     products of a pass at position p = p · expansion + rows · (weights + p · pair)
 */
import type { Program } from '../program/program.ts';
import { activeWeights } from './active-weights.ts';
import { type AttentionWork, sizesOf } from './sizes.ts';

/** Of a pass's products those that belong to its rows, at least. */
const SHARE = 0.8;

/**
 * By the position of the first row: the rows from which on a pass spends `SHARE` on them, 0 without `mla`.
 * `weights`: that one token is multiplied with.
 */
export function worthwhileRows(attention: readonly AttentionWork[], weights: number): (position: number) => number {
  const expanded = attention.filter(({ op }) => op === 'mla');
  const expansion = expanded.reduce((sum, work) => sum + work.weights, 0);
  const pair = expanded.reduce((sum, work) => sum + work.expandedPerPair * work.layers, 0);
  return (position) => ((SHARE / (1 - SHARE)) * position * expansion) / (weights + position * pair);
}

/** The same of a placed Program; exact mode expands nothing. */
export function worthwhileRowsOf(program: Program): (position: number) => number {
  const expands = program.steps.some(({ op, placement }) => op === 'mla' && placement?.tiles !== undefined);
  return expands ? worthwhileRows(sizesOf(program).attention, activeWeights(program)) : () => 0;
}
