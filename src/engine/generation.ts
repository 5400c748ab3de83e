/**
 * What `generate` and `chat` return: an async iterable of events that can also be awaited for the result. It buffers
 * what nobody has read yet (at most one generation's worth) and never makes the engine wait for its reader.
 */
import { TandemError } from '../errors.ts';
import type { GenerationEvent, GenerationResult } from './result.ts';

/** The engine's side of a Generation. */
export interface GenerationSink {
  emit(event: GenerationEvent): void;
  finish(result: GenerationResult): void;
  /** `partial`: what there was until then, where there was something. */
  fail(error: unknown, partial?: GenerationResult): void;
}

type StartWork = (sink: GenerationSink, waiting: AbortSignal) => (() => void) | Promise<() => void>;

export class Generation implements AsyncIterable<GenerationEvent>, PromiseLike<GenerationResult> {
  readonly #events: GenerationEvent[] = [];
  readonly #result: Promise<GenerationResult>;
  /** Resolves once the request is queued; rejects with what was wrong with it. */
  readonly ready: Promise<void>;
  #resolve!: (result: GenerationResult) => void;
  #reject!: (error: unknown) => void;
  #wake: (() => void) | undefined;
  #ended: { error?: unknown } | undefined;
  #iterated = false;
  #partial: GenerationResult | undefined;
  #abort: () => void = () => {};

  /**
   * `start` gets the sink and gives back what aborts the work, at once or when it is queued; until then `waiting` tells that
   * nobody wants it any more. Errors it throws become the generation's.
   */
  constructor(start: StartWork, signal?: AbortSignal) {
    this.#result = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#result.catch(() => {}); // who only iterates sees the error there
    this.ready = this.#start(start, signal);
    this.ready.catch(() => {}); // the iterator and the result tell it too
  }

  async #start(start: StartWork, signal: AbortSignal | undefined): Promise<void> {
    const left = new AbortController();
    try {
      const sink: GenerationSink = {
        emit: (event) => this.#emit(event),
        finish: (result) => this.#end(result),
        fail: (error, partial) => this.#end(partial, { error }),
      };
      const started = start(sink, left.signal);
      this.#abort = typeof started === 'function' ? started : await this.#queued(started, left, signal);
    } catch (error) {
      this.#end(undefined, { error });
      throw error;
    }
  }

  /** An abort before the work is queued is told to what it waits for, and to the work where it is queued all the same. */
  async #queued(
    starting: Promise<() => void>,
    left: AbortController,
    signal: AbortSignal | undefined,
  ): Promise<() => void> {
    const leave = () => left.abort(signal?.reason);
    this.#abort = leave;
    if (signal?.aborted) leave();
    signal?.addEventListener('abort', leave, { once: true });
    try {
      const abort = await starting;
      if (left.signal.aborted) abort();
      return abort;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  /** What was generated, once it ended, however it ended; undefined before, and where nothing was. */
  get partial(): GenerationResult | undefined {
    return this.#partial;
  }

  /** Stops it: the iterator and the promise fail with ABORTED. Does nothing after the end. */
  abort(): void {
    this.#abort();
  }

  // biome-ignore lint/suspicious/noThenProperty: a generation is awaitable by design
  then<A = GenerationResult, B = never>(
    onResult?: ((result: GenerationResult) => A | PromiseLike<A>) | null,
    onError?: ((error: unknown) => B | PromiseLike<B>) | null,
  ): Promise<A | B> {
    return this.#result.then(onResult, onError);
  }

  /** Events in order; leaving the loop early aborts the generation. One reader only. */
  [Symbol.asyncIterator](): AsyncIterator<GenerationEvent, undefined> {
    if (this.#iterated)
      throw new TandemError('REQUEST_INVALID', {
        room: 'engine',
        rule: 'the events of a generation are read once',
        given: 'a second iterator was asked for',
        fix: 'await the generation for its result, or hand the events on',
      });
    this.#iterated = true;
    // Whoever asks ahead gets the events in the order of asking.
    let last: Promise<unknown> = Promise.resolve();
    return {
      next: () => {
        const next = last.then(() => this.#next());
        last = next.catch(() => {});
        return next;
      },
      return: async () => {
        this.abort();
        this.#ended = {};
        this.#events.length = 0;
        this.#notify();
        return { done: true, value: undefined };
      },
    };
  }

  /** The next event, once there is one. */
  async #next(): Promise<IteratorResult<GenerationEvent, undefined>> {
    for (;;) {
      const event = this.#events.shift();
      if (event) return { done: false, value: event };
      if (this.#ended) {
        const { error } = this.#ended;
        this.#ended = {};
        if (error !== undefined) throw error;
        return { done: true, value: undefined };
      }
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
  }

  #emit(event: GenerationEvent): void {
    const last = this.#events.length - 1;
    if (event.type === 'prefill' && this.#events[last]?.type === 'prefill') this.#events[last] = event;
    else this.#events.push(event);
    this.#notify();
  }

  #end(result: GenerationResult | undefined, failure?: { error: unknown }): void {
    if (this.#ended) return;
    this.#partial = result;
    if (failure) this.#reject(failure.error);
    else {
      this.#events.push({ type: 'done', result: result! });
      this.#resolve(result!);
    }
    this.#ended = failure ?? {};
    this.#notify();
  }

  #notify(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}
