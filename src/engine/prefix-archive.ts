/**
 * Moves KV pages between the prefix cache and the disk: what sequences fill is kept in the background, what a new prompt
 * begins with is brought back before it is queued. Best effort in both directions.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { PAGE_TOKENS } from '../program/program.ts';
import type { PagePool } from './kv-cache.ts';
import type { PageStore } from './page-store.ts';
import type { PrefixCache, PrefixNode } from './prefix-cache.ts';

interface Wanted {
  readonly key: string;
  readonly ids: Int32Array;
}

/** Access to the bytes of pages; both wait for the pass in flight. */
export interface PageAccess {
  readPage(page: number): Promise<Uint8Array>;
  writePage(page: number, bytes: Uint8Array): Promise<void>;
}

/** Pages that wait to be written; more are dropped: they can be computed again. */
const MAX_PENDING = 1024;
/** Pages that cross into or out of the backend together: a pass in flight is waited for once for all of them. */
const CROSSING = 16;

export class PrefixArchive {
  readonly #store: PageStore;
  readonly #cache: PrefixCache;
  readonly #pool: PagePool;
  readonly #access: PageAccess;
  readonly #keys = new WeakMap<PrefixNode, string>();
  readonly #pending: PrefixNode[] = [];
  /** Pending, or being written. */
  readonly #queued = new Set<PrefixNode>();
  #saving: Promise<void> | undefined;
  #closed = false;
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
    const keys = known.map((node) => this.#keyOf(node));
    // What the disk lost, or refused to take, and memory still has.
    if (this.#store.hasRoom) for (const node of known) this.#learned(node);
    const wanted: Wanted[] = [];
    for (let start = known.length * PAGE_TOKENS; start + PAGE_TOKENS < tokens.length; start += PAGE_TOKENS) {
      const ids = tokens.slice(start, start + PAGE_TOKENS);
      const key = this.#store.key(keys.at(-1) ?? '', ids);
      if (!this.#store.has(key)) break;
      wanted.push({ key, ids });
      keys.push(key);
    }
    this.#store.use(keys);
    let parent = known.at(-1);
    for (let i = 0; i < wanted.length; i += CROSSING) {
      if (signal?.aborted) return;
      const pieces = wanted.slice(i, i + CROSSING);
      const last = await this.#bring(pieces, parent);
      if (last === undefined) return;
      parent = last;
    }
  }

  /** Brings some pages that follow `parent`; the last one, or undefined where not all came. */
  async #bring(pieces: readonly Wanted[], parent: PrefixNode | undefined): Promise<PrefixNode | undefined> {
    const found = await Promise.all(pieces.map(({ key, ids }) => this.#store.read(key, ids)));
    const pages: number[] = [];
    try {
      const written: Promise<void>[] = [];
      for (const bytes of found) {
        const page = bytes && this.#take();
        if (bytes === undefined || page === undefined) break;
        pages.push(page);
        written.push(this.#access.writePage(page, bytes));
      }
      const outcomes = await Promise.allSettled(written);
      let last = parent;
      for (const [i, { status }] of outcomes.entries()) {
        // Somebody may have given up what goes before.
        if (status === 'rejected' || (last !== undefined && !this.#cache.holds(last))) return undefined;
        // Or computed this one meanwhile.
        last = this.#cache.insert(last, pieces[i].ids, pages[i]);
        this.#keys.set(last, pieces[i].key);
      }
      return pages.length === pieces.length ? last : undefined;
    } finally {
      for (const page of pages) this.#pool.release(page);
      if (pages.length > 0) this.#released();
    }
  }

  /** Writes what waits, for at most `patienceMs`; the rest is let go, and nothing is written from then on. */
  async close(patienceMs: number): Promise<void> {
    if (this.#saving === undefined) return;
    const patience = new AbortController();
    const late = sleep(patienceMs, undefined, { signal: patience.signal }).catch(() => {});
    await Promise.race([this.#saving, late]);
    patience.abort();
    this.#closed = true;
    this.#drop();
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
    if (this.#pending.length >= MAX_PENDING || this.#queued.has(node) || this.#store.has(this.#keyOf(node))) return;
    this.#pool.retain(node.page);
    this.#queued.add(node);
    this.#pending.push(node);
    this.#saving ??= this.#save();
  }

  async #save(): Promise<void> {
    while (this.#pending.length > 0) {
      const nodes = this.#pending.splice(0, CROSSING);
      const read = await Promise.allSettled(nodes.map(({ page }) => this.#access.readPage(page)));
      for (const { page } of nodes) this.#pool.release(page);
      this.#released();
      for (const [i, node] of nodes.entries()) {
        const page = read[i];
        // Else: disposed meanwhile.
        if (page.status === 'fulfilled' && !this.#closed)
          await this.#store.write(this.#keyOf(node), node.tokens, page.value);
        this.#queued.delete(node);
      }
      const last = nodes.at(-1);
      if (last !== undefined) this.#store.use(this.#path(last));
    }
    this.#saving = undefined; // before anybody else runs: a page learned next is saved too
  }

  /** Keys from the first page to this one. */
  #path(node: PrefixNode): string[] {
    const keys: string[] = [];
    for (let at: PrefixNode | undefined = node; at !== undefined; at = at.parent) keys.push(this.#keyOf(at));
    return keys.reverse();
  }

  #drop(): void {
    for (const node of this.#pending.splice(0)) {
      this.#queued.delete(node);
      this.#pool.release(node.page);
    }
  }
}
