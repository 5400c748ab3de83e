/** Passes of one executable take turns: whoever asks while one is running waits. */
import { TandemError } from '../errors.ts';

export class Turns {
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  /** Waits for all before, then holds the turn until the returned function is called. DISPOSED after `close`. */
  async take(): Promise<() => void> {
    this.#check();
    const before = this.#last;
    let release!: () => void;
    this.#last = new Promise<void>((resolve) => {
      release = resolve;
    });
    await before;
    if (this.#closed) release();
    this.#check();
    return release;
  }

  /** No new turns; resolves once the last one has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#last;
  }

  #check(): void {
    if (this.#closed)
      throw new TandemError('DISPOSED', { room: 'backend', rule: 'a disposed executable runs no more passes' });
  }
}
