import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { feed, feedBytes } from '../../../test/text/feed-parser.ts';
import { openCheckpoint } from '../../formats/open.ts';
import { Detokenizer } from '../detokenizer.ts';
import { createTokenizer } from '../tokenizer.ts';
import type { OutputEvent } from './events.ts';
import { type ParserChoice, parserFor } from './index.ts';

const START = '<|start|>assistant';
const CHANNEL = '<|channel|>';
const MESSAGE = '<|message|>';
const END = '<|end|>';
const CALL = '<|call|>';

const harmony: ParserChoice = { architecture: 'gpt-oss', newId: (index) => `id${index}` };

const parse = (parts: Iterable<string>, choice: ParserChoice = harmony) => feed(parts, choice);

const byBytes = (text: string, choice: ParserChoice = harmony) => feedBytes(text, choice);

const checkpoint = await openCheckpoint(fileURLToPath(new URL('../../../models/jug/jug-Q8_0.gguf', import.meta.url)));
const jug = await createTokenizer(checkpoint);
await checkpoint.close();

/** The text by the tokens of Jug, in which markers fall apart. */
function byTokens(text: string, choice?: ParserChoice): OutputEvent[] {
  const detokenizer = new Detokenizer(jug);
  const parts = jug.encode(text).map((id) => detokenizer.push(id));
  return parse([...parts, detokenizer.flush()], choice);
}

const text = (value: string): OutputEvent => ({ type: 'text', text: value });
const reasoning = (value: string): OutputEvent => ({ type: 'reasoning', text: value });
const call = (index: number, name: string, fragment: string): OutputEvent[] => [
  { type: 'tool-call-start', index, id: `id${index}`, name },
  { type: 'tool-call-arguments', index, fragment },
  { type: 'tool-call-end', index },
];

const analysis = (said: string): string => `${CHANNEL}analysis${MESSAGE}${said}${END}`;
const final = (said: string): string => `${START}${CHANNEL}final${MESSAGE}${said}`;
const calls = (name: string, args: string): string =>
  `${START}${CHANNEL}commentary to=functions.${name} <|constrain|>json${MESSAGE}${args}${CALL}`;

const cases: [string, string, OutputEvent[], ParserChoice?][] = [
  ['nothing', '', []],
  ['reasoning and an answer', analysis('A b.') + final(' Hi\n'), [reasoning('A b.'), text(' Hi\n')]],
  ['an answer that ends', `${CHANNEL}final${MESSAGE}Hi<|return|>`, [text('Hi')]],
  ['plain text', ' Hello <b>\n', [text(' Hello <b>\n')]],
  ['text that begins like a header', 'total', [text('total')]],
  ['white space around reasoning', analysis('\n A \n\n') + final('x'), [reasoning('A'), text('x')]],
  ['reasoning that breaks off', `${CHANNEL}analysis${MESSAGE}A <|en`, [reasoning('A <|en')]],
  ['two thoughts', analysis('A') + START + analysis('B') + final('C'), [reasoning('A\nB'), text('C')]],
  ['a call', analysis('Hm') + calls('f', '{"a": 1}'), [reasoning('Hm'), ...call(0, 'f', '{"a": 1}')]],
  [
    'a recipient beside the role',
    `${START} to=functions.f${CHANNEL}commentary json${MESSAGE}{}${CALL}`,
    call(0, 'f', '{}'),
  ],
  ['a recipient first', ` to=functions.f${CHANNEL}commentary${MESSAGE}{}`, call(0, 'f', '{}')],
  [
    'a tool of the house',
    `${CHANNEL}analysis to=browser.search code${MESSAGE}{}${CALL}`,
    call(0, 'browser.search', '{}'),
  ],
  ['two calls', calls('a', '{}') + calls('b', '{"x": "水"}'), [...call(0, 'a', '{}'), ...call(1, 'b', '{"x": "水"}')]],
  ['no arguments', calls('a', ' '), call(0, 'a', '{}')],
  ['a call that breaks off', calls('a', '{"x": 1').slice(0, -CALL.length), call(0, 'a', '{"x": 1')],
  [
    'a remark before a call',
    `${CHANNEL}commentary${MESSAGE}Looking.${END}${calls('a', '{}')}`,
    [text('Looking.'), ...call(0, 'a', '{}')],
  ],
  ['a remark and an answer', `${CHANNEL}commentary${MESSAGE}A${END}${final('B')}`, [text('A\nB')]],
  ['a forgotten end', `${CHANNEL}analysis${MESSAGE}A${final('B')}`, [reasoning('A'), text('B')]],
  ['a forgotten end and role', `${CHANNEL}analysis${MESSAGE}A${CHANNEL}final${MESSAGE}B`, [reasoning('A'), text('B')]],
  ['text after a message', `${analysis('A')}B`, [reasoning('A'), text('B')]],
  ['a header that breaks off', `${CHANNEL}final`, [text(`${CHANNEL}final`)]],
  ['a header without a message', `${CHANNEL}final${END}x`, [text(`${CHANNEL}final${END}\nx`)]],
  ['an unknown channel', `${CHANNEL}notes${MESSAGE}A`, [text('A')]],
  ['ends alone', `${END}${CALL}`, []],
  [
    'reasoning left as it is',
    analysis('A') + final('B'),
    [text(`${analysis('A')}B`)],
    { ...harmony, reasoning: 'none' },
  ],
  ['calls left as they are', calls('a', '{}'), [text(calls('a', '{}'))], { ...harmony, calls: 'none' }],
  ['a template decides', analysis('A'), [reasoning('A')], { template: `x${CHANNEL}y`, newId: harmony.newId }],
  ['another model', analysis('A'), [text(analysis('A'))], { architecture: 'llama' }],
];

describe('harmony', () => {
  test.each(cases)('%s', (_, input, expected, choice) => {
    expect(parse([input], choice)).toEqual(expected);
    expect(byBytes(input, choice)).toEqual(expected);
    expect(byTokens(input, choice)).toEqual(expected);
  });

  test('reasoning and arguments stream as they come', () => {
    const parser = parserFor(harmony);
    expect(parser.push(`${CHANNEL}analysis${MESSAGE}A b`)).toEqual([reasoning('A b')]);
    expect(parser.push(' c<|')).toEqual([reasoning(' c')]);
    parser.push(`end|>${START}${CHANNEL}commentary to=functions.f${MESSAGE}`);
    expect(parser.push('{"city": ')).toEqual([{ type: 'tool-call-arguments', index: 0, fragment: '{"city":' }]);
  });

  const piece = fc.constantFrom(
    ...[START, CHANNEL, MESSAGE, END, CALL, '<|return|>', '<|constrain|>json', 'analysis', 'final', 'commentary'],
    ...[' to=functions.f', 'to=', '{"a": 1}', '\n', ' ', '<', '<|', '<|end', '水', '🙂', 'x'],
  );
  const soup = fc.array(piece, { maxLength: 25 });

  test('whole, by piece, by token, by byte and cut anywhere: the same events', () => {
    fc.assert(
      fc.property(soup, fc.array(fc.nat(200), { maxLength: 5 }), (parts, cuts) => {
        const input = parts.join('');
        const expected = parse([input]);
        expect(parse(parts)).toEqual(expected);
        expect(byBytes(input)).toEqual(expected);
        expect(byTokens(input)).toEqual(expected);
        const at = [0, ...cuts.map((cut) => Math.min(cut, input.length)).sort((a, b) => a - b), input.length];
        expect(parse(at.slice(1).map((end, i) => input.slice(at[i], end)))).toEqual(expected);
        for (const [i, event] of expected.entries()) {
          if (event.type !== 'tool-call-start') continue;
          expect(expected[i + 1]).toMatchObject({ type: 'tool-call-arguments', index: event.index });
          expect(expected[i + 2]).toEqual({ type: 'tool-call-end', index: event.index });
        }
      }),
      { numRuns: 500 },
    );
  });

  test('what is said in bodies is not lost', () => {
    const said = fc.constantFrom('水', '🙂', 'x y');
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('analysis', 'final', 'commentary'), said)), (messages) => {
        const input = messages.map(([channel, body]) => `${START}${CHANNEL}${channel}${MESSAGE}${body}${END}`).join('');
        const out = parse([input]).map((event) => ('text' in event ? event.text : ''));
        expect(out.join('').replaceAll('\n', '')).toBe(messages.map(([, body]) => body).join(''));
      }),
    );
  });
});
