/** How far the logits of one way may drift from the reference's, which rounds alike: what differs is the order of sums. */
import { ALARMS } from '../../backend/compare.ts';
import type { ActivationFormat, KvType, Program } from '../../program/program.ts';

/**
 * Of a cache behind steps that round nothing: in bf16 the order of sums decides a rounding in some ten thousand, each of 2⁻⁸; measured
 * 4e-11 over eight layers. In e4m3 a 32nd as many, each 32 times as large.
 */
const CACHE_FLIPS: Readonly<Record<KvType, number>> = { f32: 0, bf16: 1e-7, e4m3: 32e-7 };

/** Normalized mean square error. `rows`: most of a pass; tiles that need more of them round nothing. */
export function alarmOf({ steps, kv }: Program, rows: number): number {
  const formats = steps
    .flatMap(({ placement }) => [placement, placement?.decode])
    .flatMap((p): (ActivationFormat | undefined)[] => [
      p?.activation,
      p?.middle,
      p?.tiles !== undefined && rows >= p.tiles ? 'bf16' : undefined,
    ]);
  const cache = CACHE_FLIPS[kv.type];
  return formats.reduce((most, format) => Math.max(most, format ? ALARMS[format] : 0), cache);
}
