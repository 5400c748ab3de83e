/**
 * How many prefill rows a pass may have. The chunk follows the measured speed, so that a pass takes about
 * `targetMs`: long enough that weights are read for many rows, short enough that decoding neighbours and newcomers never
 * wait long (aborts do not wait: native looks between steps). It at most doubles or quarters at a time, because small
 * passes say little about large ones. A pass that costs much whatever its rows (placement/worthwhile-rows.ts) may have more
 * of them and take up to `mostMs`.
 */
export interface ChunkOptions {
  /** Rows, [1, maxRows]. */
  readonly minRows: number;
  readonly maxRows: number;
  readonly firstRows: number;
  readonly targetMs: number;
  /** Default: `targetMs`. */
  readonly mostMs?: number;
}

export class ChunkSize {
  readonly #options: ChunkOptions;
  #rows: number;
  /** Of the last pass that was about as long as it should be; before the first one a guess. */
  #msPerRow: number;

  constructor(options: ChunkOptions) {
    const { minRows, maxRows, firstRows, targetMs } = options;
    this.#options = options;
    this.#rows = Math.min(maxRows, Math.max(minRows, firstRows));
    this.#msPerRow = targetMs / Math.max(1, firstRows);
  }

  get rows(): number {
    return this.#rows;
  }

  /** `rows`, or more towards `worthwhile` as far as `mostMs` allows. */
  rowsFor(worthwhile: number): number {
    const { maxRows, targetMs, mostMs = targetMs } = this.#options;
    const allowed = Math.min(maxRows, Math.floor(mostMs / this.#msPerRow));
    return Math.max(this.#rows, Math.min(allowed, Math.ceil(worthwhile)));
  }

  /** A pass had `prefillRows` of these rows and took `milliseconds`. */
  measured(prefillRows: number, milliseconds: number): void {
    if (prefillRows === 0) return;
    const { minRows, maxRows, targetMs } = this.#options;
    const msPerRow = Math.max(milliseconds, 1e-3) / prefillRows;
    if (2 * prefillRows >= this.#rows) this.#msPerRow = msPerRow;
    const fitting = Math.floor(targetMs / msPerRow);
    // A short last chunk that ran fast is no reason to shrink; one that was slow is.
    if (fitting < this.#rows && milliseconds < targetMs) return;
    const bounded = Math.min(this.#rows * 2, Math.max(this.#rows >> 2, fitting));
    this.#rows = Math.min(maxRows, Math.max(minRows, bounded));
  }
}
