import { TandemError } from '../errors.ts';

/** The promise's value, or ABORTED once the signal says so; the work goes on. */
export function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const abort = () => reject(aborted(signal));
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
    if (signal.aborted) abort();
    else signal.addEventListener('abort', abort, { once: true });
  });
}

export function aborted(signal?: AbortSignal): TandemError {
  return new TandemError('ABORTED', { room: 'engine', rule: 'the request was cancelled', cause: signal?.reason });
}
