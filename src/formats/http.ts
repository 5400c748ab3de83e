/**
 * One HTTP request as everything that fetches from a hub needs it: redirects followed by hand, so that a token reaches the
 * host it is for and no other; transient failures tried again with growing pauses; time limits on answers and on silence.
 * Runs on the global `fetch` alone. What a body means is the caller's business.
 */
import { TandemError } from '../errors.ts';

export interface HttpOptions {
  /** Sent as a bearer token to the origin (scheme, host, port) of the address asked for, never to one it redirects to. */
  readonly token?: string;
  readonly signal?: AbortSignal;
  /** Attempts without any progress before giving up. Default 6. */
  readonly attempts?: number;
  /** Pause after the first failure, milliseconds; doubles to at most 15 s. Default 500. */
  readonly pauseMs?: number;
  /** Longest wait for the head of an answer and for the next bytes of a body, milliseconds. Default 30 s. */
  readonly timeoutMs?: number;
  /** Told before each pause: why, and how long. */
  readonly onPause?: (why: string, milliseconds: number) => void;
  /** The error for an answer that is neither success nor transient; undefined: the general one. */
  readonly explain?: (response: Response) => Promise<TandemError | undefined>;
}

/** An answer and the address that gave it; addresses behind a redirect may be asked again until they expire. */
export interface HttpAnswer {
  readonly response: Response;
  readonly url: string;
  /** The answer of the address asked for, where it was a redirect: hubs describe the file there. */
  readonly first: Headers;
}

/** A failure worth another attempt; `afterMs`: when the server wants it. */
export class Transient extends Error {
  readonly afterMs: number | undefined;
  constructor(message: string, afterMs?: number) {
    super(message);
    this.afterMs = afterMs;
  }
}

const MOST_REDIRECTS = 8;
const LONGEST_PAUSE_MS = 15_000;
/** A server that asks for more than this is told of at once. */
const LONGEST_WAIT_MS = 5 * 60_000;
const RETRIED = new Set([408, 425, 429, 500, 502, 503, 504]);

/**
 * `work` until it succeeds: a Transient is tried again, anything else is thrown. `work` calls `progressed` when bytes came,
 * which starts the counting anew. NETWORK_FAILED after the last attempt, ABORTED.
 */
export async function withRetries<T>(
  what: string,
  { attempts = 6, pauseMs = 500, signal, onPause }: HttpOptions,
  work: (progressed: () => void) => Promise<T>,
): Promise<T> {
  for (let failures = 0; ; ) {
    if (signal?.aborted) throw aborted(what, signal);
    try {
      return await work(() => {
        failures = 0;
      });
    } catch (error) {
      if (signal?.aborted) throw aborted(what, signal);
      if (!(error instanceof Transient)) throw error;
      failures++;
      const wait =
        error.afterMs ?? Math.min(LONGEST_PAUSE_MS, pauseMs * 2 ** (failures - 1)) * (0.75 + Math.random() / 2);
      if (failures >= attempts || wait > LONGEST_WAIT_MS) throw gaveUp(what, error, failures, wait);
      onPause?.(error.message, wait);
      await pause(wait, signal);
    }
  }
}

/** One GET, redirects followed. Throws Transient for what may go better next time. */
export async function get(
  url: string,
  headers: Readonly<Record<string, string>>,
  options: HttpOptions,
): Promise<HttpAnswer> {
  let address = parse(url);
  const home = address.origin;
  let first: Headers | undefined;
  for (let hops = 0; hops <= MOST_REDIRECTS; hops++) {
    const own: Record<string, string> = { 'accept-encoding': 'identity', 'user-agent': 'tandem', ...headers };
    if (options.token !== undefined && address.origin === home) own.authorization = `Bearer ${options.token}`;
    const response = await ask(address, own, options);
    first ??= response.headers;
    const { status } = response;
    if (status >= 200 && status < 300) return { response, url: address.href, first };
    const location = status >= 300 && status < 400 ? response.headers.get('location') : null;
    if (location !== null) {
      await discard(response);
      address = parse(URL.canParse(location, address.href) ? new URL(location, address).href : location);
      continue;
    }
    // Behind a redirect a refusal is no word of the hub's: the address was signed for a time, another one may do.
    if (RETRIED.has(status) || (address.origin !== home && status >= 400)) {
      await discard(response);
      throw new Transient(describe(status, address.host), retryAfter(response.headers));
    }
    const error = (await options.explain?.(response)) ?? refused(status, address);
    await discard(response);
    throw error;
  }
  throw new TandemError('NETWORK_FAILED', {
    room: 'formats',
    rule: `an address redirects at most ${MOST_REDIRECTS} times`,
    given: `${url} does more often`,
    fix: 'check the address',
  });
}

/** `timeoutMs` bounds the wait for the head; the caller's signal also ends the body. */
async function ask(address: URL, headers: Record<string, string>, options: HttpOptions): Promise<Response> {
  const { signal, timeoutMs = 30_000 } = options;
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), timeoutMs);
  try {
    const either = signal === undefined ? late.signal : AbortSignal.any([late.signal, signal]);
    return await fetch(address, { headers, redirect: 'manual', signal: either });
  } catch (error) {
    if (signal?.aborted) throw aborted(address.href, signal);
    if (late.signal.aborted) throw new Transient(`${address.host} did not answer within ${timeoutMs / 1000} s`);
    throw new Transient(`${address.host} cannot be reached (${reason(error)})`);
  } finally {
    clearTimeout(timer);
  }
}

/** Bytes that count as progress: a server that sends a few a minute keeps nobody waiting for ever. */
export const PROGRESS_BYTES = 1024;

/**
 * The pieces of a body as they come. Transient where the connection breaks, stays silent for `timeoutMs`, or brings fewer than
 * PROGRESS_BYTES while it is waited for twice as long; whether it ended where it should is the caller's to see.
 */
export async function* pieces(response: Response, { timeoutMs = 30_000 }: HttpOptions): AsyncGenerator<Uint8Array> {
  if (response.body === null) return;
  const reader = response.body.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  /** Since there was progress: milliseconds that were waited, bytes that came. */
  let [waited, came] = [0, 0];
  try {
    for (;;) {
      const since = performance.now();
      const silence = new Promise<never>((_, reject) => {
        timer = setTimeout(() => reject(new Transient(`no bytes came for ${timeoutMs / 1000} s`)), timeoutMs);
      });
      const { done, value } = await Promise.race([reader.read(), silence]);
      clearTimeout(timer);
      if (done) return;
      waited += performance.now() - since;
      came += value.length;
      if (came >= PROGRESS_BYTES) [waited, came] = [0, 0];
      else if (waited > 2 * timeoutMs) throw new Transient(`only ${came} bytes came in ${Math.round(waited / 1000)} s`);
      yield value as Uint8Array;
    }
  } catch (error) {
    if (error instanceof Transient || error instanceof TandemError) throw error;
    throw new Transient(`the connection broke (${reason(error)})`);
  } finally {
    clearTimeout(timer);
    await reader.cancel().catch(() => {});
  }
}

/** `bytes FIRST-LAST/TOTAL` of a 206; undefined where there is none that can be read. `end` is past the last byte. */
export function contentRange(headers: Headers): { start: number; end: number; total: number } | undefined {
  const match = /^bytes (\d+)-(\d+)\/(\d+)$/.exec(headers.get('content-range') ?? '');
  return match === null ? undefined : { start: Number(match[1]), end: Number(match[2]) + 1, total: Number(match[3]) };
}

/** Waits, or throws nothing and returns early when the signal ends it: the caller looks at its signal next. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    if (signal?.aborted) done();
    else signal?.addEventListener('abort', done);
  });
}

/** Lets go of a body nobody reads, so that its connection is free. */
export async function discard(response: Response): Promise<void> {
  await response.body?.cancel().catch(() => {});
}

export function aborted(what: string, signal: AbortSignal): TandemError {
  return new TandemError('ABORTED', { room: 'formats', rule: `${what} was cancelled`, cause: signal.reason });
}

function parse(url: string): URL {
  const address = URL.canParse(url) ? new URL(url) : undefined;
  if (address?.protocol === 'https:' || address?.protocol === 'http:') return address;
  throw new TandemError('NETWORK_FAILED', {
    room: 'formats',
    rule: 'files are fetched from http and https addresses',
    given: url,
    fix: 'check the address',
  });
}

/** Seconds or a date → milliseconds from now. */
function retryAfter(headers: Headers): number | undefined {
  const text = headers.get('retry-after');
  if (text === null) return undefined;
  const seconds = Number(text);
  const wait = Number.isFinite(seconds) ? seconds * 1000 : Date.parse(text) - Date.now();
  return Number.isNaN(wait) ? undefined : Math.max(0, wait);
}

function describe(status: number, host: string): string {
  return status === 429 ? `${host} has had too many requests from here (429)` : `${host} answers ${status}`;
}

function refused(status: number, address: URL): TandemError {
  const given = `${address.origin}${address.pathname} answers ${status}`;
  if (status === 401 || status === 403)
    return new TandemError('REMOTE_DENIED', {
      room: 'formats',
      rule: 'the server lets us read the file',
      given,
      fix: 'it wants a token, or another one',
    });
  if (status === 404 || status === 410)
    return new TandemError('REMOTE_NOT_FOUND', {
      room: 'formats',
      rule: 'the address has a file',
      given,
      fix: 'check the address',
    });
  return new TandemError('NETWORK_FAILED', {
    room: 'formats',
    rule: 'the server gives the file',
    given,
    fix: 'check the address',
  });
}

function gaveUp(what: string, error: Transient, failures: number, wait: number): TandemError {
  const asks = wait > LONGEST_WAIT_MS ? ` and asks to wait ${Math.ceil(wait / 60_000)} minutes` : '';
  const times = failures === 1 ? '' : `, ${failures} times in a row`;
  return new TandemError('NETWORK_FAILED', {
    room: 'formats',
    rule: `${what} can be fetched`,
    given: `${error.message}${asks}${times}`,
    fix: 'try again later; what has come is kept',
    cause: error,
  });
}

/** `fetch failed` hides the reason in its cause. */
function reason(error: unknown): string {
  const { cause } = error as { cause?: { code?: string; message?: string } };
  return cause?.code ?? cause?.message ?? (error instanceof Error ? error.message : String(error));
}
