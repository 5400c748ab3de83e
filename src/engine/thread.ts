/**
 * A worker thread that answers calls, for work that takes longer than everybody else on the event loop may wait. It holds
 * the process open only while a call is under way.
 */
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { type ErrorCode, TandemError } from '../errors.ts';

interface Call {
  readonly id: number;
  readonly name: string;
  readonly argument: unknown;
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: { readonly code?: ErrorCode; readonly room?: string; readonly message: string };
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: unknown) => void;
  readonly timer: ReturnType<typeof setTimeout> | undefined;
}

export interface CallOptions {
  /** Milliseconds after which the thread is ended, and what its caller is told then. */
  readonly limit?: { readonly ms: number; readonly error: () => TandemError };
}

export class Thread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #calls = 0;
  #ended: unknown;

  /** `entry`: a file beside this one, without its ending, that calls `answerCalls`; `data` is cloned. */
  constructor(entry: string, data: unknown) {
    const ending = import.meta.url.endsWith('.ts') ? '.ts' : '.js';
    this.#worker = new Worker(new URL(`./${entry}${ending}`, import.meta.url), { workerData: data });
    this.#worker.unref();
    this.#worker.on('message', (answer: Answer) => this.#answered(answer));
    this.#worker.on('error', (cause) => this.#fail(broken(cause)));
    this.#worker.on('exit', (code) => this.#fail(broken(`it exited with ${code}`)));
  }

  /** True once it takes no more calls. */
  get ended(): boolean {
    return this.#ended !== undefined;
  }

  call<T>(name: string, argument: unknown, { limit }: CallOptions = {}): Promise<T> {
    if (this.#ended !== undefined) return Promise.reject(this.#ended);
    const id = this.#calls++;
    return new Promise<T>((resolve, reject) => {
      const timer = limit && setTimeout(() => this.end(limit.error()), limit.ms);
      const waiting = { resolve, reject, timer };
      this.#waiting.set(id, waiting);
      this.#worker.ref();
      try {
        this.#worker.postMessage({ id, name, argument } satisfies Call);
      } catch (cause) {
        this.#forget(id, waiting);
        reject(notCloned(cause));
      }
    });
  }

  /** Ends it at once, whatever it computes; calls under way are rejected with `error`. */
  async end(error: unknown): Promise<void> {
    this.#fail(error);
    await this.#worker.terminate();
  }

  #answered({ id, value, error }: Answer): void {
    const waiting = this.#waiting.get(id);
    if (waiting === undefined) return;
    this.#forget(id, waiting);
    if (error === undefined) waiting.resolve(value as never);
    else waiting.reject(unpacked(error));
  }

  #fail(error: unknown): void {
    this.#ended ??= error;
    for (const [id, waiting] of this.#waiting) {
      this.#forget(id, waiting);
      waiting.reject(error);
    }
  }

  #forget(id: number, { timer }: Waiting): void {
    clearTimeout(timer);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#worker.unref();
  }
}

/** In the thread: answers each call by the function of its name. */
export function answerCalls(functions: Readonly<Record<string, (argument: never) => unknown>>): void {
  if (isMainThread || parentPort === null) return;
  const port = parentPort;
  port.on('message', async ({ id, name, argument }: Call) => {
    let answer: Answer;
    try {
      answer = { id, value: await functions[name](argument as never) };
    } catch (error) {
      answer = { id, error: packed(error) };
    }
    port.postMessage(answer);
  });
}

function packed(error: unknown): Answer['error'] {
  if (error instanceof TandemError) return { code: error.code, room: error.room, message: error.message };
  return { message: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

function unpacked({ code, room = 'engine', message }: NonNullable<Answer['error']>): Error {
  if (code === undefined) return new Error(message);
  return new TandemError(code, { room, rule: message.slice(`[${room}] `.length) });
}

function notCloned(cause: unknown): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'engine',
    rule: 'what a request brings is data, as JSON has it',
    given: (cause as Error).message.slice(0, 200),
    fix: 'leave functions and symbols out of schemas, tools and template variables',
    cause,
  });
}

function broken(cause: unknown): TandemError {
  return new TandemError('NATIVE_FAILED', {
    room: 'engine',
    rule: 'a worker thread lives as long as the engine',
    given: cause instanceof Error ? cause.message : String(cause),
    fix: 'try again: a new one is started',
    cause,
  });
}
