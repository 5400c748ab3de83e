/**
 * The folder that page files of all models lie in, and its one size: what was used longest ago goes first, of whatever model.
 *
 *     DIR/MODEL/KEY.page        MODEL: 32 hex digits, KEY: 64
 *     DIR/MODEL/.KEY.….tmp      being written; renamed when whole, deleted when its writer is long gone
 *
 * There is no lock, so none can be left behind: files appear by renaming and go by deleting, both at once for everybody, and
 * a reader whose file went has a miss. Processes that share a folder look again now and then at what the others did, and
 * agree on what is oldest; between two looks it may be larger than it should by what they wrote. Nothing that is not named
 * like a page is ever touched.
 */
import { randomBytes } from 'node:crypto';
import * as fs from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { TandemError } from '../errors.ts';
import { systemReason } from '../formats/file-source.ts';

/** What a folder does to the disk; tests put faults here. */
export type FolderFiles = Pick<
  typeof fs,
  'lstat' | 'mkdir' | 'readdir' | 'readFile' | 'rename' | 'rm' | 'rmdir' | 'utimes' | 'writeFile'
>;

export interface PageFolderOptions {
  readonly directory: string;
  /** Most bytes of all files. */
  readonly maxBytes: number;
  readonly files?: FolderFiles;
}

interface Entry {
  bytes: number;
  /** Milliseconds since 1970; the order of going. */
  usedAt: number;
  /** `usedAt` as the file's time tells it to others. */
  toldAt: number;
}

/** Writing rests so long after the disk refused it. */
const REST_MS = 30_000;
/** A half-written file of this age has no writer any more. */
const STALE_MS = 300_000;
/** Times of files are told to others at most so often. */
const TELL_MS = 60_000;
/** The folder is looked through at most so often because it is full. */
const LOOK_MS = 10_000;

/** A disk that is full is no reason not to begin: it may be read, and have room later. */
const FULL = ['ENOSPC', 'EDQUOT', 'EFBIG'];

export class PageFolder {
  readonly #directory: string;
  readonly #maxBytes: number;
  readonly #files: FolderFiles;
  /** By `MODEL/KEY`. */
  readonly #entries = new Map<string, Entry>();
  /** By `MODEL`. */
  readonly #models = new Map<string, { pages: number; bytes: number }>();
  #bytes = 0;
  /** Of files that are being written by others. */
  #halfBytes = 0;
  #writtenSince = 0;
  #lookedAt = 0;
  #restUntil = 0;
  #errors = 0;

  private constructor({ directory, maxBytes, files = fs }: PageFolderOptions) {
    this.#directory = directory;
    this.#maxBytes = maxBytes;
    this.#files = files;
  }

  /** Opens or makes the folder and finds what is there. FILE_IO where it cannot be read and written. */
  static async open(options: PageFolderOptions): Promise<PageFolder> {
    const folder = new PageFolder(options);
    try {
      await folder.#make(options.directory);
      await folder.#try();
      await folder.#look();
    } catch (error) {
      throw new TandemError('FILE_IO', {
        room: 'engine',
        rule: 'the folder of the prefix cache can be read and written',
        given: `${options.directory}: ${systemReason(error)}`,
        fix: 'choose another folder, or leave the disk tier off',
        cause: error,
      });
    }
    await folder.#makeRoom(0);
    return folder;
  }

  /** Bytes of all pages of all models. */
  get bytes(): number {
    return this.#bytes;
  }
  /** Reads and writes that the system refused. */
  get errors(): number {
    return this.#errors;
  }

  /** Pages of a model, and their bytes. */
  of(model: string): { readonly pages: number; readonly bytes: number } {
    return this.#models.get(model) ?? { pages: 0, bytes: 0 };
  }

  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /** True where a page of so many bytes could be kept without another one going. */
  hasRoom(bytes: number): boolean {
    return this.#bytes + this.#halfBytes + bytes <= this.#maxBytes && Date.now() >= this.#restUntil;
  }

  /** A file's bytes; undefined where there is none any more, or it cannot be read. `limit`: larger ones are cut off there. */
  async read(name: string, limit: number): Promise<Buffer | undefined> {
    if (!this.#entries.has(name)) return undefined;
    try {
      const path = this.#path(name);
      const { size } = await this.#files.lstat(path);
      return size > limit ? Buffer.alloc(0) : await this.#files.readFile(path);
    } catch (error) {
      this.#forget(name); // another process made room
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') this.#errors++;
      return undefined;
    }
  }

  /** Keeps a file, making room first. False where the disk refuses, or refused a moment ago. */
  async write(name: string, parts: readonly Uint8Array[]): Promise<boolean> {
    const bytes = parts.reduce((sum, part) => sum + part.length, 0);
    if (this.#entries.has(name) || Date.now() < this.#restUntil || bytes > this.#maxBytes) return false;
    const [model, key] = name.split('/');
    const beside = join(this.#directory, model, `.${key}.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
    try {
      await this.#makeRoom(bytes);
      await this.#make(join(this.#directory, model));
      await this.#files.writeFile(beside, parts, { mode: 0o600 });
      await this.#files.rename(beside, this.#path(name));
    } catch {
      this.#errors++;
      this.#restUntil = Date.now() + REST_MS;
      await this.#files.rm(beside, { force: true }).catch(() => {});
      return false;
    }
    const now = Date.now();
    this.#remember(name, { bytes, usedAt: now, toldAt: now });
    this.#writtenSince += bytes;
    return true;
  }

  /** Pages of one prefix were used, in its order: what comes later in it goes earlier, for it is worth nothing alone. */
  use(names: readonly string[]): void {
    const now = Date.now();
    names.forEach((name, depth) => {
      const entry = this.#entries.get(name);
      if (entry === undefined) return;
      entry.usedAt = now - depth;
      if (entry.usedAt - entry.toldAt < TELL_MS) return;
      entry.toldAt = entry.usedAt;
      const time = new Date(entry.usedAt);
      this.#files.utimes(this.#path(name), time, time).catch((error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') this.#forget(name); // so that it is kept anew
      });
    });
  }

  async delete(name: string): Promise<void> {
    this.#forget(name);
    await this.#files.rm(this.#path(name), { force: true }).catch(() => {
      this.#errors++;
    });
  }

  #path(name: string): string {
    return join(this.#directory, `${name}.page`);
  }

  #remember(name: string, entry: Entry): void {
    this.#forget(name);
    this.#entries.set(name, entry);
    this.#count(name, 1, entry.bytes);
  }

  #forget(name: string): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    this.#entries.delete(name);
    this.#count(name, -1, -entry.bytes);
  }

  #count(name: string, pages: number, bytes: number): void {
    const model = name.slice(0, name.indexOf('/'));
    const known = this.of(model);
    this.#models.set(model, { pages: known.pages + pages, bytes: known.bytes + bytes });
    this.#bytes += bytes;
  }

  /** A folder and those it lies in. (Node's own recursion never ends where the system has no such place, as in /proc.) */
  async #make(path: string, parents = true): Promise<void> {
    try {
      await this.#files.mkdir(path, { mode: 0o700 });
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EEXIST') return;
      if (code !== 'ENOENT' || !parents || dirname(path) === path) throw error;
      await this.#make(dirname(path));
      await this.#make(path, false);
    }
  }

  /** Whether files can be made here. */
  async #try(): Promise<void> {
    const path = join(this.#directory, `.${process.pid}.${randomBytes(4).toString('hex')}.tmp`);
    try {
      await this.#files.writeFile(path, '', { mode: 0o600 });
      await this.#files.rm(path, { force: true });
    } catch (error) {
      if (!FULL.includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
      this.#errors++;
    }
  }

  async #makeRoom(bytes: number): Promise<void> {
    const over = () => this.#bytes + this.#halfBytes + bytes - this.#maxBytes;
    const since = Date.now() - this.#lookedAt;
    if (this.#writtenSince > this.#maxBytes / 16 || (over() > 0 && since > LOOK_MS))
      await this.#look().catch(() => {
        this.#errors++;
      });
    if (over() <= 0) return;
    const target = -this.#maxBytes / 64; // a little more than needed, so that not every page has to sort them all
    const oldest = [...this.#entries].sort(([, a], [, b]) => a.usedAt - b.usedAt);
    for (const [name, { bytes: freed }] of oldest) {
      if (over() <= 0 && over() - freed < target) return;
      await this.delete(name);
    }
  }

  /** Finds what is there: pages of every model, also such that other processes made or deleted meanwhile. */
  async #look(): Promise<void> {
    this.#lookedAt = Date.now();
    this.#writtenSince = 0;
    const gone = new Set(this.#entries.keys());
    let half = 0;
    for (const model of await this.#files.readdir(this.#directory)) {
      if (!/^[0-9a-f]{32}$/.test(model)) continue;
      const folder = join(this.#directory, model);
      const names = await this.#files.readdir(folder).catch(() => undefined);
      if (names?.length === 0) await this.#files.rmdir(folder).catch(() => {}); // of a model that is used no more
      for (const name of names ?? []) {
        const key = /^([0-9a-f]{64})\.page$/.exec(name)?.[1];
        if (key === undefined && !/^\.[0-9a-f]{64}\..*\.tmp$/.test(name)) continue;
        const path = join(folder, name);
        const info = await this.#files.lstat(path).catch(() => undefined);
        if (!info?.isFile()) continue;
        if (key !== undefined) {
          const page = `${model}/${key}`;
          gone.delete(page);
          const known = this.#entries.get(page);
          // Told by another process; else this one knows better.
          const told = known === undefined || info.mtimeMs - known.toldAt > TELL_MS / 2;
          const usedAt = told ? Math.max(info.mtimeMs, known?.usedAt ?? 0) : known.usedAt;
          this.#remember(page, { bytes: info.size, usedAt, toldAt: told ? info.mtimeMs : known.toldAt });
        } else if (Date.now() - info.mtimeMs > STALE_MS) await this.#files.rm(path, { force: true }).catch(() => {});
        else half += info.size;
      }
    }
    this.#halfBytes = half;
    for (const name of gone) this.#forget(name);
  }
}
