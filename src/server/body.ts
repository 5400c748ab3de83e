/** Reads a JSON body and checks it with a dialect's validator. Unknown fields pass; a wrong type says which and why. */
import type { z } from 'zod';
import { TandemError } from '../errors.ts';
import type { ServerRequest } from './context.ts';

/** Objects and arrays nested deeper than this are refused before a validator walks them. */
const MAX_DEPTH = 256;

export async function readBody<T extends z.ZodType>(
  request: ServerRequest,
  schema: T,
  limit: number,
): Promise<z.output<T>> {
  const value = parseJson(await readText(request, limit));
  const checked = schema.safeParse(value);
  if (checked.success) return checked.data;
  const { path, message } = checked.error.issues[0];
  throw new TandemError('REQUEST_INVALID', {
    room: 'server',
    rule: `the body is what ${new URL(request.req.url).pathname} expects`,
    given: `${fieldName(path)}: ${message}`,
    fix: 'see /docs for every field',
  });
}

/** The first field of a validation message, for `error.param`. */
export function fieldName(path: readonly PropertyKey[]): string {
  if (path.length === 0) return 'the body';
  return path
    .map((key, i) => (typeof key === 'number' ? `[${key}]` : i === 0 ? String(key) : `.${String(key)}`))
    .join('')
    .slice(0, 200);
}

async function readText(request: ServerRequest, limit: number): Promise<string> {
  const declared = Number(request.req.header('content-length') ?? 0);
  if (declared > limit) throw tooLarge(limit);
  const body = request.req.raw.body;
  if (body === null) return '';
  const pieces: Uint8Array[] = [];
  let size = 0;
  for await (const piece of body as unknown as AsyncIterable<Uint8Array>) {
    size += piece.length;
    if (size > limit) throw tooLarge(limit);
    pieces.push(piece);
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
  checkDepth(text);
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

/** Counts brackets outside strings. Hostile nesting is refused before anything recursive sees it. */
function checkDepth(text: string): void {
  let depth = 0;
  let inString = false;
  for (let i = 0; i < text.length; i++) {
    const c = text.charCodeAt(i);
    if (inString) {
      if (c === 92) i++;
      else if (c === 34) inString = false;
    } else if (c === 34) inString = true;
    else if (c === 91 || c === 123) {
      if (++depth > MAX_DEPTH)
        throw new TandemError('REQUEST_INVALID', {
          room: 'server',
          rule: `JSON is nested at most ${MAX_DEPTH} deep`,
          given: 'this body is deeper',
          fix: 'flatten it',
        });
    } else if (c === 93 || c === 125) depth--;
  }
}
