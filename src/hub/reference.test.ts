import { expect, test } from 'vitest';
import { formatReference, parseReference, toReference } from './reference.ts';

test.each([
  ['org/name', { repository: 'org/name' }],
  ['unsloth/DeepSeek-R1-GGUF:UD-Q2_K_XL', { repository: 'unsloth/DeepSeek-R1-GGUF', quant: 'UD-Q2_K_XL' }],
  ['org/name@refs/pr/1', { repository: 'org/name', revision: 'refs/pr/1' }],
  ['org/name:Q4_K_M@v1.0', { repository: 'org/name', quant: 'Q4_K_M', revision: 'v1.0' }],
  ['hf.co/Qwen/Qwen3-0.6B', { repository: 'Qwen/Qwen3-0.6B' }],
  ['https://huggingface.co/Qwen/Qwen3-0.6B', { repository: 'Qwen/Qwen3-0.6B' }],
])('%s is a reference', (text, reference) => {
  expect(parseReference(text)).toEqual(reference);
  expect(parseReference(formatReference(reference))).toEqual(reference);
});

test.each([
  '',
  'model',
  'model:tag',
  './org/name',
  '/org/name',
  '../name',
  'org/..',
  'a/b/c',
  'folder/model.gguf',
  'org/na--me',
  'org/name@../../x',
  'org/name@a//b',
  'org/name:',
  'org/na me',
  'org/name:Q4/../..',
  'org/name@-x',
])('%j is none', (text) => {
  expect(parseReference(text)).toBeUndefined();
});

test('a wrong name is told with the form of a right one', () => {
  expect(() => toReference('model')).toThrow(/^\[hub\] a model on a hub is named organization\/model.*; model; copy/);
});
