/**
 * KV pages on disk, one file each, for prefixes that outlive the process. Made so that a kill at any moment leaves it
 * readable: files are written beside and renamed, every one carries its checksum, what does not fit its name is deleted.
 *
 *     DIR/FINGERPRINT/KEY.page      magic ‖ version ‖ bytes of the page ‖ tokens i32[64] ‖ sha256 of what follows and goes before ‖ page
 *
 * KEY = sha256(key of the page before ‖ tokens): a name says what every token up to here was. Several processes may share a
 * folder. A disk that fails costs speed, never an answer: errors are counted, and writing rests for a while.
 */
import { createHash, randomBytes } from 'node:crypto';
import { mkdir, readdir, readFile, rename, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { TandemError } from '../errors.ts';
import { PAGE_TOKENS } from '../program/program.ts';

export interface PageStoreOptions {
  readonly directory: string;
  /** Everything that makes pages differ: the model, the cache's type, the numerics. */
  readonly fingerprint: string;
  /** Of one page. */
  readonly pageBytes: number;
  /** Most bytes of all files of this fingerprint. */
  readonly maxBytes: number;
}

export interface PageStoreStats {
  pages: number;
  bytes: number;
  hits: number;
  written: number;
  /** Files that were damaged, and deleted. */
  corrupt: number;
  /** Reads and writes that the system refused. */
  errors: number;
}

const MAGIC = Buffer.from('TANDEMKV');
const VERSION = 1;
const HEADER = MAGIC.length + 4 + 4 + 4 * PAGE_TOKENS + 32;
/** Writing rests so long after the disk refused it. */
const REST_MS = 30_000;

interface Entry {
  bytes: number;
  usedAt: number;
}

export class PageStore {
  readonly #options: PageStoreOptions;
  readonly #folder: string;
  readonly #entries = new Map<string, Entry>();
  #bytes = 0;
  #restUntil = 0;
  #hits = 0;
  #written = 0;
  #corrupt = 0;
  #errors = 0;

  private constructor(options: PageStoreOptions) {
    this.#options = options;
    this.#folder = join(options.directory, sha256(options.fingerprint).toString('hex').slice(0, 32));
  }

  /** Opens or makes the folder. FILE_IO where that cannot be. */
  static async open(options: PageStoreOptions): Promise<PageStore> {
    const store = new PageStore(options);
    try {
      await mkdir(store.#folder, { recursive: true, mode: 0o700 });
      await store.#scan();
    } catch (error) {
      throw new TandemError('FILE_IO', {
        room: 'engine',
        rule: 'the folder of the prefix cache can be read and written',
        given: (error as Error).message,
        fix: 'choose another folder, or leave the disk tier off',
        cause: error,
      });
    }
    return store;
  }

  get stats(): PageStoreStats {
    return {
      pages: this.#entries.size,
      bytes: this.#bytes,
      hits: this.#hits,
      written: this.#written,
      corrupt: this.#corrupt,
      errors: this.#errors,
    };
  }

  /** The key of the page with these tokens behind the page `parent` ('' : the first one). */
  key(parent: string, tokens: Int32Array): string {
    const hash = createHash('sha256').update(parent === '' ? this.#options.fingerprint : parent);
    return hash.update(bytesOf(tokens)).digest('hex');
  }

  has(key: string): boolean {
    return this.#entries.has(key);
  }

  /** The page, once it proved to be the one of these tokens; undefined where there is none. */
  async read(key: string, tokens: Int32Array): Promise<Uint8Array | undefined> {
    if (!this.#entries.has(key)) return undefined;
    let file: Buffer;
    try {
      file = await readFile(this.#path(key));
    } catch (error) {
      this.#forget(key); // another process made room
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#errors++;
      return undefined;
    }
    const page = file.subarray(HEADER);
    if (file.length < HEADER || !this.#header(tokens, page).equals(file.subarray(0, HEADER))) {
      this.#corrupt++;
      await this.#delete(key);
      return undefined;
    }
    this.#hits++;
    this.#touch(key);
    return page;
  }

  /** Keeps a page, making room first. Resolves also where the disk refused. */
  async write(key: string, tokens: Int32Array, page: Uint8Array): Promise<void> {
    if (this.#entries.has(key) || Date.now() < this.#restUntil) return;
    const bytes = HEADER + page.length;
    if (page.length !== this.#options.pageBytes || bytes > this.#options.maxBytes) return;
    const beside = join(this.#folder, `.${key}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
    try {
      await this.#makeRoom(bytes);
      await writeFile(beside, Buffer.concat([this.#header(tokens, page), page]), { mode: 0o600 });
      await rename(beside, this.#path(key));
      this.#entries.set(key, { bytes, usedAt: Date.now() });
      this.#bytes += bytes;
      this.#written++;
    } catch {
      this.#errors++;
      this.#restUntil = Date.now() + REST_MS;
      await rm(beside, { force: true }).catch(() => {});
    }
  }

  #path(key: string): string {
    return join(this.#folder, `${key}.page`);
  }

  #header(tokens: Int32Array, page: Uint8Array): Buffer {
    const head = Buffer.alloc(HEADER);
    MAGIC.copy(head);
    head.writeUInt32LE(VERSION, MAGIC.length);
    head.writeUInt32LE(page.length, MAGIC.length + 4);
    head.set(bytesOf(tokens), MAGIC.length + 8);
    createHash('sha256')
      .update(head.subarray(0, HEADER - 32))
      .update(page)
      .digest()
      .copy(head, HEADER - 32);
    return head;
  }

  /** Finds what is there; what a killed process left half written goes. */
  async #scan(): Promise<void> {
    for (const name of await readdir(this.#folder)) {
      const path = join(this.#folder, name);
      const info = await stat(path).catch(() => undefined);
      if (info === undefined) continue;
      const key = /^([0-9a-f]{64})\.page$/.exec(name)?.[1];
      if (key !== undefined) {
        this.#entries.set(key, { bytes: info.size, usedAt: info.mtimeMs });
        this.#bytes += info.size;
      } else if (name.endsWith('.tmp') && Date.now() - info.mtimeMs > 60_000) await rm(path, { force: true });
    }
    await this.#makeRoom(0);
  }

  async #makeRoom(bytes: number): Promise<void> {
    if (this.#bytes + bytes <= this.#options.maxBytes) return;
    const oldest = [...this.#entries].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [key] of oldest) {
      if (this.#bytes + bytes <= this.#options.maxBytes) return;
      await this.#delete(key);
    }
  }

  #touch(key: string): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    const now = new Date();
    entry.usedAt = now.getTime();
    utimes(this.#path(key), now, now).catch(() => {});
  }

  #forget(key: string): void {
    this.#bytes -= this.#entries.get(key)?.bytes ?? 0;
    this.#entries.delete(key);
  }

  async #delete(key: string): Promise<void> {
    this.#forget(key);
    await rm(this.#path(key), { force: true }).catch(() => {
      this.#errors++;
    });
  }
}

function bytesOf(tokens: Int32Array): Uint8Array {
  return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}
