import { expect, test } from 'vitest';
import { isBackgroundTask } from './background.ts';

const user = (content: string) => ({ role: 'user' as const, content });

test.each([
  '### Task:\nGenerate a concise, 3-5 word title with an emoji.',
  '  ### Task:\nSuggest 3-5 relevant follow-up questions',
  'Provide a concise, 5-word-or-less title for the conversation',
  'Generate a concise, short title',
])('%j is what a front end asks by itself', (content) => {
  expect(isBackgroundTask([user(content)])).toBe(true);
  expect(isBackgroundTask([{ role: 'system', content: 'x' }, user(content)])).toBe(true);
  // In the middle of a conversation a person said it.
  expect(isBackgroundTask([user('Hello'), user(content)])).toBe(false);
});

test.each(['Give me a title', 'Please do this: ### Task:\n', ''])('%j is what a person asks', (content) => {
  expect(isBackgroundTask([user(content)])).toBe(false);
});
