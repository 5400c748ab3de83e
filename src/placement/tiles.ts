/**
 * Where tiles pay: the fast mode of a machine as rows per kind of step and weight format. Below, and everywhere in exact
 * mode, activations keep the format of `activation`. Thresholds are measured (docs/guide/bench.md says how); a pure table.
 */
import type { MachineInfo, TileUnit } from '../backend/native/binding.ts';
import type { FormatName } from '../formats/dtype.ts';

/** Rows from which a step of this op over weights of this format runs on tiles; undefined: never. */
export type TileRule = (op: string, format?: FormatName) => number | undefined;

/**
 * With AMX a panel costs its decoding alone, whatever the rows: about 0.05 ns a weight, what int8 dot products take for
 * 8 to 10 rows. Computed, not measured (decision 010).
 */
const AMX_ROWS = 12;

/** AVX512-BF16 takes as long for 1 row as for 16, and as the dot products of bf16 and f8 for 7 (measured on Zen 4). */
const LANE_ROWS = 8;

/** AVX512-BF16 has half the peak of int8 dot products: it pays where the weights have no int8 kernel. */
const HALF_PEAK: ReadonlySet<FormatName> = new Set(['bf16', 'f16', 'f8_e4m3']);

/**
 * Query rows of a sequence from which attention goes by panels, latent attention expands where that is cheaper. On a unit
 * latent attention gains with the heads of one row already; without one panels stay f32, and decoding stays exact.
 */
const ATTENTION_ROWS = 16;

/** The rule of a unit; '': a machine without. */
export function tileRule(unit: TileUnit | ''): TileRule {
  return (op, format) => {
    if (op === 'mla' && unit) return 1;
    if (op === 'attention' || op === 'mla') return ATTENTION_ROWS;
    if (!unit || (op !== 'linear' && op !== 'experts')) return undefined;
    // A file that keeps weights in f32 (routers, small heads) wants them so.
    if (format === undefined || format === 'f32') return undefined;
    if (unit !== 'avx512-bf16') return AMX_ROWS;
    return HALF_PEAK.has(format) ? LANE_ROWS : undefined;
  };
}

/** The unit of a build of the kernels that need not be the machine's default. */
export function tileUnit({ isa, tiles, features }: MachineInfo, wanted: string = isa): TileUnit | '' {
  if (wanted === isa) return tiles;
  if (wanted !== 'amx' && wanted !== 'avx512') return ''; // no build below has tiles, emulated ones neither
  if (tiles === 'amx-emulated') return tiles;
  if (wanted === 'amx') return 'amx';
  return features.includes('avx512bf16') && features.includes('avx512vbmi') ? 'avx512-bf16' : '';
}
