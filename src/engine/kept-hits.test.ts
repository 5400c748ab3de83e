/** What was measured of held experts outlives a process. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, expect, it, vi } from 'vitest';
import type { SharingCounts } from '../backend/backend.ts';
import { describeHits, hitsPath, keepHits, readHits } from './kept-hits.ts';

const folder = mkdtempSync(join(tmpdir(), 'tandem-hits-'));
beforeEach(() => {
  vi.stubEnv('XDG_CACHE_HOME', join(folder, String(Math.random())));
});
afterEach(() => {
  vi.unstubAllEnvs();
});
afterAll(() => rmSync(folder, { recursive: true }));
const counts = (slots: number, hits: number, misses: number) => ({ slots, hits, misses }) as SharingCounts;

it('runs with as much room add up, others begin anew; models are apart', async () => {
  expect(await readHits('jug')).toBeUndefined();
  await keepHits('jug', counts(8, 3, 7));
  await keepHits('jug', counts(8, 40, 50));
  await keepHits('other', counts(1, 1, 1));
  expect(await readHits('jug')).toEqual({ slots: 8, hits: 43, misses: 57 });
  expect(describeHits((await readHits('jug'))!)).toBe('43 % of 100 choices with room for 8 experts');
  await keepHits('jug', counts(16, 0, 5));
  expect(await readHits('jug')).toEqual({ slots: 16, hits: 0, misses: 5 });
  await keepHits('jug', counts(8, 0, 0)); // says nothing
  expect((await readHits('jug'))!.slots).toBe(16);
});

it('what is damaged counts as nothing, and is written anew; a folder that cannot be is no reason to fail', async () => {
  await keepHits('jug', counts(8, 1, 1));
  for (const text of ['{', 'null', '{"jug": null}', '{"jug": {"slots": "8"}}']) {
    writeFileSync(hitsPath(), text);
    expect(await readHits('jug')).toBeUndefined();
  }
  await keepHits('jug', counts(8, 1, 1));
  expect(await readHits('jug')).toBeDefined();
  vi.stubEnv('XDG_CACHE_HOME', '/dev/null/none');
  await keepHits('jug', counts(8, 1, 1));
  expect(await readHits('jug')).toBeUndefined();
});
