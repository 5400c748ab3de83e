/** The bound by which prompts are refused unread: no token stands for more bytes than it says. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { tokenizerFrom } from './tokenizer.ts';
import { byteLevelPreTokenizer, mostBytesPerToken, sentencePieceNormalizer, type Vocabulary } from './vocabulary.ts';

const letters = ['a', 'b', 'Ġ', 'ab', 'Ġab', 'Ġabab', 'Ã', '©', 'Ì', 'ģ', 'á', '´'];
const byteLevel: Vocabulary = {
  tokens: [...letters, '<|end|>'],
  ids: new Map(letters.map((letter, id) => [letter, id])),
  rank: (left, right) => (letters.includes(left + right) ? letters.indexOf(left + right) : undefined),
  added: [{ id: letters.length, content: '<|end|>', control: true }],
  spelling: 'byte-level',
  normalizer: null,
  preTokenizer: byteLevelPreTokenizer(['\\s?\\S+']),
  unknownId: 0,
  eosIds: [letters.length],
  addBos: false,
  addEos: false,
};
const composed = { ...byteLevel, normalizer: { type: 'NFC' } };
const pieces: Vocabulary = {
  ...byteLevel,
  tokens: ['<unk>', '▁', 'a', '▁a', '<|end|>'],
  ids: new Map([
    ['▁', 1],
    ['a', 2],
    ['▁a', 3],
  ]),
  rank: (left, right) => (left === '▁' && right === 'a' ? 0 : undefined),
  added: [{ id: 4, content: '<|end|>', control: true }],
  spelling: 'sentencepiece',
  normalizer: sentencePieceNormalizer(true),
  preTokenizer: null,
};

test.each([
  ['bytes', byteLevel, 7 * 3],
  ['composed characters', composed, 7 * 3 * 3],
  ['SentencePiece', pieces, 7 * 3],
])('%s: no text has more bytes than its tokens can stand for', async (_, vocabulary, most) => {
  const tokenizer = await tokenizerFrom(vocabulary);
  expect(tokenizer.bytesPerToken).toBe(most);
  const part = fc.constantFrom(
    'a',
    'b',
    ' ',
    ' ab',
    'ab',
    'é',
    'e\u0301',
    '각',
    '\u1100\u1161\u11a8',
    '<|end|>',
    '\u{1F600}',
  );
  fc.assert(
    fc.property(fc.array(part, { maxLength: 40 }), fc.boolean(), (parts, parseSpecial) => {
      const text = parts.join('');
      const ids = tokenizer.encode(text, { parseSpecial });
      expect(ids.length * most).toBeGreaterThanOrEqual(Buffer.byteLength(text));
    }),
  );
});

test.each<[string, Partial<Vocabulary>]>([
  ['tokens that swallow white space', { added: [{ id: 12, content: '<s>', control: true, stripRight: true }] }],
  ['unknown characters that are one token', { unknownId: 0, fuseUnknown: true }],
  ['pieces that are thrown away', { preTokenizer: { type: 'Split', behavior: 'Removed' } }],
  [
    'another normalizer',
    { normalizer: { type: 'Sequence', normalizers: [{ type: 'NFC' }, { type: 'StripAccents' }] } },
  ],
])('%s: there is no bound', (_, change) => {
  expect(mostBytesPerToken({ ...byteLevel, ...change })).toBeUndefined();
});
