import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { StopMatcher } from './stop-matcher.ts';

function run(stops: string[], parts: string[]): { text: string; stop?: string } {
  const matcher = new StopMatcher(stops);
  let text = '';
  for (const part of parts) {
    const result = matcher.push(part);
    text += result.text;
    if (result.stop !== undefined) return { text, stop: result.stop };
  }
  return { text: text + matcher.flush() };
}

describe('StopMatcher', () => {
  test('stops before the string, also across pushes', () => {
    expect(run(['###'], ['ab#', '#', '#cd'])).toEqual({ text: 'ab', stop: '###' });
    expect(run(['\nUser:'], ['Hi.\nUs', 'er: x'])).toEqual({ text: 'Hi.', stop: '\nUser:' });
  });

  test('holds back only what may begin a stop string', () => {
    const matcher = new StopMatcher(['STOP']);
    expect(matcher.push('abcST').text).toBe('abc');
    expect(matcher.push('x').text).toBe('STx');
    expect(matcher.push('S').text).toBe('');
    expect(matcher.flush()).toBe('S');
  });

  test('what was held back and then refuted may begin anew', () => {
    expect(run(['aab'], ['a', 'a', 'a', 'b'])).toEqual({ text: 'a', stop: 'aab' });
  });

  test('takes nothing after a stop', () => {
    const matcher = new StopMatcher(['.']);
    matcher.push('a.b');
    expect(matcher.push('c')).toEqual({ text: '', stop: '.' });
    expect(matcher.flush()).toBe('');
  });

  test('no stops and empty stops pass everything at once', () => {
    expect(new StopMatcher([]).push('abc')).toEqual({ text: 'abc' });
    expect(new StopMatcher(['']).push('abc')).toEqual({ text: 'abc' });
  });

  const text = fc.string({ unit: fc.constantFrom('a', 'b', '水', '🙂', '\n'), maxLength: 30 });
  const stops = fc.array(fc.string({ unit: fc.constantFrom('a', 'b', '水', '🙂', '\n'), minLength: 1, maxLength: 4 }), {
    maxLength: 3,
  });

  test('whole, and by code point: the same result, which holds no stop string', () => {
    fc.assert(
      fc.property(text, stops, (whole, list) => {
        const result = run(list, [whole]);
        expect(run(list, Array.from(whole))).toEqual(result);
        expect(whole.startsWith(result.text)).toBe(true);
        for (const stop of list) expect(result.text.includes(stop)).toBe(false);
        if (result.stop === undefined) expect(result.text).toBe(whole);
        else expect(whole.startsWith(result.text + result.stop)).toBe(true);
      }),
    );
  });
});
