/** Every refusal has a status and a word that clients know, and speaks as the server. */
import { expect, test } from 'vitest';
import { TandemError } from '../errors.ts';
import { checkHost, checkKey, checkSite } from './access.ts';
import type { ServerRequest } from './context.ts';
import { httpFailure, openaiCode } from './failures.ts';
import { nothingThere } from './nothing-there.ts';

function thrown(call: () => void): TandemError {
  try {
    call();
  } catch (error) {
    if (error instanceof TandemError) return error;
    throw error;
  }
  throw new Error('it was not refused');
}

const asked = { req: { method: 'PUT', path: '/v1/models' } } as ServerRequest;

test.each([
  ['a wrong host', () => thrown(() => checkHost('evil.example', { allowedHosts: [], host: '::1' })), 403, 'access_denied'], // biome-ignore format: a table
  ['another site', () => thrown(() => checkSite((name) => (name === 'origin' ? 'https://evil.example' : 'cross-site'), [])), 403, 'access_denied'], // biome-ignore format: a table
  ['no key', () => thrown(() => checkKey(() => undefined, ['sesame'])), 401, 'invalid_api_key'],
  ['a wrong method', () => nothingThere(asked, ['GET']), 405, 'route_unknown'],
  ['a wrong path', () => nothingThere(asked, []), 404, 'route_unknown'],
])('%s', (_, refusal, status, word) => {
  const error = refusal();
  expect(error.message).toMatch(/^\[server\] .+; .+; .+/);
  expect([httpFailure(error).status, openaiCode(error)]).toEqual([status, word]);
});
