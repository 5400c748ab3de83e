/**
 * Whether experts that were streamed through a GPU are the experts: held against the CPU's on the same rows, ids and matrices
 * before a model is streamed for the first time. The CPU's side is placed with `activation: f32`; the GPU rounds to bf16, so their
 * bits differ. A lost, doubled or swapped expert must show all the same: every choice weighs 1, else one that weighs little
 * hides behind rounding, and every row is judged by itself, else one wrong row hides among many.
 */

/** ‖y − ŷ‖ / ‖ŷ‖ of a row: bf16 stays below a quarter of it, one missing of 64 is four times as much. */
export const ROW_LIMIT = 1 / 32;

export interface GateVerdict {
  readonly passes: boolean;
  /** The row that is farthest off, and how far; Infinity where one side is not finite and the other is. */
  readonly row: number;
  readonly distance: number;
}

/** Rows of `columns`; `streamed` and `computed` are of the same step. */
export function judgeStreamed(streamed: Float32Array, computed: Float32Array, columns: number): GateVerdict {
  let worst = { row: 0, distance: 0 };
  for (let row = 0; row * columns < computed.length; row++) {
    const distance = rowDistance(streamed, computed, row * columns, (row + 1) * columns);
    if (distance > worst.distance) worst = { row, distance };
  }
  return { passes: streamed.length === computed.length && worst.distance <= ROW_LIMIT, ...worst };
}

function rowDistance(a: Float32Array, b: Float32Array, start: number, end: number): number {
  let [error, size] = [0, 0];
  for (let i = start; i < end; i++) {
    error += (a[i] - b[i]) ** 2;
    size += b[i] ** 2;
  }
  if (error === 0) return 0;
  const distance = Math.sqrt(error / size);
  return Number.isNaN(distance) ? Infinity : distance;
}

/** The choices as a group of experts [first, end) sees them: −1 for all others. The groups' sums add up to the whole. */
export function groupIds(
  ids: Int32Array,
  { first, end }: { readonly first: number; readonly end: number },
): Int32Array {
  return ids.map((id) => (id >= first && id < end ? id : -1));
}
