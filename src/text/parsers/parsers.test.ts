import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { feed, feedBytes } from '../../../test/text/feed-parser.ts';
import { openCheckpoint } from '../../formats/open.ts';
import { Detokenizer } from '../detokenizer.ts';
import { createTokenizer } from '../tokenizer.ts';
import type { OutputEvent } from './events.ts';
import { type ParserChoice, parserFor } from './index.ts';

const BEGIN = '<｜tool▁calls▁begin｜>';
const END = '<｜tool▁calls▁end｜>';
const CALL = '<｜tool▁call▁begin｜>';
const CALL_END = '<｜tool▁call▁end｜>';
const SEP = '<｜tool▁sep｜>';

const deepseek: ParserChoice = { architecture: 'deepseek_v3', newId: (index) => `id${index}` };

const parse = (parts: Iterable<string>, choice: ParserChoice = deepseek) => feed(parts, choice);

const whole = (text: string, choice?: ParserChoice): OutputEvent[] => parse([text], choice);

const byBytes = (text: string, choice: ParserChoice = deepseek) => feedBytes(text, choice);

const checkpoint = await openCheckpoint(fileURLToPath(new URL('../../../models/jug/jug-Q8_0.gguf', import.meta.url)));
const jug = await createTokenizer(checkpoint);
await checkpoint.close();

/** The text by the tokens of Jug, in which every marker is one token. */
function byTokens(text: string, choice?: ParserChoice): OutputEvent[] {
  const detokenizer = new Detokenizer(jug);
  const parts = jug.encode(text, { parseSpecial: true }).map((id) => detokenizer.push(id));
  return parse([...parts, detokenizer.flush()], choice);
}

const text = (value: string): OutputEvent => ({ type: 'text', text: value });
const reasoning = (value: string): OutputEvent => ({ type: 'reasoning', text: value });
const call = (index: number, name: string, fragment: string): OutputEvent[] => [
  { type: 'tool-call-start', index, id: `id${index}`, name },
  { type: 'tool-call-arguments', index, fragment },
  { type: 'tool-call-end', index },
];

const v3 = (name: string, args: string): string =>
  `${CALL}function${SEP}${name}\n\`\`\`json\n${args}\n\`\`\`${CALL_END}`;
const v31 = (name: string, args: string): string => `${CALL}${name}${SEP}${args}${CALL_END}`;

const inside: ParserChoice = { ...deepseek, startInside: true };

const cases: [string, string, OutputEvent[], ParserChoice?][] = [
  ['plain text', ' Hello\n', [text(' Hello\n')]],
  ['nothing', '', []],
  ['reasoning the model opens', '\n<think>\nA b.\n</think>\n\nHi', [reasoning('A b.'), text('Hi')]],
  ['reasoning the prompt opened', 'A\n\nb\n</think>\n\nHi\n', [reasoning('A\n\nb'), text('Hi\n')], inside],
  ['reasoning opened twice', '<think>\nA</think>Hi', [reasoning('A'), text('Hi')], inside],
  ['reasoning that breaks off', 'A b </thi', [reasoning('A b </thi')], inside],
  ['empty reasoning', '\n\n</think>\n\nHi', [text('Hi')], inside],
  ['<think> later is text', 'Use <think> tags</think>', [text('Use <think> tags</think>')]],
  ['</think> once only', 'a</think>b</think>c', [reasoning('a'), text('b</think>c')], inside],
  ['reasoning left as it is', '<think>a</think>b', [text('<think>a</think>b')], { ...deepseek, reasoning: 'none' }],
  [
    'reasoning left as it is that the prompt opened',
    'a</think>b',
    [text('<think>\na</think>b')],
    { ...deepseek, reasoning: 'none', startInside: true },
  ],
  [
    'thinking that was ended for the model, which goes on and ends it once more',
    '\n</think>\n\nc, so b.\n</think>\n\nb < c </thin',
    [text('c, so b.\n\n\nb < c </thin')],
    { ...deepseek, startInside: true, cut: () => true },
  ],
  ['a V3 call', BEGIN + v3('get_weather', '{"city": "Rome"}') + END, call(0, 'get_weather', '{"city": "Rome"}')],
  ['a V3.1 call', BEGIN + v31('get_weather', '{"city": "Rome"}') + END, call(0, 'get_weather', '{"city": "Rome"}')],
  ['a V3.1 call of "function"', BEGIN + v31('function', '{"a": 1}') + END, call(0, 'function', '{"a": 1}')],
  [
    'two calls after reasoning and text',
    `Need both.\n</think>\n\nLooking.${BEGIN}${v3('a', '{}')}\n${v3('b', '{"x": [1, 2]}')}${END}\n`,
    [reasoning('Need both.'), text('Looking.'), ...call(0, 'a', '{}'), ...call(1, 'b', '{"x": [1, 2]}')],
    inside,
  ],
  ['calls that end reasoning', `Hm ${BEGIN}${v31('a', '{}')}${END}`, [reasoning('Hm'), ...call(0, 'a', '{}')], inside],
  ['text after calls', `${BEGIN}${v31('a', '{}')}${END}done`, [...call(0, 'a', '{}'), text('done')]],
  ['no wrapper', v31('a', '{"x": 1}'), call(0, 'a', '{"x": 1}')],
  ['no arguments (V3.1)', BEGIN + v31('a', '  ') + END, call(0, 'a', '{}')],
  ['no arguments (V3)', `${BEGIN}${CALL}function${SEP}a${CALL_END}${END}`, call(0, 'a', '{}')],
  ['no fence (V3)', `${BEGIN}${CALL}function${SEP}a\n{"x": 1}${CALL_END}${END}`, call(0, 'a', '{"x": 1}')],
  [
    'fence without language',
    `${BEGIN}${CALL}function${SEP}a\n\`\`\`{"x": 1}\`\`\`${CALL_END}`,
    call(0, 'a', '{"x": 1}'),
  ],
  ['backticks in arguments', BEGIN + v3('a', '{"x": "``` y"}') + END, call(0, 'a', '{"x": "``` y"}')],
  ['arguments that are no JSON', BEGIN + v31('a', 'x=1, y') + END, call(0, 'a', 'x=1, y')],
  ['a call that breaks off', `${BEGIN}${CALL}function${SEP}a\n\`\`\`json\n{"x": 1`, call(0, 'a', '{"x": 1')],
  ['a call that breaks off in its fence', `${BEGIN}${CALL}function${SEP}a\n\`\`\`json\n{}\n\`\``, call(0, 'a', '{}')],
  ['a call that breaks off before its arguments', `${CALL}function${SEP}a\n\`\`\`js`, call(0, 'a', '{}')],
  ['a call that breaks off in its name', `${BEGIN}${CALL}function${SEP}get_w`, call(0, 'get_w', '{}')],
  [
    'a forgotten end of call',
    `${BEGIN}${CALL}a${SEP}{}${CALL}b${SEP}{}${END}`,
    [...call(0, 'a', '{}'), ...call(1, 'b', '{}')],
  ],
  ['a header that breaks off', `x${BEGIN}${CALL}func`, [text(`x${BEGIN}${CALL}func`)]],
  ['a header without separator', `${BEGIN}${CALL}a${CALL_END}${END}y`, [text(`${BEGIN}${CALL}a${CALL_END}${END}y`)]],
  ['a header of several lines', `${CALL}a\nb${SEP}c`, [text(`${CALL}a\nb${SEP}c`)]],
  ['no name', `${BEGIN}${CALL}${SEP}{}`, [text(`${BEGIN}${CALL}${SEP}{}`)]],
  ['text between the markers', `${BEGIN}Hello`, [text(`${BEGIN}Hello`)]],
  [
    'text between calls',
    `${BEGIN}${v31('a', '{}')}or${v31('b', '{}')}`,
    [...call(0, 'a', '{}'), text('or'), ...call(1, 'b', '{}')],
  ],
  ['a marker that breaks off', 'a<｜tool▁ca', [text('a<｜tool▁ca')]],
  ['an empty list of calls', `a${BEGIN}${END}b`, [text('ab')]],
  ['calls left as they are', BEGIN + v31('a', '{}'), [text(BEGIN + v31('a', '{}'))], { ...deepseek, calls: 'none' }],
  [
    'another model',
    BEGIN + v31('a', '{}'),
    [text(BEGIN + v31('a', '{}'))],
    { architecture: 'llama', newId: deepseek.newId },
  ],
  ['a template decides', v31('a', '{}'), call(0, 'a', '{}'), { template: `x${BEGIN}`, newId: deepseek.newId }],
];

describe('parserFor', () => {
  test.each(cases)('%s', (_, input, expected, choice) => {
    expect(whole(input, choice)).toEqual(expected);
    expect(byBytes(input, choice)).toEqual(expected);
    expect(byTokens(input, choice)).toEqual(expected);
  });

  test('arguments stream as they come', () => {
    const parser = parserFor(deepseek);
    parser.push(`${BEGIN}${CALL}a${SEP}`);
    expect(parser.push('{"city": ')).toEqual([{ type: 'tool-call-arguments', index: 0, fragment: '{"city":' }]);
    expect(parser.push('"Ro')).toEqual([{ type: 'tool-call-arguments', index: 0, fragment: ' "Ro' }]);
  });

  test('text streams up to what may be a marker', () => {
    const parser = parserFor(deepseek);
    expect(parser.push('Hello <')).toEqual([text('Hello ')]);
    expect(parser.push('b>')).toEqual([text('<b>')]);
  });

  test('ids of calls are unique', () => {
    const ids = whole(BEGIN + v31('a', '{}') + v31('b', '{}'), { architecture: 'deepseek2' }).flatMap((event) =>
      event.type === 'tool-call-start' ? [event.id] : [],
    );
    expect(new Set(ids).size).toBe(2);
    for (const id of ids) expect(id).toMatch(/^call_[0-9a-f]{24}$/);
  });

  const piece = fc.constantFrom(
    ...[BEGIN, END, CALL, CALL_END, SEP, '<think>', '</think>', 'function', 'name', '\n', ' ', '```json\n', '```', '`'],
    ...['{"a": 1}', '{', '<', '<｜', '<｜tool▁', '水', '🙂', 'x'],
  );
  const soup = fc.array(piece, { maxLength: 25 });

  test('whole, by piece, by token, by byte and cut anywhere: the same events; calls are well formed', () => {
    fc.assert(
      fc.property(soup, fc.boolean(), fc.array(fc.nat(200), { maxLength: 5 }), (parts, startInside, cuts) => {
        const choice = { ...deepseek, startInside };
        const input = parts.join('');
        const expected = whole(input, choice);
        expect(parse(parts, choice)).toEqual(expected);
        expect(byBytes(input, choice)).toEqual(expected);
        expect(byTokens(input, choice)).toEqual(expected);
        const at = [0, ...cuts.map((cut) => Math.min(cut, input.length)).sort((a, b) => a - b), input.length];
        const slices = at.slice(1).map((end, i) => input.slice(at[i], end));
        expect(parse(slices, choice)).toEqual(expected);
        checkCalls(expected);
      }),
      { numRuns: 1000 },
    );
  });

  test('nothing but markers, fences and white space is lost', () => {
    fc.assert(
      fc.property(soup, (parts) => {
        const input = parts.join('');
        const out = whole(input)
          .map((event) => {
            if (event.type === 'tool-call-start') return event.name;
            if (event.type === 'tool-call-arguments') return event.fragment;
            return 'text' in event ? event.text : '';
          })
          .join('');
        for (const letter of ['水', '🙂', 'x']) {
          expect(out.split(letter).length).toBe(input.split(letter).length);
        }
      }),
    );
  });
});

/** start → arguments → end, indices in order, arguments never empty, nothing between. */
function checkCalls(events: OutputEvent[]): void {
  let next = 0;
  for (const [at, event] of events.entries()) {
    if (event.type !== 'tool-call-start') continue;
    expect(event.index).toBe(next++);
    expect(event.name).not.toBe('');
    expect(events[at + 1]).toMatchObject({ type: 'tool-call-arguments', index: event.index });
    expect(events[at + 2]).toEqual({ type: 'tool-call-end', index: event.index });
  }
}
