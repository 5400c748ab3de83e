/**
 * Which full pages hold the keys and values of which tokens: a tree over pages, so that a prompt that begins like an
 * earlier one takes its pages instead of computing them.
 *
 *     root ── page of tokens [0, 64) ── page of [64, 128) ── …        a path is a prefix
 *
 * Pages are found by a hash of their tokens and believed by the tokens themselves. The cache is one owner of each page in
 * it; a page that nobody else owns is given up when pages run out, the least recently used leaf first.
 */
import { PAGE_TOKENS } from '../program/program.ts';
import type { PagePool } from './kv-cache.ts';
import type { Sequence } from './sequence.ts';

export interface PrefixNode {
  readonly page: number;
  readonly tokens: Int32Array;
  readonly parent: PrefixNode | undefined;
  readonly children: Map<number, PrefixNode[]>;
  lastUsed: number;
}

export interface PrefixStats {
  /** Pages in the cache. */
  pages: number;
  /** Tokens of prompts that were looked for, and that were found, since the start. */
  asked: number;
  found: number;
  evicted: number;
}

type Children = Map<number, PrefixNode[]>;

export class PrefixCache {
  readonly #pool: PagePool;
  readonly #root: Children = new Map();
  readonly #nodes = new Set<PrefixNode>();
  /** Called with every page that is taken in by `learn`. */
  onLearned: ((node: PrefixNode) => void) | undefined;
  /** Called when pages are short, for other owners to let go what they can. */
  onShortage: (() => void) | undefined;
  #clock = 0;
  #asked = 0;
  #found = 0;
  #evicted = 0;

  constructor(pool: PagePool) {
    this.#pool = pool;
  }

  get stats(): PrefixStats {
    return { pages: this.#nodes.size, asked: this.#asked, found: this.#found, evicted: this.#evicted };
  }

  /** Every page in the cache, once. For the check of owners. */
  pages(): Int32Array {
    return Int32Array.from(this.#nodes, ({ page }) => page);
  }

  /** Pages that could be freed now. */
  get reclaimable(): number {
    let count = 0;
    for (const { page } of this.#nodes) if (this.#pool.owners(page) === 1) count++;
    return count;
  }

  /** The known pages that `tokens` begin with, from the first on. */
  find(tokens: Int32Array): PrefixNode[] {
    const path: PrefixNode[] = [];
    let children: Children = this.#root;
    for (let start = 0; start + PAGE_TOKENS <= tokens.length; start += PAGE_TOKENS) {
      const node = childOf(children, tokens.subarray(start, start + PAGE_TOKENS));
      if (node === undefined) break;
      path.push(node);
      children = node.children;
    }
    return path;
  }

  /** Gives a sequence without pages the ones that `find` gave: each has one owner more. */
  adopt(sequence: Sequence, path: readonly PrefixNode[]): void {
    for (const node of path) {
      this.#pool.retain(node.page);
      sequence.addPage(node.page);
      this.#touch(node);
    }
    sequence.computedLen = path.length * PAGE_TOKENS;
    sequence.prefix = path.at(-1);
    sequence.prefixPages = path.length;
    this.#asked += sequence.length;
    this.#found += sequence.computedLen;
  }

  /**
   * Takes in the pages that a sequence has filled since the last call. Where another sequence was faster with the same
   * tokens, this one goes on with that page and gives its own back.
   */
  learn(sequence: Sequence): void {
    for (;;) {
      const index = sequence.prefixPages;
      const end = (index + 1) * PAGE_TOKENS;
      if (end > sequence.computedLen) return;
      const tokens = sequence.tokens(index * PAGE_TOKENS, end);
      const page = sequence.pages[index];
      const children = sequence.prefix?.children ?? this.#root;
      const known = childOf(children, tokens);
      const node = known ?? this.insert(sequence.prefix, tokens.slice(), page);
      if (known === undefined) this.onLearned?.(node);
      else if (node.page !== page) {
        this.#pool.retain(node.page);
        sequence.replacePage(index, node.page);
        this.#pool.release(page);
      }
      this.#touch(node);
      sequence.prefix = node;
      sequence.prefixPages++;
    }
  }

  /** Takes in a page with one owner more; where the tokens are known, nothing changes and the known one is returned. */
  insert(parent: PrefixNode | undefined, tokens: Int32Array, page: number): PrefixNode {
    const children = parent?.children ?? this.#root;
    const known = childOf(children, tokens);
    if (known !== undefined) return known;
    const node: PrefixNode = { page, tokens, parent, children: new Map(), lastUsed: 0 };
    const hash = hashOf(tokens);
    const same = children.get(hash);
    if (same) same.push(node);
    else children.set(hash, [node]);
    this.#nodes.add(node);
    this.#pool.retain(page);
    this.#touch(node);
    return node;
  }

  /** True while the node is in the cache. */
  holds(node: PrefixNode): boolean {
    return this.#nodes.has(node);
  }

  /** Frees one page that only the cache owns; false where there is none. */
  evict(): boolean {
    let oldest: PrefixNode | undefined;
    for (const node of this.#nodes) {
      if (node.children.size > 0 || this.#pool.owners(node.page) > 1) continue;
      if (oldest === undefined || node.lastUsed < oldest.lastUsed) oldest = node;
    }
    if (oldest === undefined) return false;
    this.#drop(oldest);
    this.#evicted++;
    return true;
  }

  #drop(node: PrefixNode): void {
    const children = node.parent?.children ?? this.#root;
    const hash = hashOf(node.tokens);
    const rest = (children.get(hash) ?? []).filter((other) => other !== node);
    if (rest.length === 0) children.delete(hash);
    else children.set(hash, rest);
    this.#nodes.delete(node);
    this.#pool.release(node.page);
  }

  #touch(node: PrefixNode): void {
    node.lastUsed = ++this.#clock;
  }
}

function childOf(children: Children, tokens: Int32Array): PrefixNode | undefined {
  return children.get(hashOf(tokens))?.find((node) => node.tokens.every((token, i) => token === tokens[i]));
}

/** FNV-1a over the ids. Collisions cost time, never truth. */
function hashOf(tokens: Int32Array): number {
  let hash = 0x811c9dc5;
  for (const token of tokens) hash = Math.imul(hash ^ token, 0x01000193);
  return hash >>> 0;
}
