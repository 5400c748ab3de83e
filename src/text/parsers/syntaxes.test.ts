/** Every tool-call syntax, fed whole, by code unit, by byte and cut at random: the same events. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { feed, feedBytes } from '../../../test/text/feed-parser.ts';
import type { ToolDefinition } from '../messages.ts';
import { joinEvents, type OutputEvent } from './events.ts';
import { callFormat, type ParserChoice } from './index.ts';

const tools: ToolDefinition[] = [
  {
    name: 'get_weather',
    parameters: { type: 'object', properties: { city: { type: 'string' }, days: { type: 'integer' } } },
  },
  { name: 'b' },
];
const newId = (index: number) => `id${index}`;
const hermes: ParserChoice = { template: '<tool_call> {{ tools }}', newId, tools };
const glm: ParserChoice = { template: '<tool_call><arg_key>', newId, tools };
const coder: ParserChoice = { template: '<tool_call><function=', newId, tools };
const kimi: ParserChoice = { template: '<|tool_calls_section_begin|>', newId, tools };
const llama: ParserChoice = { template: '<|python_tag|>', newId, tools };

const text = (value: string): OutputEvent => ({ type: 'text', text: value });
const reasoning = (value: string): OutputEvent => ({ type: 'reasoning', text: value });
const call = (index: number, name: string, fragment: string, id = newId(index)): OutputEvent[] => [
  { type: 'tool-call-start', index, id, name },
  ...(fragment === '' ? [] : [{ type: 'tool-call-arguments' as const, index, fragment }]),
  { type: 'tool-call-end', index },
];
const tag = (body: string) => `<tool_call>${body}</tool_call>`;
const section = (...calls: [string, string][]) =>
  `<|tool_calls_section_begin|>${calls.map(([id, json]) => `<|tool_call_begin|>${id}<|tool_call_argument_begin|>${json}<|tool_call_end|>`).join('')}<|tool_calls_section_end|>`;

const CASES: readonly [string, ParserChoice, string, OutputEvent[]][] = [
  ['plain text', hermes, ' Hello {"a": 1}\n', [text(' Hello {"a": 1}\n')]],
  [
    'one call',
    hermes,
    tag('\n{"name": "get_weather", "arguments": {"city": "Rome", "n": [1, {"x": "}"}]}}\n'),
    call(0, 'get_weather', '{"city": "Rome", "n": [1, {"x": "}"}]}'),
  ],
  [
    'two calls after thinking and text',
    hermes,
    `<think>Hm.</think>\n\nLooking.\n${tag('{"name": "b", "arguments": {}}')}\n${tag('{"name": "b", "arguments": {"s": "a\\"b\\\\"}}')}`,
    [reasoning('Hm.'), text('Looking.'), ...call(0, 'b', '{}'), ...call(1, 'b', '{"s": "a\\"b\\\\"}')],
  ],
  ['arguments before the name', hermes, tag('{"arguments": {"a": 1}, "name": "b"}'), call(0, 'b', '{"a": 1}')],
  ['arguments as text of JSON', hermes, tag('{"name": "b", "arguments": "{\\"a\\": 1}"}'), call(0, 'b', '{"a": 1}')],
  [
    'numbers and words beside',
    hermes,
    tag('{"id": 5, "ok": true, "name": "b", "arguments": {"a": 1}}'),
    call(0, 'b', '{"a": 1}'),
  ],
  ['no arguments', hermes, tag('{"name": "b"}'), call(0, 'b', '')],
  ['a call that breaks off', hermes, '<tool_call>{"name": "b", "arguments": {"a": "x', call(0, 'b', '{"a": "x')],
  ['no call', hermes, `a ${tag('hello')} b`, [text('a'), text('hello'), text(' b')]],
  [
    'text behind a call',
    hermes,
    `${tag('{"name": "b", "arguments": {}}')} done `,
    [...call(0, 'b', '{}'), text(' done ')],
  ],
  ['a marker that breaks off', hermes, 'a <tool_ca', [text('a <tool_ca')]],
  [
    'bare values by schema',
    glm,
    tag(
      'get_weather\n<arg_key>city</arg_key>\n<arg_value>5</arg_value>\n<arg_key>days</arg_key>\n<arg_value>5</arg_value>\n',
    ),
    call(0, 'get_weather', '{"city": "5", "days": 5}'),
  ],
  [
    'bare values without schema',
    glm,
    tag('b\n<arg_key>l</arg_key><arg_value>[1, 2]</arg_value><arg_key>t</arg_key><arg_value>a "b"\nc</arg_value>'),
    call(0, 'b', '{"l": [1,2], "t": "a \\"b\\"\\nc"}'),
  ],
  ['no pairs', glm, tag('b'), call(0, 'b', '')],
  ['a demanded call', glm, tag('\n{"name": "b", "arguments": {"a": 1}}\n'), call(0, 'b', '{"a": 1}')],
  [
    'parameters of a function',
    coder,
    tag(
      '\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n',
    ),
    call(0, 'get_weather', '{"city": "Rome", "days": 3}'),
  ],
  [
    'a section',
    kimi,
    `Looking.${section(['functions.get_weather:0', '{"city": "Rome"}'], ['functions.b:1', '{}'])}`,
    [
      text('Looking.'),
      ...call(0, 'get_weather', '{"city": "Rome"}', 'functions.get_weather:0'),
      ...call(1, 'b', '{}', 'functions.b:1'),
    ],
  ],
  ['one object', llama, '{"name": "b", "parameters": {"a": {"b": 1}}}', call(0, 'b', '{"a": {"b": 1}}')],
  [
    'behind its tag',
    llama,
    '<|python_tag|>{"name": "b", "parameters": {}}; {"name": "b", "parameters": {"x": 1}}',
    [...call(0, 'b', '{}'), ...call(1, 'b', '{"x": 1}')],
  ],
  ['text that begins with a brace', llama, '{"hello": 1} world', [text('{"hello": 1} world')]],
  ['text', llama, 'Hello; {"name": "b"}', [text('Hello; {"name": "b"}')]],
];

describe('tool-call syntaxes', () => {
  test.each(CASES)('%s', (_, choice, input, expected) => {
    const joined = joinEvents(expected);
    expect(feed([input], choice)).toEqual(joined);
    expect(feed(input, choice)).toEqual(joined);
    expect(feedBytes(input, choice)).toEqual(joined);
  });

  const piece = fc.constantFrom(
    '<tool_call>',
    '</tool_call>',
    '{"name": "b", "arguments": ',
    '{"a": "x"}',
    '}',
    '{',
    '"',
    '\\',
    ' ',
    '\n',
    'text',
    '水',
    '🙂',
    '<',
    '<arg_key>k</arg_key>',
    '<arg_value>v</arg_value>',
    '<function=b>',
    '<parameter=p>',
    '</parameter>',
    '</function>',
    'b\n',
    '<|tool_call_begin|>',
    '<|tool_call_argument_begin|>',
    '<|tool_call_end|>',
    '<|tool_calls_section_begin|>',
    'functions.b:0',
    '<|python_tag|>',
    ';',
    '<think>',
    '</think>',
  );

  test.each([
    ['Hermes', hermes],
    ['GLM', glm],
    ['Qwen3-Coder', coder],
    ['Kimi-K2', kimi],
    ['Llama 3', llama],
  ] as const)('%s: any soup, cut anywhere, gives the same events, and calls are well formed', (_, choice) => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 20 }), fc.array(fc.nat(200), { maxLength: 5 }), (parts, cuts) => {
        const input = parts.join('');
        const expected = feed([input], choice);
        expect(feed(input, choice)).toEqual(expected);
        expect(feedBytes(input, choice)).toEqual(expected);
        const at = [0, ...cuts.map((cut) => Math.min(cut, input.length)).sort((a, b) => a - b), input.length];
        expect(
          feed(
            at.slice(1).map((end, i) => input.slice(at[i], end)),
            choice,
          ),
        ).toEqual(expected);
        let open = -1;
        let next = 0;
        for (const event of expected) {
          if (event.type === 'tool-call-start') {
            expect([open, event.index]).toEqual([-1, next++]);
            open = event.index;
          } else if (event.type === 'tool-call-arguments') expect(event.index).toBe(open);
          else if (event.type === 'tool-call-end') {
            expect(event.index).toBe(open);
            open = -1;
          }
        }
        expect(open).toBe(-1);
      }),
      { numRuns: 500 },
    );
  });

  test('demanded calls are written in the syntax that is read', () => {
    for (const { template } of [hermes, glm, coder, kimi, llama]) {
      const format = callFormat(template!, '', { tools, toolChoice: { name: 'b' } });
      const literal = (structure: typeof format.structure): string => {
        switch (structure.type) {
          case 'const_string':
            return structure.value;
          case 'sequence':
            return structure.elements.map(literal).join('');
          case 'or':
            return literal(structure.elements[0]);
          case 'tag':
            return structure.begin + literal(structure.content) + structure.end;
          case 'json_schema':
            return '{"a": 1}';
        }
      };
      const events = feed([literal(format.structure)], { template, newId, tools });
      expect(events.map(({ type }) => type)).toEqual(['tool-call-start', 'tool-call-arguments', 'tool-call-end']);
      expect(events).toMatchObject([{ name: 'b' }, { fragment: '{"a": 1}' }, {}]);
    }
    expect(() => callFormat('<tool_call>', '', { tools, toolChoice: { name: 'c' } })).toThrow(/one of the tools/);
    expect(() => callFormat('', 'x', { tools, toolChoice: 'required' })).toThrow(/no syntax/);
  });
});
