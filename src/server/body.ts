/** Reads a JSON body and checks it with a dialect's validator. Unknown fields pass; a wrong type says which and why. */
import type { z } from 'zod';
import { TandemError } from '../errors.ts';
import type { ServerRequest } from './context.ts';

/** Objects and arrays nested deeper than this are refused before a validator walks them. */
const MAX_DEPTH = 256;
/** Of objects, arrays and fields; agents with many tools send some thousands. A validator takes about 10 µs for each that is wrong. */
const MAX_PARTS = 100_000;

export async function readBody<T extends z.ZodType>(
  request: ServerRequest,
  schema: T,
  limit: number,
): Promise<z.output<T>> {
  const value = parseJson(await readText(request, limit));
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  const { path, message } = clearest(checked.error.issues[0]);
  throw new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: `the body is what ${request.req.path} expects`,
    given: `${fieldName(path)}: ${message}`,
    fix: 'see /docs for every field',
  });
}

interface Problem {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** Of a field that may be of several kinds: what is wrong inside the kind it is of, else which kinds there are. */
function clearest({ path, message, ...issue }: z.core.$ZodIssue): Problem {
  if (issue.code !== 'invalid_union') return { path, message };
  const kinds = issue.errors.flatMap(([first]) => (first === undefined ? [] : [first]));
  const inner = kinds.find((kind) => kind.path.length > 0 || kind.code !== 'invalid_type');
  if (inner !== undefined) {
    const { path: below, message } = clearest(inner);
    return { path: [...path, ...below], message };
  }
  const names = kinds.map((kind) => (kind.code === 'invalid_type' ? kind.expected : ''));
  return { path, message: `Invalid input: expected ${names.join(' or ')}` };
}

/** As people write it: `messages[0].content`. */
function fieldName(path: readonly PropertyKey[]): string {
  if (path.length === 0) return 'the body';
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`))
    .join('')
    .slice(0, 200);
}

async function readText(request: ServerRequest, limit: number): Promise<string> {
  const declared = Number(request.req.header('content-length') ?? 0);
  if (declared > limit) throw tooLarge(limit);
  const encoding = request.req.header('content-encoding') ?? 'identity';
  if (encoding !== 'identity') throw packed(encoding);
  const body = request.req.raw.body;
  if (body === null) return '';
  const pieces: Uint8Array[] = [];
  let size = 0;
  try {
    for await (const piece of body as unknown as AsyncIterable<Uint8Array>) {
      size += piece.length;
      if (size > limit) throw tooLarge(limit);
      pieces.push(piece);
    }
  } catch (error) {
    if (error instanceof TandemError) throw error;
    throw new TandemError('ABORTED', { room: 'server', rule: 'the client went away', cause: error });
  }
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(Buffer.concat(pieces));
  } catch {
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'a body is UTF-8 text',
      given: 'it holds bytes that are not',
      fix: 'encode it as UTF-8',
    });
  }
}

function packed(encoding: string): TandemError {
  return new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: 'a body is sent as it is',
    given: `Content-Encoding: ${encoding.slice(0, 40)}`,
    fix: 'send it without compression',
  });
}

function tooLarge(limit: number): TandemError {
  return new TandemError('BODY_TOO_LARGE', {
    room: 'server',
    rule: `a body has at most ${limit} bytes`,
    given: 'this one has more',
    fix: 'send less, or start the server with a larger --body-limit',
  });
}

function parseJson(text: string): unknown {
  if (text.trim() === '') return {};
  checkShape(text);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TandemError('REQUEST_INVALID', {
      room: 'server',
      rule: 'a body is JSON',
      given: (error as Error).message.slice(0, 120),
      fix: 'check quotes and commas; send Content-Type: application/json',
    });
  }
}

/** Counts brackets and colons outside strings. Hostile JSON is refused before anything that walks it sees it. */
function checkShape(text: string): void {
  let depth = 0;
  let parts = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 92) i++;
      else if (c === 34) inString = false;
      continue;
    }
    if (c === 34) inString = true;
    else if (c === 93 || c === 125) depth--;
    else if (c === 58) parts++;
    else if (c === 91 || c === 123) {
      parts++;
      depth++;
    }
    if (depth > MAX_DEPTH) throw misshapen(`JSON is nested at most ${MAX_DEPTH} deep`, 'this body is deeper');
    if (parts > MAX_PARTS)
      throw misshapen(`JSON has at most ${MAX_PARTS} objects, arrays and fields`, 'this body has more');
  }
}

function misshapen(rule: string, given: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'server', rule, given, fix: 'send a simpler body' });
}
