/**
 * Where tiles pay: the fast mode of a machine as rows per kind of step and weight format. Below, and everywhere in exact
 * mode, activations keep the format of `activation`. Thresholds are measured (docs/guide/bench.md says how); a pure table.
 */
import type { MachineInfo, TileUnit } from '../backend/native/binding.ts';
import type { FormatName } from '../formats/dtype.ts';

/** Rows from which a step of this op over weights of this format runs on tiles; undefined: never. */
export type TileRule = (op: string, format?: FormatName) => number | undefined;

/** Rows of a tile: from so many, decoding a panel to bf16 is cheaper than one more pass of dot products. */
const TILE_ROWS = 16;

/** AVX512-BF16 has half the peak of int8 dot products: it pays where the weights have no int8 kernel. */
const HALF_PEAK: ReadonlySet<FormatName> = new Set(['bf16', 'f16', 'f8_e4m3']);

/**
 * Query rows of a sequence from which attention goes by panels, latent attention expands where that is cheaper. On a unit
 * latent attention gains with the heads of one row already; without one panels stay f32, and decoding stays exact.
 */
const ATTENTION_ROWS = TILE_ROWS;

/** The rule of a unit; '': a machine without. */
export function tileRule(unit: TileUnit | ''): TileRule {
  return (op, format) => {
    if (op === 'mla' && unit) return 1;
    if (op === 'attention' || op === 'mla') return ATTENTION_ROWS;
    if (!unit || (op !== 'linear' && op !== 'experts')) return undefined;
    // A file that keeps weights in f32 (routers, small heads) wants them so.
    if (format === undefined || format === 'f32') return undefined;
    return unit === 'avx512-bf16' && !HALF_PEAK.has(format) ? undefined : TILE_ROWS;
  };
}

/** The unit of a build of the kernels that need not be the machine's default. */
export function tileUnit({ isa, tiles, features }: MachineInfo, wanted: string = isa): TileUnit | '' {
  if (wanted === isa || tiles === 'amx-emulated') return tiles;
  if (wanted === 'amx') return 'amx';
  return wanted === 'avx512' && features.includes('avx512bf16') ? 'avx512-bf16' : '';
}
