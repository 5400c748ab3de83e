/**
 * A hub on this machine: API with pages, `resolve` with redirects to a content network on another port, tokens, and every
 * way to misbehave, chosen by the test for each request. It keeps a log of what was asked and how many bytes went out.
 */
import { createHash } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface MockFile {
  readonly size: number;
  read(start: number, end: number): Uint8Array;
  /** sha256 of a large file, git's sha1 of a small one. */
  readonly etag: string;
  readonly large: boolean;
}

export interface MockRepository {
  files: Map<string, MockFile>;
  commit: string;
  /** Only with this token. */
  token?: string;
  gated?: boolean;
}

export interface Asked {
  readonly kind: 'api' | 'resolve' | 'cdn';
  readonly url: string;
  readonly authorization?: string;
  /** Bytes asked for, of a file. */
  readonly range?: readonly [start: number, end: number];
  /** How many requests came before. */
  readonly number: number;
}

/** What goes wrong with one answer. */
export interface Fault {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  /** The connection breaks after so many bytes of the body. */
  readonly dropAfter?: number;
  /** The connection stays open and silent after so many bytes. */
  readonly stallAfter?: number;
  /** One byte at this place of the body is another. */
  readonly corruptAt?: number;
  /** Sent in pieces of this many bytes, each after a turn of the event loop, or so many milliseconds. */
  readonly pieces?: number;
  readonly everyMs?: number;
  /** The whole file with status 200, whatever was asked. */
  readonly ignoreRange?: boolean;
  /** Content-Range with another total. */
  readonly lieTotal?: number;
  /** Content-Range that starts elsewhere. */
  readonly lieStart?: number;
  /** Content-Length larger than what comes. */
  readonly lieLength?: number;
}

export const COMMIT_A = 'a'.repeat(40);
export const COMMIT_B = 'b'.repeat(40);

export class MockHub {
  readonly repositories = new Map<string, MockRepository>();
  readonly log: Asked[] = [];
  /** Bytes of files that went out. */
  sent = 0;
  pageSize = 1000;
  fault: (asked: Asked) => Fault | undefined = () => undefined;
  /** After each piece of a file. */
  onSent: (sent: number) => void = () => {};
  readonly #hub: Server;
  readonly #cdn: Server;

  private constructor() {
    this.#hub = createServer((request, response) => void this.#answer(request, response));
    this.#cdn = createServer((request, response) => void this.#content(request, response));
  }

  static async start(): Promise<MockHub> {
    const hub = new MockHub();
    for (const server of [hub.#hub, hub.#cdn]) await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
    return hub;
  }

  get endpoint(): string {
    return `http://127.0.0.1:${(this.#hub.address() as AddressInfo).port}`;
  }

  get cdn(): string {
    return `http://127.0.0.1:${(this.#cdn.address() as AddressInfo).port}`;
  }

  add(
    name: string,
    files: Readonly<Record<string, Uint8Array | string | MockFile>>,
    more: Partial<MockRepository> = {},
  ): MockRepository {
    const entries = Object.entries(files).map(([path, content]) => [path, toFile(path, content)] as const);
    const repository = { files: new Map(entries), commit: COMMIT_A, ...more };
    this.repositories.set(name, repository);
    return repository;
  }

  /** Requests of files' bytes. */
  get fetches(): Asked[] {
    return this.log.filter(({ range }) => range !== undefined);
  }

  reset(): void {
    this.log.length = 0;
    this.sent = 0;
    this.fault = () => undefined;
    this.onSent = () => {};
    this.pageSize = 1000;
  }

  async close(): Promise<void> {
    for (const server of [this.#hub, this.#cdn]) {
      server.closeAllConnections();
      await new Promise((done) => server.close(done));
    }
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url!, this.endpoint);
    const kind = url.pathname.startsWith('/api/') ? 'api' : 'resolve';
    const fault = this.#log(kind, request);
    if (fault?.status !== undefined) return end(response, fault.status, fault.headers, fault.body);
    const match =
      kind === 'api'
        ? /^\/api\/models\/([^/]+\/[^/]+)\/(revision|tree)\/([^/]+)$/.exec(url.pathname)
        : /^\/([^/]+\/[^/]+)\/(resolve)\/([^/]+)\/(.+)$/.exec(url.pathname);
    if (match === null) return end(response, 404);
    const [, name, what, revision, path] = match;
    const repository = this.repositories.get(name);
    const { authorization } = request.headers;
    if (
      repository === undefined ||
      (repository.token && !repository.gated && authorization !== `Bearer ${repository.token}`)
    )
      return end(response, authorization ? 404 : 401, { 'x-error-code': 'RepoNotFound' });
    if (repository.gated && what === 'resolve' && authorization !== `Bearer ${repository.token}`)
      return end(response, authorization ? 403 : 401, { 'x-error-code': 'GatedRepo' });
    if (!['main', repository.commit].includes(decodeURIComponent(revision)))
      return end(response, 404, { 'x-error-code': 'RevisionNotFound' });
    if (what === 'revision') return json(response, { id: name, sha: repository.commit });
    if (what === 'tree') return this.#tree(response, url, repository);
    const file = repository.files.get(decodeURIComponent(path));
    if (file === undefined) return end(response, 404, { 'x-error-code': 'EntryNotFound' });
    const described = {
      'x-repo-commit': repository.commit,
      'x-linked-size': String(file.size),
      'x-linked-etag': `"${file.etag}"`,
    };
    if (!file.large)
      return this.#send(request, response, file, fault, { etag: `"${file.etag}"`, ...described, ...fault?.headers });
    const location = `${this.cdn}/${name}/${repository.commit}/${path}?signature=${this.log.length}`;
    end(response, 302, { ...described, ...fault?.headers, location });
  }

  #tree(response: ServerResponse, url: URL, { files }: MockRepository): void {
    const from = Number(url.searchParams.get('cursor') ?? 0);
    const page = [...files].slice(from, from + this.pageSize);
    const next = from + page.length;
    if (next < files.size) {
      url.searchParams.set('cursor', String(next));
      response.setHeader('link', `<${url.href}>; rel="next"`);
    }
    const folders = new Set(
      page.flatMap(([path]) => (path.includes('/') ? [path.slice(0, path.lastIndexOf('/'))] : [])),
    );
    json(response, [
      ...[...folders].map((path) => ({ type: 'directory', oid: '0'.repeat(40), size: 0, path })),
      ...page.map(([path, { size, etag, large }]) => ({
        type: 'file',
        path,
        size,
        oid: large ? '1'.repeat(40) : etag,
        ...(large && { lfs: { oid: etag, size, pointerSize: 134 } }),
      })),
    ]);
  }

  async #content(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = this.#log('cdn', request);
    if (fault?.status !== undefined) return end(response, fault.status, fault.headers, fault.body);
    const [, name, path] = /^\/([^/]+\/[^/]+)\/[^/]+\/(.+)$/.exec(new URL(request.url!, this.cdn).pathname)!;
    const file = this.repositories.get(name)!.files.get(decodeURIComponent(path))!;
    await this.#send(request, response, file, fault, { etag: '"of-the-network"' });
  }

  async #send(
    request: IncomingMessage,
    response: ServerResponse,
    file: MockFile,
    fault: Fault = {},
    headers: Readonly<Record<string, string>>,
  ): Promise<void> {
    const range = rangeOf(request);
    const whole = range === undefined || fault.ignoreRange;
    const [start, end] = whole ? [0, file.size] : [range[0], Math.min(range[1], file.size)];
    const body = Buffer.from(file.read(start, end));
    if (fault.corruptAt !== undefined && fault.corruptAt < body.length) body[fault.corruptAt] ^= 0xff;
    response.writeHead(whole ? 200 : 206, {
      ...headers,
      'content-length': fault.lieLength ?? body.length,
      ...(!whole && { 'content-range': `bytes ${fault.lieStart ?? start}-${end - 1}/${fault.lieTotal ?? file.size}` }),
    });
    const step = fault.pieces ?? 1 << 16;
    const last = Math.min(fault.dropAfter ?? fault.stallAfter ?? body.length, body.length);
    for (let at = 0; at < last && !response.destroyed; at += step) {
      const piece = body.subarray(at, Math.min(last, at + step));
      await new Promise((done) => response.write(piece, done));
      this.sent += piece.length;
      this.onSent(this.sent);
      if (fault.pieces !== undefined) await new Promise((done) => setTimeout(done, fault.everyMs ?? 1));
    }
    if (fault.stallAfter !== undefined && fault.stallAfter < body.length) return;
    if (last < body.length || fault.lieLength !== undefined) response.destroy();
    else response.end();
  }

  #log(kind: Asked['kind'], request: IncomingMessage): Fault | undefined {
    const { authorization } = request.headers;
    const asked = {
      kind,
      url: request.url!,
      authorization,
      range: kind === 'api' ? undefined : rangeOf(request),
      number: this.log.length,
    };
    // Only who sends the bytes counts as asked for them.
    this.log.push(asked);
    return this.fault(asked);
  }
}

function rangeOf(request: IncomingMessage): readonly [number, number] | undefined {
  const match = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '');
  return match === null ? undefined : [Number(match[1]), Number(match[2]) + 1];
}

function toFile(path: string, content: Uint8Array | string | MockFile): MockFile {
  if (typeof content !== 'string' && !(content instanceof Uint8Array)) return content;
  const bytes = Buffer.from(content as Uint8Array);
  const large = /\.(gguf|safetensors)$/.test(path);
  const hash = large ? createHash('sha256') : createHash('sha1').update(`blob ${bytes.length}\0`);
  return {
    size: bytes.length,
    large,
    etag: hash.update(bytes).digest('hex'),
    read: (start, end) => bytes.subarray(start, end),
  };
}

function end(
  response: ServerResponse,
  status: number,
  headers: Readonly<Record<string, string>> = {},
  body = '',
): void {
  response.writeHead(status, headers).end(body);
}

function json(response: ServerResponse, value: unknown): void {
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify(value));
}

/** A file that begins with `head` and goes on with zeros to `size`; its checksum is made up. */
export function sparse(head: Uint8Array, size: number): MockFile {
  return {
    size,
    large: true,
    etag: 'f'.repeat(64),
    read: (start, end) => {
      const bytes = new Uint8Array(end - start);
      if (start < head.length) bytes.set(head.subarray(start, Math.min(head.length, end)));
      return bytes;
    },
  };
}

/** Bytes that look random and are the same every time. */
export function noise(size: number, seed = 1): Uint8Array {
  const bytes = new Uint8Array(size);
  let state = seed * 2654435761 + 1;
  for (let i = 0; i < size; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}
