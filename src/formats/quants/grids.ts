/**
 * The code books of iq1_*, iq2_* and iq3_*: rows of 8 levels (4 in iq3), one after the other. Each book is kept as a
 * bitmap of the rows that occur and expanded when the first weight of its formats is decoded. Both languages have theirs
 * from `scripts/grids.json`.
 */
import { GRID_DATA } from './grids-data.ts';

export type GridName = keyof typeof GRID_DATA;

const expanded = new Map<GridName, Int8Array>();

/** The levels of a code book, `rows × weights`. */
export function grid(name: GridName): Int8Array {
  let levels = expanded.get(name);
  if (levels === undefined) expanded.set(name, (levels = expand(name)));
  return levels;
}

/** Bit v of a bitmap: the row whose levels are the digits of v, lowest first, in base `levels.length`. */
function expand(name: GridName): Int8Array {
  const { rows, weights, levels, bitmap } = GRID_DATA[name];
  const bytes = Uint8Array.from(atob(bitmap), (char) => char.charCodeAt(0));
  const out = new Int8Array(rows * weights);
  let at = 0;
  for (let v = 0; v < 8 * bytes.length; v++) {
    if (((bytes[v >> 3] >> (v & 7)) & 1) === 0) continue;
    for (let j = 0, rest = v; j < weights; j++, rest = Math.floor(rest / levels.length)) {
      out[at++] = levels[rest % levels.length];
    }
  }
  return out;
}

/** Eight sign bits from seven: the number of minus signs is even, so the eighth is their parity. */
export function evenSigns(seven: number): number {
  return seven | (((0x6996 >> ((seven ^ (seven >> 4)) & 15)) & 1) << 7);
}

/** Decodes `count` weights of the book's row `row`: level times scale, negative where bit j of `signs` is set. */
export function decodeSigned(
  levels: Int8Array,
  row: number,
  count: 4 | 8,
  signs: number,
  scale: number,
  out: Float32Array,
  at: number,
): void {
  for (let j = 0; j < count; j++) {
    const level = levels[row * count + j];
    out[at + j] = scale * ((signs >> j) & 1 ? -level : level);
  }
}

/** Decodes the eight weights of a row of iq1: level plus delta (±1/8), times scale. */
export function decodeShifted(
  levels: Int8Array,
  row: number,
  delta: number,
  scale: number,
  out: Float32Array,
  at: number,
): void {
  for (let j = 0; j < 8; j++) out[at + j] = scale * (levels[row * 8 + j] + delta);
}
