/**
 * Drives the scheduler: plan → run → commit, as long as there is work. One pass at a time; between passes the event
 * loop gets its turn. Of the requests in a failing pass each is tried alone, and only who fails then ends.
 */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import type { Executable } from '../backend/backend.ts';
import { TandemError } from '../errors.ts';
import type { PassResult } from '../program/batch.ts';
import type { Plan } from './batch.ts';
import type { Request } from './request.ts';
import type { Scheduler } from './scheduler.ts';
import type { Sequence } from './sequence.ts';

/** A mask takes well under a millisecond, unless its thread compiles a form just then. */
const MASK_PATIENCE_MS = 5;

export class EngineLoop {
  readonly #scheduler: Scheduler;
  readonly #executable: Executable;
  readonly #requests = new Map<Sequence, { readonly request: Request; readonly ended: () => void }>();
  #running: Promise<void> | undefined;
  #disposed = false;

  constructor(scheduler: Scheduler, executable: Executable) {
    this.#scheduler = scheduler;
    this.#executable = executable;
  }

  /** Queues a request; `ended` is called when it is settled. Throws what `scheduler.add` throws, or DISPOSED. */
  submit(request: Request, ended: () => void): void {
    if (this.#disposed) throw disposed();
    this.#scheduler.add(request.sequence);
    this.#requests.set(request.sequence, { request, ended });
    this.wake();
  }

  /** Goes on, where there is something to do: called also when pages became free. */
  wake(): void {
    if (!this.#disposed) this.#running ??= this.#run().catch((error) => this.#broken(error));
  }

  /** Ends a request with `error` at once, queued or running; rows of it in flight are cancelled. */
  abort({ sequence }: Request, error: unknown): void {
    if (!this.#requests.has(sequence)) return;
    if (this.#scheduler.remove(sequence)) this.#executable.cancel(sequence.slot);
    this.#settle(sequence, (request, now) => request.fail(error, now));
  }

  /** Fails what is left with DISPOSED and waits for the pass in flight. */
  async dispose(): Promise<void> {
    this.#disposed = true;
    for (const { request } of [...this.#requests.values()]) this.abort(request, disposed());
    await this.#running;
  }

  async #run(): Promise<void> {
    for (;;) {
      await turn(); // also gathers the requests of one turn into one pass
      await this.#guided();
      const plan = this.#scheduler.next();
      if (plan === undefined) {
        this.#running = undefined; // before anybody else runs: a request made next starts the loop anew
        return;
      }
      const now = performance.now();
      for (const { sequence } of plan.work) this.#attempt(sequence, (request) => request.started(now));
      let result: PassResult;
      try {
        result = await this.#executable.run(plan.batch);
      } catch (error) {
        this.#failed(plan, error);
        continue;
      }
      this.#committed(plan, result);
    }
  }

  /**
   * Waits a moment for masks that are being made. Who has none by then is left out of the next pass (`Sequence.drawable`) and
   * wakes the loop when it has; an output that left its form ends its request alone.
   */
  async #guided(): Promise<void> {
    const waits: Promise<void>[] = [];
    for (const [sequence, { request }] of this.#requests) {
      const guide = sequence.sampler?.guide;
      if (guide === undefined || guide.ready) continue;
      const settled = guide.settled?.catch((error) => this.abort(request, error)).then(() => this.wake());
      if (settled) waits.push(settled);
    }
    if (waits.length === 0) return;
    const patience = new AbortController();
    const enough = sleep(MASK_PATIENCE_MS, undefined, { signal: patience.signal }).catch(() => {});
    await Promise.race([Promise.all(waits), enough]);
    patience.abort();
  }

  /** A fault of the engine itself: nobody is left waiting, and nothing is left that meets it again. */
  #broken(error: unknown): void {
    this.#running = undefined;
    for (const sequence of [...this.#requests.keys()]) {
      this.#scheduler.remove(sequence);
      this.#settle(sequence, (request, now) => request.fail(error, now));
    }
  }

  #failed(plan: Plan, error: unknown): void {
    for (const sequence of this.#scheduler.fail(plan))
      this.#settle(sequence, (request, now) => request.fail(error, now));
  }

  #committed(plan: Plan, result: PassResult): void {
    for (const outcome of this.#scheduler.commit(plan, result)) {
      const { sequence } = outcome;
      if (outcome.kind === 'failed') {
        this.#settle(sequence, (request, now) => request.fail(outcome.error, now));
        continue;
      }
      const enough = this.#attempt(sequence, (request) => request.advance(outcome, performance.now()));
      if (enough) this.#scheduler.remove(sequence);
      if (enough || sequence.finish !== undefined) this.#settle(sequence, (request, now) => request.finish(now));
    }
  }

  /** Runs code that may call a user's callback: what it throws ends that request, not the loop. */
  #attempt(sequence: Sequence, action: (request: Request) => unknown): boolean {
    const request = this.#requests.get(sequence)?.request;
    if (!request) return false;
    try {
      return action(request) === true;
    } catch (error) {
      this.abort(request, error);
      return false;
    }
  }

  #settle(sequence: Sequence, action: (request: Request, now: number) => void): void {
    const entry = this.#requests.get(sequence);
    if (!entry) return;
    this.#requests.delete(sequence);
    sequence.sampler?.guide?.dispose();
    entry.ended();
    action(entry.request, performance.now());
  }
}

export function disposed(): TandemError {
  return new TandemError('DISPOSED', { room: 'engine', rule: 'the engine was disposed', fix: 'load the model again' });
}
