/**
 * One file on its way into a cache: locked, resumed, written in ranges by several connections, hashed as its beginning
 * fills (what an earlier process left is read again), and named by its checksum only when that is right.
 */
import { createHash, type Hash } from 'node:crypto';
import { mkdir, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TandemError } from '../errors.ts';
import { Lock } from './lock.ts';
import { PartialFile } from './partial-file.ts';
import type { Range } from './ranges.ts';

export interface BlobSpec {
  /** Path in the repository, for messages. */
  readonly path: string;
  readonly size: number;
  /** sha256 (64 digits), or git's sha1 of a small file (40). */
  readonly etag: string;
  readonly url: string;
}

/** Where a blob comes to lie and where its lock is. */
export interface BlobPlace {
  readonly blob: string;
  readonly partial: string;
  readonly lock: string;
}

export interface BlobTuning {
  /** Bytes one connection fetches with one request. */
  readonly segmentBytes: number;
  /** The journal is written when so much has come, or after so long. */
  readonly recordBytes: number;
  readonly recordMs: number;
}

const HASH_STEP = 1 << 22;

export class BlobDownload {
  readonly spec: BlobSpec;
  readonly #place: BlobPlace;
  readonly #tuning: BlobTuning;
  readonly #lock: Lock;
  #file: PartialFile;
  #segments: Range[];
  /** Segments that somebody fetches now. */
  #out = 0;
  #recordedAt = performance.now();
  #hash: Hash;
  #hashed = 0;
  #hashing: Promise<void> = Promise.resolve();

  private constructor(spec: BlobSpec, place: BlobPlace, tuning: BlobTuning, lock: Lock, file: PartialFile) {
    this.spec = spec;
    this.#place = place;
    this.#tuning = tuning;
    this.#lock = lock;
    this.#file = file;
    this.#segments = file.ranges.gaps(spec.size, tuning.segmentBytes);
    this.#hash = startHash(spec);
  }

  /** `there`: the blob is complete. A text: who else downloads it. */
  static async open(
    spec: BlobSpec,
    place: BlobPlace,
    tuning: BlobTuning,
  ): Promise<BlobDownload | 'there' | { by: string }> {
    if (await isThere(place.blob, spec.size)) return 'there';
    await mkdir(dirname(place.blob), { recursive: true });
    await mkdir(dirname(place.lock), { recursive: true });
    const lock = await Lock.take(place.lock);
    if (typeof lock === 'string') return { by: lock };
    try {
      if (await isThere(place.blob, spec.size)) {
        await lock.release();
        return 'there';
      }
      return new BlobDownload(spec, place, tuning, lock, await PartialFile.open(place.partial, spec.size));
    } catch (error) {
      await lock.release();
      throw error;
    }
  }

  /** Bytes that an earlier process brought. */
  get resumed(): number {
    return this.#file.ranges.bytes;
  }

  /** The next range nobody fetches; undefined where there is none. Give it back with `gaveBack` when it fails. */
  take(): Range | undefined {
    const segment = this.#segments.shift();
    if (segment !== undefined) this.#out++;
    return segment;
  }

  /** Bytes from `at` on, which came in order. */
  async write(bytes: Uint8Array, at: number): Promise<void> {
    await this.#file.write(bytes, at);
    const now = performance.now();
    const due = this.#file.unrecorded >= this.#tuning.recordBytes || now - this.#recordedAt >= this.#tuning.recordMs;
    if (!due) return;
    this.#recordedAt = now;
    if (!(await this.#lock.held())) throw lost(this.spec);
    await this.#file.record();
    this.#follow();
  }

  /** A segment has come whole. True: it was the last, `finish` is due. */
  done(): boolean {
    this.#out--;
    return this.#out === 0 && this.#segments.length === 0;
  }

  /** Checks the whole and gives it its name. False: the checksum was wrong, everything was dropped and is to come again. */
  async finish(): Promise<boolean> {
    await this.#file.record();
    this.#follow();
    await this.#hashing;
    const { spec } = this;
    if (this.#hashed === spec.size && this.#hash.digest('hex') === spec.etag) {
      if (!(await this.#lock.held())) throw lost(spec);
      await this.#file.finish(this.#place.blob);
      await this.#lock.release();
      return true;
    }
    await this.#file.drop();
    this.#file = await PartialFile.open(this.#place.partial, spec.size);
    this.#segments = this.#file.ranges.gaps(spec.size, this.#tuning.segmentBytes);
    this.#hash = startHash(spec);
    this.#hashed = 0;
    return false;
  }

  /** Leaves what came for the next time, and lets others at it. */
  async close({ drop = false } = {}): Promise<void> {
    try {
      if (!drop) await this.#file.record().catch(() => {}); // a full disk: the journal stays as it was
      await this.#hashing.catch(() => {});
      await (drop ? this.#file.drop() : this.#file.close());
    } finally {
      await this.#lock.release();
    }
  }

  /** Hashes what has come from the beginning without a gap, behind the connections' backs. */
  #follow(): void {
    this.#hashing = this.#hashing.then(async () => {
      const buffer = new Uint8Array(HASH_STEP);
      while (this.#hashed < this.#file.ranges.prefix) {
        const wanted = Math.min(HASH_STEP, this.#file.ranges.prefix - this.#hashed);
        const length = await this.#file.read(buffer, this.#hashed, wanted);
        if (length === 0) return; // cut short by somebody: the checksum will not be right
        this.#hash.update(buffer.subarray(0, length));
        this.#hashed += length;
      }
    });
    this.#hashing.catch(() => {}); // `finish` sees it
  }
}

function startHash({ etag, size }: BlobSpec): Hash {
  return etag.length === 64 ? createHash('sha256') : createHash('sha1').update(`blob ${size}\0`);
}

async function isThere(path: string, size: number): Promise<boolean> {
  return (await stat(path).catch(() => undefined))?.size === size;
}

function lost({ path }: BlobSpec): TandemError {
  return new TandemError('FILE_IO', {
    room: 'hub',
    rule: 'one process at a time downloads a file',
    given: `another one took ${path} over while this one did not move`,
    fix: 'run it again: what has come is kept',
  });
}
