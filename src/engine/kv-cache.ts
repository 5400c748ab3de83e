/**
 * Who owns which KV page. A page holds `PAGE_TOKENS` tokens of all layers; its bytes live in the backend, only ids live
 * here. A page with one owner may be appended to; once it is full it is immutable and may have several owners.
 */
import { TandemError } from '../errors.ts';
import { PAGE_TOKENS } from '../program/program.ts';

/** Pages that hold `tokens` tokens. */
export function pagesFor(tokens: number): number {
  return Math.ceil(tokens / PAGE_TOKENS);
}

export class PagePool {
  /** Pages there are. */
  readonly total: number;
  readonly #owners: Int32Array;
  /** Ids of free pages; the last one is taken next. */
  readonly #free: number[] = [];

  constructor(total: number) {
    if (!Number.isInteger(total) || total < 1)
      throw new TandemError('PLACEMENT_IMPOSSIBLE', {
        room: 'engine',
        rule: 'the KV cache needs at least one page',
        given: `${total} pages were given`,
        fix: `give a larger KV budget; one page holds ${PAGE_TOKENS} tokens`,
      });
    this.total = total;
    this.#owners = new Int32Array(total);
    for (let page = total - 1; page >= 0; page--) this.#free.push(page);
  }

  get free(): number {
    return this.#free.length;
  }

  /** Owners of a page, 0 when it is free. */
  owners(page: number): number {
    return this.#owners[page];
  }

  /** A page with one owner. The caller has looked at `free` first. */
  allocate(): number {
    const page = this.#free.pop();
    if (page === undefined) throw broken('allocate is called only when a page is free', `${this.total} pages in use`);
    this.#owners[page] = 1;
    return page;
  }

  /** One owner more, of a full page. */
  retain(page: number): void {
    if (!(this.#owners[page] > 0)) throw broken('only a page in use can be shared', `page ${page}`);
    this.#owners[page]++;
  }

  /** One owner less; the last one frees the page. */
  release(page: number): void {
    if (!(this.#owners[page] > 0)) throw broken('only a page in use can be released', `page ${page}`);
    if (--this.#owners[page] === 0) this.#free.push(page);
  }

  /** Throws unless `lists`, the pages of every owner there is, account for every page exactly. */
  check(lists: Iterable<Int32Array>): void {
    const seen = new Int32Array(this.total);
    for (const pages of lists) for (const page of pages) seen[page]++;
    for (let page = 0; page < this.total; page++)
      if (seen[page] !== this.#owners[page])
        throw broken(
          'every owner of a page is known',
          `page ${page}: ${this.#owners[page]} counted, ${seen[page]} found`,
        );
    const free = new Set(this.#free);
    if (free.size !== this.#free.length)
      throw broken('a page is free once', `${this.#free.length - free.size} repeated`);
    for (const page of free) if (seen[page] > 0) throw broken('a free page has no owner', `page ${page}`);
    const used = seen.reduce((count, owners) => count + (owners > 0 ? 1 : 0), 0);
    if (used + free.size !== this.total)
      throw broken('no page is lost', `${used} in use + ${free.size} free of ${this.total}`);
  }
}

/** A broken promise of the engine to itself. */
function broken(rule: string, given: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'engine', rule, given });
}
