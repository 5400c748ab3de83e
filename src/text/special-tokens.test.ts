import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type AddedToken, AddedTokenSplitter, CONTROL_GUARD, looksLikeControl } from './special-tokens.ts';

const control = (id: number, content: string): AddedToken => ({ id, content, control: true });
const shown = (id: number, content: string): AddedToken => ({ id, content, control: false });

const splitter = new AddedTokenSplitter([
  control(1, '<|a|>'),
  control(2, '<|a|>b'),
  shown(3, '<t>'),
  { ...shown(4, '<s>'), stripLeft: true, stripRight: true },
  control(5, '🙂🙃'),
]);

const split = (text: string, parseSpecial = true): (string | number)[] =>
  splitter.split(text, parseSpecial).map((section) => (typeof section === 'string' ? section : section.id));

describe('AddedTokenSplitter', () => {
  test.each<[string, (string | number)[]]>([
    ['', []],
    ['x', ['x']],
    ['x<|a|>y', ['x', 1, 'y']],
    ['<|a|>b<|a|>c', [2, 1, 'c']],
    ['<|a<|a|>', ['<|a', 1]],
    ['a <s> b', ['a', 4, 'b']],
    ['🙂🙃🙂', [5, '🙂']],
  ])('%j', (text, expected) => {
    expect(split(text)).toEqual(expected);
  });

  test('control tokens stay text unless they are parsed, others do not', () => {
    expect(split('<|a|>b<t>', false)).toEqual(['<|a|>b', 3]);
  });

  test('guarded text holds no control token, and is the same text without its guards', () => {
    const soup = fc.array(fc.constantFrom('<|a|>', '<|a', '|>', 'b', '<t>', '🙂', '🙃', ' '), { maxLength: 12 });
    fc.assert(
      fc.property(soup, (parts) => {
        const text = parts.join('');
        const guarded = splitter.guard(text);
        expect(guarded.replaceAll(CONTROL_GUARD, '')).toBe(text);
        const ids = split(guarded).filter((section) => typeof section === 'number');
        expect(ids.every((id) => id === 3)).toBe(true);
      }),
    );
  });
});

test.each([
  ['<|im_end|>', true],
  ['<｜User｜>', true],
  ['<think>', false],
  ['<|x', false],
  ['a<|b|>', false],
])('looksLikeControl(%j) is %s', (content, expected) => {
  expect(looksLikeControl(content)).toBe(expected);
});
