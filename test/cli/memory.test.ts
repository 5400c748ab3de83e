/** Loading and disposing a model again and again leaves nothing behind: no memory, no file, no thread. */
import { readdirSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { load } from '../../src/index.ts';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

async function cycles(times: number) {
  for (let i = 0; i < times; i++) {
    const engine = await load();
    await engine.generate('What', { maxTokens: 1 });
    await engine.dispose();
  }
  await setTimeout(50);
  collectGarbage();
  const count = (what: string) => readdirSync(`/proc/self/${what}`).length;
  const { rss, heapTotal, heapUsed } = process.memoryUsage();
  // V8 keeps room for itself as it likes (Node 24 more than 20): what JavaScript holds and what lies outside are judged apart.
  return { rss, outside: rss - heapTotal, held: heapUsed, files: count('fd'), threads: count('task') };
}

test.skipIf(process.platform !== 'linux' || nativeProblem() !== undefined)('a hundred loads', async () => {
  await cycles(100); // until V8 has the room that it wants
  const before = await cycles(60);
  const after = await cycles(100);
  // The model has 17 MB of weights; 100 kB lost a load would be 10 MB.
  if (Number.parseInt(process.versions.node, 10) < 22) expect(after.rss - before.rss).toBeLessThan(10e6);
  expect(after.outside - before.outside).toBeLessThan(10e6);
  expect(after.held - before.held).toBeLessThan(10e6);
  expect([after.files, after.threads]).toEqual([before.files, before.threads]);
});
