/**
 * The one error class of Tandem and its table of codes.
 *
 * A message reads `[room] rule; what was given; what to do`. Codes are stable: programs match on `error.code`,
 * people read `error.message`.
 */

/** Every code Tandem throws, with what it means. The native core uses the same names. */
export const ERROR_CODES = {
  FILE_NOT_FOUND: 'a path does not exist or cannot be opened',
  FILE_IO: 'reading or writing failed',
  FORMAT_INVALID: 'a file breaks the rules of its format',
  FORMAT_UNSUPPORTED: 'the file is valid but uses something Tandem does not know',
  MODEL_UNSUPPORTED: 'no architecture of that name',
  MODEL_INVALID: 'the checkpoint does not fit its own description (missing tensor, wrong shape, NaN)',
  PROGRAM_INVALID: 'a Program breaks a rule of the language',
  TEMPLATE_INVALID: 'the chat template cannot be parsed or rendered',
  TOKENIZER_INVALID: 'the tokenizer cannot be built',
  PLACEMENT_IMPOSSIBLE: 'no device can run a step, or the budget is too small',
  NATIVE_UNAVAILABLE: 'the native core is not built, or cannot be loaded here',
  NATIVE_FAILED: 'the native core reported an error',
  OUT_OF_MEMORY: 'an allocation was refused',
  CONTEXT_OVERFLOW: 'the prompt does not fit the context or the KV budget',
  REQUEST_INVALID: 'an argument of a request has the wrong type or range',
  ABORTED: 'the request was cancelled',
  DISPOSED: 'the object was used after dispose',
  MODEL_UNKNOWN: 'a request names a model that this server does not have',
  MODEL_LOADING: 'the model is still being loaded',
  QUEUE_FULL: 'more requests wait than the server accepts',
  SERVER_STOPPING: 'the server is shutting down and takes no new requests',
  ACCESS_DENIED: 'no valid API key',
  ORIGIN_DENIED: 'a host or an origin that is not allowed',
  ROUTE_UNKNOWN: 'no such path',
  METHOD_UNKNOWN: 'a path that has other methods than this one',
  BODY_TOO_LARGE: 'a request body is larger than the server accepts',
  NETWORK_FAILED: 'a server cannot be reached, or does not give what was asked for',
  REMOTE_DENIED: 'a hub wants a token, or this one may not read the repository',
  REMOTE_NOT_FOUND: 'no such repository, revision or file on a hub',
  DOWNLOAD_DAMAGED: 'what came is not what was promised: its length, its checksum, or the file changed meanwhile',
  DISK_FULL: 'there is not enough free space for a download',
  COMPARE_FAILED: 'two executables cannot be compared: they run different programs',
} as const;

export type ErrorCode = keyof typeof ERROR_CODES;

/** Three parts of every message: the rule that was broken, what was given, what to do about it. */
export interface ErrorParts {
  /** Room that speaks: `formats`, `text`, `models`, `placement`, `backend`, `native`, `engine`, `cli` … */
  room: string;
  /** The rule, as a statement: "a GGUF file starts with the magic GGUF". */
  rule: string;
  /** What was found instead, with the values. */
  given?: string;
  /** What the user can do. */
  fix?: string;
  cause?: unknown;
}

export class TandemError extends Error {
  override readonly name = 'TandemError';
  readonly code: ErrorCode;
  readonly room: string;

  constructor(code: ErrorCode, { room, rule, given, fix, cause }: ErrorParts) {
    const tail = [given, fix].filter((part) => part !== undefined && part !== '').map((part) => `; ${part}`);
    super(`[${room}] ${rule}${tail.join('')}`, cause === undefined ? undefined : { cause });
    this.code = code;
    this.room = room;
  }
}

/** True for a cancelled request, whoever cancelled it. */
export function isAbort(error: unknown): boolean {
  return (
    (error instanceof TandemError && error.code === 'ABORTED') ||
    (error instanceof Error && error.name === 'AbortError')
  );
}
