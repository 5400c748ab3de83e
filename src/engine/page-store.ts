/**
 * KV pages of one model on disk, one file each, for prefixes that outlive the process. Made so that a kill at any moment
 * leaves it readable: files are written beside and renamed, each carries its checksum, what does not fit its name is deleted.
 *
 *     magic ‖ version u32 ‖ bytes of the page u32 ‖ tokens i32[64] ‖ sha256 of key, what goes before and page ‖ page
 *
 * KEY = sha256(key of the page before ‖ tokens): a name says what every token up to here was. A disk that fails costs speed,
 * never an answer: errors are counted, and writing rests for a while.
 */
import { createHash } from 'node:crypto';
import { PAGE_TOKENS } from '../program/program.ts';
import type { PageFolder } from './page-folder.ts';

export interface PageStoreOptions {
  readonly folder: PageFolder;
  /** Everything that makes pages differ: the model, the cache's type, the numerics. */
  readonly fingerprint: string;
  /** Of one page. */
  readonly pageBytes: number;
}

export interface PageStoreStats {
  /** Of this model. */
  pages: number;
  bytes: number;
  /** Of all models in the folder. */
  folderBytes: number;
  hits: number;
  written: number;
  /** Files that were damaged, and deleted. */
  corrupt: number;
  /** Reads and writes that the system refused. */
  errors: number;
}

const MAGIC = Buffer.from('TANDEMKV');
const VERSION = 2;
const HEADER = MAGIC.length + 4 + 4 + 4 * PAGE_TOKENS + 32;

export class PageStore {
  readonly #folder: PageFolder;
  readonly #fingerprint: string;
  readonly #model: string;
  readonly #pageBytes: number;
  #hits = 0;
  #written = 0;
  #corrupt = 0;

  constructor({ folder, fingerprint, pageBytes }: PageStoreOptions) {
    this.#folder = folder;
    this.#fingerprint = fingerprint;
    this.#model = createHash('sha256').update(fingerprint).digest('hex').slice(0, 32);
    this.#pageBytes = pageBytes;
  }

  get stats(): PageStoreStats {
    return {
      ...this.#folder.of(this.#model),
      folderBytes: this.#folder.bytes,
      hits: this.#hits,
      written: this.#written,
      corrupt: this.#corrupt,
      errors: this.#folder.errors,
    };
  }

  /** The key of the page with these tokens behind the page `parent` ('' : the first one). */
  key(parent: string, tokens: Int32Array): string {
    const hash = createHash('sha256').update(parent === '' ? this.#fingerprint : parent);
    return hash.update(bytesOf(tokens)).digest('hex');
  }

  has(key: string): boolean {
    return this.#folder.has(this.#name(key));
  }

  /** True where one page more could be kept without another one going. */
  get hasRoom(): boolean {
    return this.#folder.hasRoom(HEADER + this.#pageBytes);
  }

  /** The page, once it proved to be the one of these tokens; undefined where there is none. */
  async read(key: string, tokens: Int32Array): Promise<Uint8Array | undefined> {
    const size = HEADER + this.#pageBytes;
    const file = await this.#folder.read(this.#name(key), size);
    if (file === undefined) return undefined;
    const page = file.subarray(HEADER);
    if (file.length !== size || !this.#header(key, tokens, page).equals(file.subarray(0, HEADER))) {
      this.#corrupt++;
      await this.#folder.delete(this.#name(key));
      return undefined;
    }
    this.#hits++;
    return page;
  }

  /** Keeps a page. Resolves also where the disk refused. */
  async write(key: string, tokens: Int32Array, page: Uint8Array): Promise<void> {
    if (page.length !== this.#pageBytes || this.has(key)) return;
    if (await this.#folder.write(this.#name(key), [this.#header(key, tokens, page), page])) this.#written++;
  }

  /** The pages of one prefix were used, from the first on. */
  use(keys: readonly string[]): void {
    this.#folder.use(keys.map((key) => this.#name(key)));
  }

  #name(key: string): string {
    return `${this.#model}/${key}`;
  }

  #header(key: string, tokens: Int32Array, page: Uint8Array): Buffer {
    const head = Buffer.alloc(HEADER);
    MAGIC.copy(head);
    head.writeUInt32LE(VERSION, MAGIC.length);
    head.writeUInt32LE(page.length, MAGIC.length + 4);
    head.set(bytesOf(tokens), MAGIC.length + 8);
    createHash('sha256')
      .update(key)
      .update(head.subarray(0, HEADER - 32))
      .update(page)
      .digest()
      .copy(head, HEADER - 32);
    return head;
  }
}

function bytesOf(tokens: Int32Array): Uint8Array {
  return new Uint8Array(tokens.buffer, tokens.byteOffset, tokens.byteLength);
}
