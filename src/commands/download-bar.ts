/** The line of a download: share, amounts, speed of the last seconds, time left. Where nobody looks, a line per tenth. */
import type { PullProgress } from '../hub/index.ts';
import { formatBytes } from './terminal.ts';

/** Speeds are those of so long. */
const WINDOW_MS = 5_000;
const DRAW_MS = 100;

export class DownloadBar {
  readonly #stream: NodeJS.WriteStream;
  readonly #now: () => number;
  #samples: { at: number; fetched: number }[] = [];
  #drawnAt = Number.NEGATIVE_INFINITY;
  #tenths: number | undefined;

  constructor(stream: NodeJS.WriteStream = process.stderr, now: () => number = () => performance.now()) {
    this.#stream = stream;
    this.#now = now;
  }

  update(progress: PullProgress): void {
    const now = this.#now();
    const { done, total, fetched } = progress;
    const last = this.#samples.at(-1);
    if (last === undefined || now - last.at >= DRAW_MS) this.#samples.push({ at: now, fetched });
    while (now - this.#samples[0].at > WINDOW_MS && this.#samples.length > 2) this.#samples.shift();
    if (total <= 0) return;
    if (this.#stream.isTTY) {
      if (now - this.#drawnAt < DRAW_MS) return;
      this.#drawnAt = now;
      const filled = Math.round((done / total) * 24);
      const bar = `${'█'.repeat(filled)}${'░'.repeat(24 - filled)}`;
      // A line that wraps could not be wiped.
      this.#stream.write(`\r\x1b[K${`${bar} ${this.line(progress)}`.slice(0, this.#stream.columns - 1)}`);
      return;
    }
    const tenths = Math.floor((done / total) * 10);
    if (this.#tenths !== undefined && tenths > this.#tenths) this.#stream.write(`${this.line(progress)}\n`);
    this.#tenths = tenths;
  }

  /** `42 %  12.3 GB of 29.1 GB  85.2 MB/s  3 min left`. */
  line({ done, total }: PullProgress): string {
    const [first, last] = [this.#samples[0], this.#samples.at(-1)];
    const seconds = first === undefined || last === undefined ? 0 : (last.at - first.at) / 1000;
    const rate = seconds > 0 ? Math.max(0, (last!.fetched - first.fetched) / seconds) : 0;
    const left = rate > 0 && done < total ? `  ${formatBytes(rate)}/s  ${duration((total - done) / rate)} left` : '';
    return `${Math.floor((done / total) * 100)} %  ${formatBytes(done)} of ${formatBytes(total)}${left}`;
  }

  /** Wipes the line, so that another text can be written. */
  clear(): void {
    if (this.#stream.isTTY && this.#drawnAt > 0) this.#stream.write('\r\x1b[K');
    this.#drawnAt = Number.NEGATIVE_INFINITY;
  }
}

/** `40 s`, `12 min`, `3 h 05 min`. */
export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.ceil(seconds)} s`;
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 90) return `${minutes} min`;
  return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
}
