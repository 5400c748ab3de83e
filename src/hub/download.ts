/**
 * Brings blobs into a cache: a few connections take ranges of the files in order, so that a large file comes over all of
 * them and small ones several at once. The first error ends all; what has come stays for the next time.
 */
import { setMaxListeners } from 'node:events';
import { TandemError } from '../errors.ts';
import { aborted, type HttpOptions, pause } from '../formats/http.ts';
import { RemoteFile } from '../formats/http-source.ts';
import { BlobDownload, type BlobPlace, type BlobSpec, type BlobTuning } from './blob.ts';
import type { Range } from './ranges.ts';
import { gigabytes } from './variants.ts';

export interface DownloadOptions extends Partial<BlobTuning> {
  readonly http: HttpOptions;
  readonly place: (spec: BlobSpec) => BlobPlace;
  /** Requests at once. Default 8. */
  readonly connections?: number;
  readonly signal?: AbortSignal;
  /** Bytes that came now. */
  readonly onBytes?: (bytes: number) => void;
  /** Bytes that were there, or had come, and were wrong. */
  readonly onDropped?: (bytes: number) => void;
  /** Bytes that were there. */
  readonly onResumed?: (bytes: number) => void;
  /** Things a person wants to know: who is waited for, what is tried again. */
  readonly onNotice?: (text: string) => void;
}

/** A request is worth 32 MB; a killed process loses at most the last half second, or 8 MB. */
const TUNING: BlobTuning = { segmentBytes: 32 << 20, recordBytes: 8 << 20, recordMs: 500 };
/** Pieces of a body are collected to this before they are written. */
const WRITE_BYTES = 1 << 20;
/** How often to look whether another process is done. */
const LOOK_MS = 300;

interface Job {
  readonly download: BlobDownload;
  readonly remote: RemoteFile;
  /** Absent: nothing is missing, only the check. */
  readonly range?: Range;
}

export async function downloadBlobs(specs: readonly BlobSpec[], options: DownloadOptions): Promise<void> {
  const stop = new AbortController();
  setMaxListeners(0, stop.signal); // one for each connection that waits
  const forward = () => stop.abort(options.signal?.reason);
  if (options.signal?.aborted) forward();
  options.signal?.addEventListener('abort', forward);
  const pool = new Pool(specs, options, stop);
  try {
    await pool.run();
  } catch (error) {
    throw options.signal?.aborted ? aborted('the download', options.signal) : error;
  } finally {
    options.signal?.removeEventListener('abort', forward);
  }
}

class Pool {
  readonly #options: DownloadOptions;
  readonly #tuning: BlobTuning;
  readonly #stop: AbortController;
  readonly #queue: BlobSpec[];
  /** Of another process, for now. */
  #elsewhere: BlobSpec[] = [];
  readonly #open = new Map<BlobDownload, RemoteFile>();
  /** Blobs whose checksum was wrong once. */
  readonly #wrong = new Set<string>();
  #choosing: Promise<unknown> = Promise.resolve();
  #told = new Set<string>();

  constructor(specs: readonly BlobSpec[], options: DownloadOptions, stop: AbortController) {
    // Two names may be one file.
    this.#queue = [...new Map(specs.map((spec) => [spec.etag, spec])).values()];
    this.#options = options;
    this.#stop = stop;
    const {
      segmentBytes = TUNING.segmentBytes,
      recordBytes = TUNING.recordBytes,
      recordMs = TUNING.recordMs,
    } = options;
    this.#tuning = { segmentBytes, recordBytes, recordMs };
  }

  async run(): Promise<void> {
    const errors: unknown[] = [];
    const connections = Array.from({ length: this.#options.connections ?? 8 }, async () => {
      try {
        for (let job = await this.#next(); job !== undefined; job = await this.#next()) await this.#work(job);
      } catch (error) {
        errors.push(error);
        this.#stop.abort(error);
      }
    });
    await Promise.all(connections);
    for (const download of this.#open.keys()) await download.close().catch((error) => errors.push(error));
    if (errors.length > 0) throw errors[0];
  }

  /** One at a time chooses, so that no file is opened twice. */
  #next(): Promise<Job | undefined> {
    const next = this.#choosing.then(() => this.#choose());
    this.#choosing = next.catch(() => {});
    return next;
  }

  async #choose(): Promise<Job | undefined> {
    for (;;) {
      this.#stop.signal.throwIfAborted();
      for (const [download, remote] of this.#open) {
        const range = download.take();
        if (range !== undefined) return { download, remote, range };
      }
      const spec = this.#queue.shift();
      if (spec !== undefined) {
        const job = await this.#begin(spec);
        if (job !== undefined) return job;
      } else if (this.#elsewhere.length > 0) {
        await pause(LOOK_MS, this.#stop.signal);
        this.#queue.push(...this.#elsewhere.splice(0));
      } else return undefined;
    }
  }

  async #begin(spec: BlobSpec): Promise<Job | undefined> {
    const { http, place, onResumed, onNotice, onBytes } = this.#options;
    const opened = await this.#disk(spec, BlobDownload.open(spec, place(spec), this.#tuning));
    if (opened === 'there') {
      onResumed?.(spec.size);
      return undefined;
    }
    if (!(opened instanceof BlobDownload)) {
      if (!this.#told.has(spec.etag)) onNotice?.(`${spec.path} is being downloaded by ${opened.by}; waiting for it`);
      this.#told.add(spec.etag);
      this.#elsewhere.push(spec);
      return undefined;
    }
    onResumed?.(opened.resumed);
    const remote = new RemoteFile(spec.url, {
      ...http,
      name: spec.path,
      size: spec.size,
      etag: spec.etag,
      signal: this.#stop.signal,
      onBytes,
    });
    this.#open.set(opened, remote);
    const range = opened.take();
    return { download: opened, remote, range };
  }

  async #work({ download, remote, range }: Job): Promise<void> {
    if (range !== undefined) {
      const [start, end] = range;
      const writer = new Collector(start, (bytes, at) => this.#disk(download.spec, download.write(bytes, at)));
      try {
        await remote.stream(start, end, (piece) => writer.push(piece));
      } finally {
        await writer.flush(); // also of a connection that broke for good
      }
      if (!download.done()) return;
    }
    await this.#finish(download);
  }

  async #finish(download: BlobDownload): Promise<void> {
    const { spec } = download;
    if (await this.#disk(spec, download.finish())) {
      this.#open.delete(download);
      return;
    }
    this.#options.onDropped?.(spec.size);
    // Of nothing there is nothing to fetch again.
    if (!this.#wrong.has(spec.etag) && spec.size > 0) {
      this.#wrong.add(spec.etag);
      this.#options.onNotice?.(`${spec.path} has a wrong checksum; it is dropped and downloaded once more`);
      return;
    }
    this.#open.delete(download);
    await download.close({ drop: true });
    throw new TandemError('DOWNLOAD_DAMAGED', {
      room: 'hub',
      rule: `${spec.path} has the checksum that the hub promises (${spec.etag})`,
      given: spec.size > 0 ? 'it came twice with another one and was dropped' : 'it has 0 bytes by the same listing',
      fix: 'something on the way changes the bytes (a proxy, a mirror, bad memory); try another network or HF_ENDPOINT',
    });
  }

  /** System errors of the disk in the user's words. */
  async #disk<T>({ path }: BlobSpec, work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (cause) {
      const { code, message } = cause as NodeJS.ErrnoException;
      if (cause instanceof TandemError || code === undefined) throw cause;
      const full = code === 'ENOSPC' || code === 'EDQUOT';
      throw new TandemError(full ? 'DISK_FULL' : 'FILE_IO', {
        room: 'hub',
        rule: full ? 'the disk has room for the download' : 'the cache can be written',
        given: full ? `it is full at ${path} (${gigabytes(this.#missing())} are still to come)` : message,
        fix: full
          ? 'free space (tandem rm) or set HF_HUB_CACHE, and run it again: what has come is kept'
          : 'check the permissions of the cache, or set HF_HUB_CACHE',
        cause,
      });
    }
  }

  #missing(): number {
    const open = [...this.#open.keys()].map(({ spec, resumed }) => spec.size - resumed);
    return [...open, ...this.#queue.map(({ size }) => size)].reduce((sum, size) => sum + size, 0);
  }
}

/** Gathers pieces of a body into writes worth a system call. */
class Collector {
  readonly #write: (bytes: Uint8Array, at: number) => Promise<void>;
  #buffer = new Uint8Array(WRITE_BYTES);
  #used = 0;
  #at: number;

  constructor(at: number, write: (bytes: Uint8Array, at: number) => Promise<void>) {
    this.#at = at;
    this.#write = write;
  }

  async push(piece: Uint8Array): Promise<void> {
    if (this.#used + piece.length > WRITE_BYTES) await this.flush();
    if (piece.length > WRITE_BYTES) {
      await this.#write(piece, this.#at);
      this.#at += piece.length;
      return;
    }
    this.#buffer.set(piece, this.#used);
    this.#used += piece.length;
  }

  async flush(): Promise<void> {
    const bytes = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    if (bytes.length === 0) return;
    await this.#write(bytes, this.#at);
    this.#at += bytes.length;
  }
}
