import { expect, test } from 'vitest';
import { checkOptionNames } from './option-names.ts';

const known = ['temperature', 'topK', 'topP', 'maxTokens'];

test.each([
  ['temprature', 'temperature'],
  ['top_k', 'topK'],
  ['TopP', 'topP'],
  ['max_tokens', 'maxTokens'],
  ['maxToken', 'maxTokens'],
])('%s: did you mean %s?', (given, likely) => {
  expect(() => checkOptionNames('generate', { [given]: 1 }, known)).toThrow(
    `[engine] generate has no option ${given}; did you mean ${likely}?; its options are temperature, topK, topP, maxTokens`,
  );
});

test('nothing is guessed for a name that is near to none', () => {
  expect(() => checkOptionNames('generate', { colour: 1 }, known)).toThrow('no option colour; its options are');
});

test('known names pass, also with the value undefined', () => {
  checkOptionNames('generate', { topK: undefined, topP: 1 }, known);
});
