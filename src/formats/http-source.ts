/**
 * Bytes of a file on a server, by range requests: a header of a 400 GB file costs its own kilobytes. A server without
 * ranges is refused, as is one whose answers contradict each other; nothing is downloaded whole behind anybody's back.
 */
import { TandemError } from '../errors.ts';
import { allocate, checkRange } from './bytes.ts';
import {
  aborted,
  contentRange,
  discard,
  get,
  type HttpAnswer,
  type HttpOptions,
  PROGRESS_BYTES,
  pieces,
  Transient,
  withRetries,
} from './http.ts';
import type { ByteSource, SourceFolder } from './source.ts';

/** Reads of at most this many bytes bring the whole block, so that a header read in small steps costs one request. */
const BLOCK = 1 << 16;
/** Blocks kept: headers are read forwards. */
const BLOCKS = 16;

export interface HttpSourceOptions extends HttpOptions {
  /** What to call it in messages. Default: the last part of the address. */
  readonly name?: string;
  /** Its size where a listing said it; what the server says must agree. Default: asked for. */
  readonly size?: number;
  /** Its checksum where a listing said it, without quotes; a server that tells another has another file. */
  readonly etag?: string;
  /** Told of every body byte that came, for progress and for tests. */
  readonly onBytes?: (bytes: number) => void;
}

class HttpSource implements ByteSource {
  readonly name: string;
  readonly size: number;
  readonly #file: RemoteFile;
  readonly #blocks = new Map<number, Promise<Uint8Array>>();
  #closed = false;

  constructor(name: string, size: number, file: RemoteFile) {
    this.name = name;
    this.size = size;
    this.#file = file;
  }

  async read(start: number, end: number): Promise<Uint8Array> {
    if (this.#closed) throw new TandemError('DISPOSED', { room: 'formats', rule: `${this.name} was closed` });
    checkRange(this, start, end);
    if (start === end) return new Uint8Array(0);
    if (end - start > BLOCK) return this.#file.fetch(start, end);
    const bytes = allocate(end - start, this.name);
    for (let at = start; at < end; ) {
      const index = Math.floor(at / BLOCK);
      const block = await this.#block(index);
      const from = at - index * BLOCK;
      const piece = block.subarray(from, Math.min(block.length, from + end - at));
      bytes.set(piece, at - start);
      at += piece.length;
    }
    return bytes;
  }

  #block(index: number): Promise<Uint8Array> {
    const known = this.#blocks.get(index);
    if (known !== undefined) return known;
    const block = this.#file.fetch(index * BLOCK, Math.min(this.size, (index + 1) * BLOCK));
    block.catch(() => this.#blocks.delete(index));
    this.#blocks.set(index, block);
    if (this.#blocks.size > BLOCKS) this.#blocks.delete(this.#blocks.keys().next().value!);
    return block;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#blocks.clear();
  }
}

/**
 * One file on a server, read in ranges. Remembers where the address redirected to (content networks sign such addresses
 * for an hour) and asks the first address again when that one is refused. Also the way of the downloader.
 */
export class RemoteFile {
  readonly name: string;
  readonly #url: string;
  readonly #options: HttpSourceOptions;
  #redirected: string | undefined;
  #size: number | undefined;
  /** Checksum that a listing promised or the hub told first; etag of a server that gives the bytes itself. */
  #linked: string | undefined;
  #etag: string | undefined;

  constructor(url: string, options: HttpSourceOptions) {
    this.#url = url;
    this.#options = options;
    this.#size = options.size;
    this.#linked = options.etag;
    this.name = options.name ?? decodeURIComponent(new URL(url).pathname.split('/').at(-1) ?? url);
  }

  /** Its length in bytes, asked for with one byte where no listing said it. */
  async size(): Promise<number> {
    if (this.#size !== undefined) return this.#size;
    await withRetries(this.name, this.#options, async () => {
      await discard(await this.#ask(0, 1));
    });
    return this.#size!;
  }

  /** Bytes [start, end), all of them. */
  async fetch(start: number, end: number): Promise<Uint8Array> {
    const bytes = allocate(end - start, this.name);
    let done = 0;
    await this.stream(start, end, async (piece) => {
      bytes.set(piece, done);
      done += piece.length;
    });
    return bytes;
  }

  /**
   * Gives bytes [start, end) to `take` in order, each once, over as many requests as the connection needs.
   * NETWORK_FAILED, REMOTE_DENIED, DOWNLOAD_DAMAGED where the server's answer is not that range of that file.
   */
  async stream(start: number, end: number, take: (piece: Uint8Array) => Promise<void>): Promise<void> {
    let at = start;
    await withRetries(this.name, this.#options, async (progressed) => {
      if (at === end) return; // the connection broke after the last byte
      const response = await this.#ask(at, end);
      const from = at;
      for await (const piece of pieces(response, this.#options)) {
        this.#options.onBytes?.(piece.length);
        if (at + piece.length > end) throw new Transient('the server sent more bytes than were asked for');
        await take(piece);
        at += piece.length;
        if (at - from >= PROGRESS_BYTES) progressed();
      }
      if (at < end) throw new Transient(`the connection ended ${end - at} bytes early`);
    });
  }

  /** An answer for a range, checked against what was asked and what was said before. */
  async #ask(start: number, end: number): Promise<Response> {
    const { response, first, url } = await this.#answer({ range: `bytes=${start}-${end - 1}` });
    try {
      this.#check(response, start, end);
      this.#linked = this.#same(this.#linked, first.get('x-linked-etag'));
      // A content network's own etag differs from machine to machine, as weak ones may.
      if (url === this.#url) this.#etag = this.#same(this.#etag, response.headers.get('etag'));
      return response;
    } catch (error) {
      await discard(response);
      throw error;
    }
  }

  #check({ status, headers }: Response, start: number, end: number): void {
    const length = Number(headers.get('content-length') ?? Number.NaN);
    // Whoever asks for all of a file may get it without a range.
    const range =
      status === 200 && start === 0 && length === end ? { start, end, total: length } : contentRange(headers);
    if (range === undefined || range.start !== start || range.end > end || range.end <= start) {
      const got = status === 206 ? `Content-Range "${headers.get('content-range') ?? ''}"` : `status ${status}`;
      throw new TandemError('DOWNLOAD_DAMAGED', {
        room: 'formats',
        rule: `${this.name} is read in ranges, which its server has to give`,
        given: `a request for bytes ${start} to ${end} got ${got}`,
        fix: 'use a server that answers range requests, or a local copy',
      });
    }
    if (this.#size !== undefined && range.total !== this.#size)
      throw this.#changed(`the server says ${range.total} bytes, they were ${this.#size}`);
    this.#size = range.total;
  }

  /** What is known of the file from now on. */
  #same(known: string | undefined, told: string | null): string | undefined {
    if (told === null || told.startsWith('W/')) return known;
    const etag = told.replace(/^"(.*)"$/, '$1');
    if (known !== undefined && etag !== known) throw this.#changed(`its etag is ${etag}, it was ${known}`);
    return etag;
  }

  async #answer(headers: Record<string, string>): Promise<HttpAnswer> {
    const { signal } = this.#options;
    if (signal?.aborted) throw aborted(this.name, signal);
    if (this.#redirected !== undefined) {
      try {
        return await get(this.#redirected, headers, { ...this.#options, token: undefined, explain: undefined });
      } catch (error) {
        if (!(error instanceof TandemError && (error.code === 'REMOTE_DENIED' || error.code === 'REMOTE_NOT_FOUND')))
          throw error;
        this.#redirected = undefined; // its signature has expired
      }
    }
    const answer = await get(this.#url, headers, this.#options);
    if (new URL(answer.url).origin !== new URL(this.#url).origin) this.#redirected = answer.url;
    return answer;
  }

  #changed(given: string): TandemError {
    return new TandemError('DOWNLOAD_DAMAGED', {
      room: 'formats',
      rule: `${this.name} stays the same while it is read`,
      given,
      fix: 'somebody changed it; start again',
    });
  }
}

/** A file behind an address. REMOTE_NOT_FOUND, REMOTE_DENIED, NETWORK_FAILED, DOWNLOAD_DAMAGED. */
export async function openUrl(url: string, options: HttpSourceOptions = {}): Promise<ByteSource> {
  const file = new RemoteFile(url, options);
  return new HttpSource(file.name, await file.size(), file);
}

/** Where the files of an HTTP folder are: by name, address and size. */
export interface HttpFile {
  readonly name: string;
  readonly url: string;
  readonly size: number;
}

/** A folder of files whose listing is known; nothing is asked before a file is read. */
export function httpFolder(
  name: string,
  files: readonly HttpFile[],
  options: HttpOptions & Pick<HttpSourceOptions, 'onBytes'> = {},
): SourceFolder {
  const byName = new Map(files.map((file) => [file.name, file]));
  return {
    name,
    async open(file) {
      const found = byName.get(file);
      return found && openUrl(found.url, { ...options, name: found.name, size: found.size });
    },
    async list() {
      return [...byName.keys()].sort();
    },
  };
}
