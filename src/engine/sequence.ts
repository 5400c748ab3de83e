/**
 * One request as the scheduler sees it: token ids, how far their K and V are computed, and where.
 *
 *     [0, computedLen)       K and V are in `pages`
 *     [computedLen, length)  known tokens still to be computed: a prompt, a token just drawn, or what preemption dropped
 *     computedLen ≤ length ≤ maxLen
 *
 * It knows nothing of text, events or users.
 */

import { pagesFor } from './kv-cache.ts';
import type { PrefixNode } from './prefix-cache.ts';
import type { Sampler } from './sampling.ts';

export type SequenceState = 'new' | 'waiting' | 'running' | 'done';

export interface SequenceOptions {
  readonly prompt: Int32Array;
  /** Most tokens, prompt and generated together. Without a sampler: the prompt's length. */
  readonly maxLen: number;
  /** Draws the tokens after the prompt; null: no token is drawn, the logits of prompt positions are wanted. */
  readonly sampler: Sampler | null;
  /** Without a sampler: the first position whose logits are wanted. Default 0. */
  readonly logitsFrom?: number;
  /** Ids that end the sequence. */
  readonly stopTokens: ReadonlySet<number>;
  /** Higher goes first. Default 0. */
  readonly priority?: number;
}

export class Sequence {
  readonly promptLen: number;
  readonly maxLen: number;
  readonly sampler: Sampler | null;
  readonly stopTokens: ReadonlySet<number>;
  readonly priority: number;
  state: SequenceState = 'new';
  /** Why it ended by itself: a stop token, or `maxLen`. */
  finish: 'stop' | 'length' | undefined;
  /** Arrival number: lower is older. Given by the scheduler. */
  order = -1;
  /** Cancel flag of the backend while running, else −1. */
  slot = -1;
  computedLen = 0;
  /** Prompt tokens that were found computed when it first ran. */
  cachedLen = 0;
  /** Its leading pages that the prefix cache knows, and the last of them there. */
  prefixPages = 0;
  prefix: PrefixNode | undefined;
  /** Number of the pass that last had rows of this sequence. */
  lastPass = 0;
  preemptions = 0;
  #tokens: Int32Array;
  #length: number;
  #pages: Int32Array;
  #pageCount = 0;
  #outputFrom: number;

  constructor({ prompt, maxLen, sampler, stopTokens, logitsFrom = 0, priority = 0 }: SequenceOptions) {
    this.promptLen = prompt.length;
    this.maxLen = sampler ? maxLen : prompt.length;
    this.sampler = sampler;
    this.stopTokens = stopTokens;
    this.priority = priority;
    this.#tokens = prompt.slice();
    this.#length = prompt.length;
    this.#pages = new Int32Array(pagesFor(this.maxComputed));
    this.#outputFrom = sampler ? prompt.length - 1 : logitsFrom;
  }

  get length(): number {
    return this.#length;
  }
  get generatedLen(): number {
    return this.#length - this.promptLen;
  }
  /** Positions that will ever be computed: the last token drawn is never fed back. */
  get maxComputed(): number {
    return this.sampler ? this.maxLen - 1 : this.maxLen;
  }
  /** Known tokens still to be computed; 1 in steady decode. */
  get pendingLen(): number {
    return this.#length - this.computedLen;
  }
  /** First position whose logits are still wanted; all from there on are. */
  get outputFrom(): number {
    return this.#outputFrom;
  }
  /** Block table, in order. A view: it changes with the sequence. */
  get pages(): Int32Array {
    return this.#pages.subarray(0, this.#pageCount);
  }
  /** Token ids [start, end), a view. */
  tokens(start = 0, end = this.#length): Int32Array {
    return this.#tokens.subarray(start, end);
  }

  /** False while the mask of its next draw is being made: rows may be computed, no token drawn. */
  get drawable(): boolean {
    return this.sampler?.guide?.ready ?? true;
  }

  /** Output rows that computing `rows` more positions makes. */
  outputsFor(rows: number): number {
    return Math.max(0, this.computedLen + rows - Math.max(this.#outputFrom, this.computedLen));
  }

  addPage(page: number): void {
    this.#pages[this.#pageCount++] = page;
  }
  /** Puts another page with the same keys and values in the place of one. */
  replacePage(index: number, page: number): void {
    this.#pages[index] = page;
  }
  /** Forgets the pages, for the scheduler to release. */
  takePages(): Int32Array {
    const pages = this.pages;
    this.#pageCount = 0;
    this.computedLen = 0;
    this.prefixPages = 0;
    this.prefix = undefined;
    return pages;
  }

  /** A drawn token. */
  append(token: number): void {
    if (this.#length === this.#tokens.length) {
      const larger = new Int32Array(Math.min(this.maxLen, Math.max(64, this.#length * 2)));
      larger.set(this.#tokens);
      this.#tokens = larger;
    }
    this.#tokens[this.#length++] = token;
    this.#outputFrom = this.#length - 1;
    this.sampler?.count(token);
    if (this.stopTokens.has(token)) this.finish = 'stop';
    else if (this.#length >= this.maxLen) this.finish = 'length';
  }

  /** Logits up to `end` were handed out; preemption does not ask for them again. */
  delivered(end: number): void {
    this.#outputFrom = end;
    if (end === this.#length) this.finish = 'length';
  }
}
