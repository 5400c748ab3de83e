/**
 * Byte-pair encoding of one piece of text: the cheapest neighbouring pair is merged, leftmost first, until none is left.
 *
 * What "cheapest" means is the caller's: the place of a pair in a merge list (tokenizer.json, GGUF `gpt2`), the id of
 * the joined token (tiktoken), or its negated score (SentencePiece as in GGUF `llama`). It knows nothing of bytes,
 * regular expressions or special tokens.
 */
import { TandemError } from '../errors.ts';

/** Cost of joining `left` and `right`; undefined where they cannot be joined. Lower is merged first. */
export type PairRank = (left: string, right: string) => number | undefined;

export interface BpeOptions {
  readonly vocab: ReadonlyMap<string, number>;
  readonly rank: PairRank;
  /** A piece that is itself a token becomes that token without merging (Llama 3, gpt-oss, tiktoken). */
  readonly ignoreMerges?: boolean;
  /** Symbols outside the vocabulary become their UTF-8 bytes as tokens `<0x00>` … `<0xFF>`. */
  readonly byteFallback?: boolean;
  readonly unknownId?: number;
  /** Runs of unknown symbols become one unknown token. */
  readonly fuseUnknown?: boolean;
}

/** A pair that may be merged: `size` tells whether it still stands as it stood when it was queued. */
interface Pair {
  readonly rank: number;
  readonly left: number;
  readonly size: number;
}

const CACHE_PIECES = 10_000;
const CACHE_PIECE_LENGTH = 64;

export class Bpe {
  private readonly options: BpeOptions;
  private readonly cache = new Map<string, readonly number[]>();

  constructor(options: BpeOptions) {
    this.options = options;
  }

  /** Ids of a piece. O(n log n), so that a piece of a million symbols is no trap. */
  encode(piece: string): readonly number[] {
    if (piece === '') return [];
    const whole = this.options.ignoreMerges ? this.options.vocab.get(piece) : undefined;
    if (whole !== undefined) return [whole];
    const cached = this.cache.get(piece);
    if (cached !== undefined) return cached;
    const ids = this.toIds(this.merge(Array.from(piece)));
    if (piece.length <= CACHE_PIECE_LENGTH) {
      if (this.cache.size >= CACHE_PIECES) this.cache.clear();
      this.cache.set(piece, ids);
    }
    return ids;
  }

  /** Merges symbols in place over a doubly linked list; a merged-away symbol is ''. */
  private merge(symbols: string[]): string[] {
    const next = symbols.map((_, i) => (i + 1 < symbols.length ? i + 1 : -1));
    const previous = symbols.map((_, i) => i - 1);
    const heap = new PairHeap();
    const offer = (left: number): void => {
      const right = left < 0 ? -1 : next[left];
      if (right < 0) return;
      const rank = this.options.rank(symbols[left], symbols[right]);
      if (rank !== undefined) heap.push({ rank, left, size: symbols[left].length + symbols[right].length });
    };
    for (let i = 0; i < symbols.length - 1; i++) offer(i);
    for (let pair = heap.pop(); pair !== undefined; pair = heap.pop()) {
      const { left, size } = pair;
      const right = next[left];
      // A queued pair is stale once either side has been merged: symbols only ever grow or vanish.
      if (right < 0 || symbols[left] === '' || symbols[left].length + symbols[right].length !== size) continue;
      symbols[left] += symbols[right];
      symbols[right] = '';
      next[left] = next[right];
      if (next[right] >= 0) previous[next[right]] = left;
      next[right] = -1;
      offer(previous[left]);
      offer(left);
    }
    return symbols.filter((symbol) => symbol !== '');
  }

  private toIds(symbols: string[]): number[] {
    const { vocab, byteFallback, unknownId, fuseUnknown } = this.options;
    const ids: number[] = [];
    let afterUnknown = false;
    for (const symbol of symbols) {
      const id = vocab.get(symbol);
      if (id !== undefined) {
        ids.push(id);
        afterUnknown = false;
        continue;
      }
      const bytes = byteFallback ? byteTokens(symbol, vocab) : undefined;
      if (bytes !== undefined) {
        for (const byte of bytes) ids.push(byte);
        afterUnknown = false;
      } else if (unknownId === undefined) {
        throw new TandemError('TOKENIZER_INVALID', {
          room: 'text',
          rule: 'every symbol of a text has a token, a byte token or an unknown token',
          given: `the vocabulary has none for ${JSON.stringify(symbol)}`,
          fix: 'the tokenizer files are incomplete; take them again from the model',
        });
      } else {
        if (!(fuseUnknown && afterUnknown)) ids.push(unknownId);
        afterUnknown = true;
      }
    }
    return ids;
  }
}

/** Ids of the UTF-8 bytes of a symbol, or undefined unless all have a token. */
function byteTokens(symbol: string, vocab: ReadonlyMap<string, number>): number[] | undefined {
  const ids: number[] = [];
  for (const byte of new TextEncoder().encode(symbol)) {
    const id = vocab.get(`<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`);
    if (id === undefined) return undefined;
    ids.push(id);
  }
  return ids;
}

/** Binary min-heap by (rank, left). */
class PairHeap {
  private readonly items: Pair[] = [];

  push(pair: Pair): void {
    const { items } = this;
    let at = items.length;
    items.push(pair);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!before(pair, items[parent])) break;
      items[at] = items[parent];
      at = parent;
    }
    items[at] = pair;
  }

  pop(): Pair | undefined {
    const { items } = this;
    const top = items[0];
    const last = items.pop();
    if (last === undefined || items.length === 0) return top;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= items.length) break;
      if (child + 1 < items.length && before(items[child + 1], items[child])) child++;
      if (!before(items[child], last)) break;
      items[at] = items[child];
      at = child;
    }
    items[at] = last;
    return top;
  }
}

function before(a: Pair, b: Pair): boolean {
  return a.rank < b.rank || (a.rank === b.rank && a.left < b.left);
}
