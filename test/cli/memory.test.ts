/** Loading and disposing a model again and again leaves nothing behind: no memory, no file, no thread. */
import { beforeAll, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { build, node } from './tandem.ts';

beforeAll(build);

/** A process of its own; prints figures after the warm-up, then after a hundred loads more. */
const SCRIPT = `
  import { readdirSync } from 'node:fs';
  import { load } from './dist/index.js';
  async function cycle(times) {
    for (let i = 0; i < times; i++) {
      const engine = await load();
      await engine.generate('What', { maxTokens: 1 });
      await engine.dispose();
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    gc();
    const { rss } = process.memoryUsage();
    const count = (what) => readdirSync('/proc/self/' + what).length;
    console.log(JSON.stringify({ rss, files: count('fd'), threads: count('task') }));
  }
  console.log('{}'); // opens what printing needs
  await cycle(60);
  await cycle(100);
`;

test.skipIf(process.platform !== 'linux' || nativeProblem() !== undefined)('a hundred loads', async () => {
  const { stdout, stderr } = await node(['--expose-gc', '--input-type=module', '-e', SCRIPT]);
  expect(stderr).toBe('');
  const [, before, after] = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  // The model has 17 MB of weights; 100 kB lost a load would be 10 MB.
  expect(after.rss - before.rss).toBeLessThan(10e6);
  expect([after.files, after.threads]).toEqual([before.files, before.threads]);
});
