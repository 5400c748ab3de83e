/** The page of the TypeScript API names every option that the API takes. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { load } from '../../src/index.ts';
import { house } from './house.ts';

const PAGE = readFileSync(new URL('../../docs/guide/api.md', import.meta.url), 'utf8');
/** What stands in backquotes: names, and forms like `{ directory, maxBytes }`. */
const NAMED = new Set([...PAGE.replace(/^```[\s\S]*?^```/gm, '').matchAll(/`([^`]+)`/g)].flatMap(([, code]) => code.match(/\w+/g) ?? [])); // biome-ignore format: one thought

const ask = [{ role: 'user' as const, content: 'x' }];
const wrong = { noSuchOption: 1 } as object;

test.each([
  ['load', () => load(undefined, wrong)],
  ['generate', () => house().engine.generate('x', wrong)],
  ['chat', () => house().engine.chat(ask, wrong)],
  ['perplexity', () => house().engine.perplexity('xxxx', wrong)],
])('options of %s', async (_, call) => {
  const message = await Promise.resolve(call()).then(
    () => '',
    (error: Error) => error.message,
  );
  const options = /its options are (.+)$/.exec(message)?.[1].split(', ') ?? [];
  expect(options.length).toBeGreaterThan(2);
  expect(options.filter((option) => !NAMED.has(option))).toEqual([]);
});
