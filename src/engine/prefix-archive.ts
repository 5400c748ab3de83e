/**
 * Moves KV pages between the prefix cache and the disk: what sequences fill is kept in the background, what a new prompt
 * begins with is brought back before it is queued. Best effort in both directions.
 */
import { PAGE_TOKENS } from '../program/program.ts';
import type { PagePool } from './kv-cache.ts';
import type { PageStore } from './page-store.ts';
import type { PrefixCache, PrefixNode } from './prefix-cache.ts';

/** Access to the bytes of pages; both wait for the pass in flight. */
export interface PageAccess {
  readPage(page: number): Promise<Uint8Array>;
  writePage(page: number, bytes: Uint8Array): Promise<void>;
}

/** Pages that wait to be written; more are dropped: they can be computed again. */
const MAX_PENDING = 1024;

export class PrefixArchive {
  readonly #store: PageStore;
  readonly #cache: PrefixCache;
  readonly #pool: PagePool;
  readonly #access: PageAccess;
  readonly #keys = new WeakMap<PrefixNode, string>();
  readonly #pending: PrefixNode[] = [];
  #saving: Promise<void> | undefined;
  readonly #released: () => void;

  /** `released` is called when a page was let go that somebody may wait for. */
  constructor(store: PageStore, cache: PrefixCache, pool: PagePool, access: PageAccess, released: () => void) {
    this.#store = store;
    this.#cache = cache;
    this.#pool = pool;
    this.#access = access;
    this.#released = released;
    cache.onLearned = (node) => this.#learned(node);
    cache.onShortage = () => this.#drop();
  }

  get stats() {
    return this.#store.stats;
  }

  /** Brings back the pages that `tokens` begin with, as far as the disk has them and pages are free. */
  async restore(tokens: Int32Array, signal?: AbortSignal): Promise<void> {
    const known = this.#cache.find(tokens);
    let parent = known.at(-1);
    let key = parent === undefined ? '' : this.#keyOf(parent);
    for (let start = known.length * PAGE_TOKENS; start + PAGE_TOKENS < tokens.length; start += PAGE_TOKENS) {
      const ids = tokens.slice(start, start + PAGE_TOKENS);
      key = this.#store.key(key, ids);
      if (signal?.aborted || !this.#store.has(key)) return;
      const bytes = await this.#store.read(key, ids);
      if (bytes === undefined) return;
      const page = this.#take();
      if (page === undefined) return;
      try {
        await this.#access.writePage(page, bytes);
        // Somebody may have computed it meanwhile, or given up what goes before.
        if (parent !== undefined && !this.#cache.holds(parent)) return;
        parent = this.#cache.insert(parent, ids, page);
        this.#keys.set(parent, key);
      } catch {
        return;
      } finally {
        this.#pool.release(page);
        this.#released();
      }
    }
  }

  /** Writes what waits; resolves when all is on disk. */
  async flush(): Promise<void> {
    await this.#saving;
  }

  #take(): number | undefined {
    if (this.#pool.free === 0) this.#cache.evict();
    return this.#pool.free > 0 ? this.#pool.allocate() : undefined;
  }

  #keyOf(node: PrefixNode): string {
    let key = this.#keys.get(node);
    if (key === undefined) {
      key = this.#store.key(node.parent === undefined ? '' : this.#keyOf(node.parent), node.tokens);
      this.#keys.set(node, key);
    }
    return key;
  }

  #learned(node: PrefixNode): void {
    if (this.#pending.length >= MAX_PENDING || this.#store.has(this.#keyOf(node))) return;
    this.#pool.retain(node.page);
    this.#pending.push(node);
    this.#saving ??= this.#save();
  }

  async #save(): Promise<void> {
    for (let node = this.#pending.shift(); node !== undefined; node = this.#pending.shift()) {
      let bytes: Uint8Array | undefined;
      try {
        bytes = await this.#access.readPage(node.page);
      } catch {} // disposed meanwhile
      this.#pool.release(node.page);
      this.#released();
      if (bytes !== undefined) await this.#store.write(this.#keyOf(node), node.tokens, bytes);
    }
    this.#saving = undefined; // before anybody else runs: a page learned next is saved too
  }

  #drop(): void {
    for (const node of this.#pending.splice(0)) this.#pool.release(node.page);
  }
}
