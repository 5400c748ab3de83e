import fc from 'fast-check';
import { afterAll, describe, expect, test } from 'vitest';
import { byteTokenizer, END } from '../../test/engine/fake-tokenizer.ts';
import { type FormatMatcher, GrammarCompiler, type OutputFormat } from './grammar.ts';
import { regexClasses, schemaClasses } from './letter-classes.ts';

const VOCAB = 260;
const compiler = new GrammarCompiler(byteTokenizer, VOCAB);
afterAll(() => compiler.dispose());

const may = ({ mask }: FormatMatcher, id: number) => ((mask[id >> 5] >>> (id & 31)) & 1) === 1;

/** Whether an output may be this text and end there. */
async function takes(format: OutputFormat, text: string): Promise<boolean> {
  const matcher = await compiler.matcher(format);
  try {
    for (const byte of Buffer.from(text)) {
      if (!may(matcher, byte)) return false;
      matcher.accept(byte);
      await matcher.settled;
    }
    return may(matcher, END);
  } finally {
    matcher.dispose();
  }
}

const regex = (pattern: string): OutputFormat => ({ type: 'regex', pattern });
const inJson = (pattern: string): OutputFormat => ({ type: 'schema', schema: { type: 'string', pattern } });

describe('letters beyond ASCII', () => {
  test.each<[string, string, string[], string[]]>([
    ['a range of one length', '[α-ω]{2}', ['αω', 'βγ'], ['α', 'αa', 'Ωα']],
    ['several of a range of one sequence', '[😀-😎]{2}[α-ν]*', ['😀😎', '😂😂αβ'], ['😂', '😂😏', '😂😂ω']],
    ['a range', '[一-龥]', ['一', '个', '龥'], ['!', 'a', '\u4dff']],
    ['a range from ASCII on', '[a-ω]', ['a', 'z', 'é', 'ω'], ['A', 'ϊ']],
    ['single ones', '[äöü]+', ['ä', 'öü'], ['ë', 'a']],
    ['a complement', '[^α-ω]', ['a', 'Ω', '个', '😀'], ['α', 'ω', '\n\n']],
    ['a range up to the last', '[\\u{10000}-\\u{10ffff}]', ['😀', '\u{10ffff}'], ['个', 'a']],
    ['a dot', 'a.b', ['axb', 'a个b', 'a😀b'], ['a\nb', 'ab', 'axxb']],
    ['escapes', '\\d\\w\\s\\S\\.', ['1a x.', '1_\t[.'], ['1a  .', '1a xx', '1- x.']],
    ['a class with a bracket', '[\\]\\[]', ['[', ']'], ['\\', 'a']],
  ])('%s', async (_, pattern, good, bad) => {
    for (const text of good) expect([text, await takes(regex(pattern), text)]).toEqual([text, true]);
    for (const text of bad) expect([text, await takes(regex(pattern), text)]).toEqual([text, false]);
  });

  test('in EBNF', async () => {
    const grammar = 'root ::= [α-ω] "[a-ω]" # [α"\n  | [^à-ÿ] "."';
    for (const text of ['β[a-ω]', 'β.', '个.']) expect(await takes({ type: 'ebnf', grammar }, text)).toBe(true);
    for (const text of ['a[a-ω]', 'é.', 'β']) expect(await takes({ type: 'ebnf', grammar }, text)).toBe(false);
  });
});

describe('patterns in a JSON string', () => {
  test('never end or break it', async () => {
    for (const pattern of ['^.+$', '^[^a]+$', '^\\S+$', '^\\D+$', '^["b]+$']) {
      expect(await takes(inJson(pattern), '"b"')).toBe(true);
      for (const text of ['"b"b"', '"b\nb"', '"b\\"']) expect(await takes(inJson(pattern), text)).toBe(false);
    }
  });

  test('letters that JSON escapes are written so', async () => {
    expect(await takes(inJson('^a"b\\\\\\n$'), '"a\\"b\\\\\\n"')).toBe(true);
    expect(await takes(inJson('^a"b$'), '"a"b"')).toBe(false);
  });
});

test('bounds of fractions, which the library draws wrongly, are left out; those of integers are kept', async () => {
  const bounded = { minimum: 0, exclusiveMaximum: 1 };
  expect(schemaClasses({ type: ['number', 'null'], ...bounded })).toEqual({ type: ['number', 'null'] });
  expect(schemaClasses({ type: 'integer', ...bounded })).toEqual({ type: 'integer', ...bounded });
  const format: OutputFormat = { type: 'schema', schema: { type: 'number', minimum: 0, maximum: 0.5 } };
  expect(await takes(format, '0.5')).toBe(true);
  expect(await takes(format, '0,5')).toBe(false);
});

test('names and values that look like fields stay', () => {
  const schema = {
    properties: { pattern: { type: 'string', pattern: '.' }, minimum: { const: { pattern: '.' } }, type: 'number' },
    enum: [{ pattern: '.' }],
  };
  const read = schemaClasses(schema);
  expect(read.properties.pattern.pattern).not.toBe('.');
  expect(read.properties.minimum).toEqual({ const: { pattern: '.' } });
  expect(read.enum).toEqual(schema.enum);
});

test('every class means to the bytes what it means to letters', async () => {
  const letter = fc
    .integer({ min: 0x30, max: 0x10ffff })
    .filter((c) => (c < 0x5b || c > 0x7f) && (c < 0xd800 || c > 0xdfff));
  await fc.assert(
    fc.asyncProperty(letter, letter, letter, fc.boolean(), async (a, b, other, negated) => {
      const [low, high] = [Math.min(a, b), Math.max(a, b)];
      const hex = (code: number) => `\\u{${code.toString(16)}}`;
      const format = regex(`[${negated ? '^' : ''}${hex(low)}-${hex(high)}]`);
      for (const code of [low, high, other]) {
        const inside = code >= low && code <= high;
        expect(await takes(format, String.fromCodePoint(code))).toBe(inside !== negated);
      }
    }),
    { numRuns: 40 },
  );
});

test('what needs no change has none', () => {
  for (const pattern of ['abc', 'a|b*', '(x{2,3})', '日本', '\\.\\(']) expect(regexClasses(pattern)).toBe(pattern);
});
