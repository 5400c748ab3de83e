/** How far the logits of one way may drift from the reference's, which rounds alike: what differs is the order of sums. */
import { ALARMS } from '../../backend/compare.ts';
import type { ActivationFormat, Program } from '../../program/program.ts';

/**
 * Of a cache in bf16 behind steps that round nothing: the order of sums decides a rounding in some ten thousand, each of 2⁻⁸.
 * Measured 4e-11 over eight layers.
 */
const CACHE_FLIPS = 1e-7;

/** Normalized mean square error. `rows`: most of a pass; tiles that need more of them round nothing. */
export function alarmOf({ steps, kv }: Program, rows: number): number {
  const formats = steps
    .flatMap(({ placement }) => [placement, placement?.decode])
    .flatMap((p): (ActivationFormat | undefined)[] => [
      p?.activation,
      p?.middle,
      p?.tiles !== undefined && rows >= p.tiles ? 'bf16' : undefined,
    ]);
  const cache = kv.type === 'bf16' ? CACHE_FLIPS : 0;
  return formats.reduce((most, format) => Math.max(most, format ? ALARMS[format] : 0), cache);
}
