/** What an error means over HTTP: status, OpenAI's `type`, and whether trying again can help. */
import { type ErrorCode, isAbort, TandemError } from '../errors.ts';

export interface HttpFailure {
  readonly status: 400 | 401 | 403 | 404 | 405 | 413 | 429 | 499 | 500 | 503;
  /** OpenAI's and Anthropic's word for the kind of error. */
  readonly type: string;
  /** Seconds after which a client may try again; undefined: the same request fails the same way. */
  readonly retryAfter?: number;
}

const INVALID: HttpFailure = { status: 400, type: 'invalid_request_error' };

const FAILURES: Partial<Record<ErrorCode, HttpFailure>> = {
  REQUEST_INVALID: INVALID,
  CONTEXT_OVERFLOW: INVALID,
  TEMPLATE_INVALID: INVALID,
  FORMAT_UNSUPPORTED: INVALID,
  ACCESS_DENIED: { status: 401, type: 'authentication_error' },
  ORIGIN_DENIED: { status: 403, type: 'permission_error' },
  MODEL_UNKNOWN: { status: 404, type: 'not_found_error' },
  ROUTE_UNKNOWN: { status: 404, type: 'not_found_error' },
  METHOD_UNKNOWN: { status: 405, type: 'not_found_error' },
  BODY_TOO_LARGE: { status: 413, type: 'request_too_large' },
  QUEUE_FULL: { status: 429, type: 'rate_limit_error', retryAfter: 2 },
  ABORTED: { status: 499, type: 'cancelled' },
  MODEL_LOADING: { status: 503, type: 'overloaded_error', retryAfter: 5 },
  SERVER_STOPPING: { status: 503, type: 'overloaded_error', retryAfter: 10 },
  DISPOSED: { status: 503, type: 'overloaded_error', retryAfter: 10 },
};

const INTERNAL: HttpFailure = { status: 500, type: 'api_error' };

export function httpFailure(error: TandemError): HttpFailure {
  return FAILURES[error.code] ?? INTERNAL;
}

/** Headers that keep clients from repeating what cannot succeed, and tell them when to repeat what can. */
export function retryHeaders({ retryAfter }: HttpFailure): Record<string, string> {
  return retryAfter === undefined
    ? { 'x-should-retry': 'false' }
    : { 'retry-after': String(retryAfter), 'x-should-retry': 'true' };
}

/** `error.code` of OpenAI's clients, where they have a word for it. */
export function openaiCode({ code }: TandemError): string {
  const words: Partial<Record<ErrorCode, string>> = {
    CONTEXT_OVERFLOW: 'context_length_exceeded',
    MODEL_UNKNOWN: 'model_not_found',
    ACCESS_DENIED: 'invalid_api_key',
    ORIGIN_DENIED: 'access_denied',
    METHOD_UNKNOWN: 'route_unknown',
    QUEUE_FULL: 'rate_limit_exceeded',
    MODEL_LOADING: 'model_loading',
  };
  return words[code] ?? code.toLowerCase();
}

/**
 * Any thrown value as an error that a client may read. Faults that are not the request's tell nothing of themselves: their
 * messages name files and machines, and belong into the log.
 */
export function asTandemError(error: unknown): TandemError {
  const known = error instanceof TandemError;
  if (known && (error.room === 'server' || httpFailure(error) !== INTERNAL)) return error;
  if (isAbort(error)) return new TandemError('ABORTED', { room: 'server', rule: 'the request was cancelled' });
  return new TandemError(known ? error.code : 'NATIVE_FAILED', {
    room: 'server',
    rule: 'a request is answered or refused',
    given: 'it met a fault of the server',
    fix: 'see the log of the server, which names it under this request id',
    cause: error,
  });
}
