import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { Detokenizer } from './detokenizer.ts';

/** A vocabulary of single bytes. */
const bytes = { tokenBytes: (id: number) => Uint8Array.of(id) };

const run = (ids: Iterable<number>): string[] => {
  const detokenizer = new Detokenizer(bytes);
  const parts = Array.from(ids, (id) => detokenizer.push(id));
  return [...parts, detokenizer.flush()];
};

describe('Detokenizer', () => {
  test('gives the text of any byte-wise stream and splits no code point', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        const parts = run(new TextEncoder().encode(text));
        expect(parts.join('')).toBe(text);
        for (const part of parts) expect(() => encodeURIComponent(part)).not.toThrow(); // throws on half a pair
      }),
    );
  });

  test('agrees with decoding at once, also for bytes that are no UTF-8', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (ids) => {
        expect(run(ids).join('')).toBe(new TextDecoder('utf-8', { ignoreBOM: true }).decode(ids));
      }),
    );
  });

  test('holds back an emoji until it is complete', () => {
    expect(run(new TextEncoder().encode('🙂!'))).toEqual(['', '', '', '🙂', '!', '']);
  });

  test('an incomplete end becomes U+FFFD, and the next text starts afresh', () => {
    const detokenizer = new Detokenizer(bytes);
    expect(detokenizer.push(0xe6)).toBe('');
    expect(detokenizer.flush()).toBe('\ufffd');
    expect(detokenizer.push(0x61)).toBe('a');
  });

  test('keeps U+FEFF at the start', () => {
    expect(run([0xef, 0xbb, 0xbf, 0x61]).join('')).toBe('\ufeffa');
  });
});
