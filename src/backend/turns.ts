/** Passes of one executable take turns: whoever asks while one is running waits. */
import { TandemError } from '../errors.ts';

export class Turns {
  #last: Promise<void> = Promise.resolve();
  #closed = false;
  /** Ends the turn that is held open by somebody outside (a Stepper), if any. */
  #abandon: (() => void) | undefined;

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

  /**
   * The turn `end` belongs to a Stepper: it may never end by itself, so `close` ends it. Gives a function that runs one call
   * of the Stepper: DISPOSED after `close`, which waits for a call that is under way.
   */
  hold(end: () => void): <T>(call: () => Promise<T>, last?: boolean) => Promise<T> {
    let calls = 0;
    const abandon = () => {
      if (calls === 0) finish();
    };
    const finish = () => {
      if (this.#abandon === abandon) this.#abandon = undefined;
      end();
    };
    this.#abandon = abandon;
    return async (call, last = false) => {
      this.#check();
      calls++;
      try {
        return await call();
      } finally {
        calls--;
        if (last || (this.#closed && calls === 0)) finish();
      }
    };
  }

  /** No new turns; resolves once the last one has ended. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#abandon?.();
    await this.#last;
  }

  #check(): void {
    if (this.#closed)
      throw new TandemError('DISPOSED', { room: 'backend', rule: 'a disposed executable runs no more passes' });
  }
}
