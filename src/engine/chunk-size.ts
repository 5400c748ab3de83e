/**
 * How many prefill rows a pass may have. The chunk follows the measured speed, so that a pass takes about
 * `targetMs`: long enough that weights are read for many rows, short enough that decoding neighbours and newcomers never
 * wait long (aborts do not wait: native looks between steps). It at most doubles or quarters at a time, because small
 * passes say little about large ones.
 */
export interface ChunkOptions {
  /** Rows, [1, maxRows]. */
  readonly minRows: number;
  readonly maxRows: number;
  readonly firstRows: number;
  readonly targetMs: number;
}

export class ChunkSize {
  readonly #options: ChunkOptions;
  #rows: number;

  constructor(options: ChunkOptions) {
    this.#options = options;
    this.#rows = Math.min(options.maxRows, Math.max(options.minRows, options.firstRows));
  }

  get rows(): number {
    return this.#rows;
  }

  /** A pass had `prefillRows` of these rows and took `milliseconds`. */
  measured(prefillRows: number, milliseconds: number): void {
    if (prefillRows === 0) return;
    const { minRows, maxRows, targetMs } = this.#options;
    const fitting = Math.floor((prefillRows * targetMs) / Math.max(milliseconds, 1e-3));
    // A short last chunk that ran fast is no reason to shrink; one that was slow is.
    if (fitting < this.#rows && milliseconds < targetMs) return;
    const bounded = Math.min(this.#rows * 2, Math.max(this.#rows >> 2, fitting));
    this.#rows = Math.min(maxRows, Math.max(minRows, bounded));
  }
}
