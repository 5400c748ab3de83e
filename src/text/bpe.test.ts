import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Bpe } from './bpe.ts';
import { rankByMerges } from './vocabulary.ts';

const merges = ['a a', 'a b', 'aa b', 'b c', 'ab c', 'aa aa', 'c c', 'aab c'];
const tokens = [...'abc', ...merges.map((merge) => merge.replace(' ', ''))];
const vocab = new Map(tokens.map((token, id) => [token, id]));
const rank = rankByMerges(merges);

/** The definition: look at all neighbours, join the best and leftmost, again and again. */
function slowly(text: string): number[] {
  const symbols = Array.from(text);
  for (;;) {
    let best = -1;
    let bestRank = Infinity;
    for (let i = 0; i + 1 < symbols.length; i++) {
      const r = rank(symbols[i], symbols[i + 1]) ?? Infinity;
      if (r < bestRank) [best, bestRank] = [i, r];
    }
    if (best < 0) return symbols.map((symbol) => vocab.get(symbol) as number);
    symbols.splice(best, 2, symbols[best] + symbols[best + 1]);
  }
}

describe('Bpe', () => {
  test('agrees with the definition', () => {
    const bpe = new Bpe({ vocab, rank });
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 100 }), (text) => {
        expect(bpe.encode(text)).toEqual(slowly(text));
      }),
      { numRuns: 500 },
    );
  });

  test('a long piece takes no quadratic time', () => {
    const ids = new Bpe({ vocab, rank }).encode('a'.repeat(100_000));
    expect(ids).toEqual(new Array(25_000).fill(vocab.get('aaaa')));
  });

  test('unknown symbols: an unknown token, one for a run, byte tokens, or an error', () => {
    expect(new Bpe({ vocab, rank, unknownId: 99 }).encode('axyb')).toEqual([0, 99, 99, 1]);
    expect(new Bpe({ vocab, rank, unknownId: 99, fuseUnknown: true }).encode('axyb')).toEqual([0, 99, 1]);
    const bytes = new Map([...vocab, ['<0xC3>', 50], ['<0xA9>', 51]] as [string, number][]);
    expect(new Bpe({ vocab: bytes, rank, byteFallback: true }).encode('aé')).toEqual([0, 50, 51]);
    expect(() => new Bpe({ vocab, rank }).encode('ax')).toThrow(/has none for "x"/);
  });

  test('ignoreMerges takes a piece that is a token as it is', () => {
    const odd = new Map([...vocab, ['cab', 70]] as [string, number][]);
    expect(new Bpe({ vocab: odd, rank }).encode('cab')).toEqual([2, vocab.get('ab')]);
    expect(new Bpe({ vocab: odd, rank, ignoreMerges: true }).encode('cab')).toEqual([70]);
  });
});
