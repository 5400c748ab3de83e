/** The load test in small, on the model that ships: what bench/load.mjs says of a server under 8 clients, times left out. */
import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { build } from '../cli/tandem.ts';

const script = fileURLToPath(new URL('../../bench/load.mjs', import.meta.url));

interface Result {
  readonly manners: Readonly<Record<string, number>>;
  readonly checks: readonly { readonly what: string; readonly ok: boolean; readonly saw: unknown }[];
}

// Reason of the skip: the native core is not built here (nativeProblem() says why).
test.skipIf(nativeProblem() !== undefined)(
  '120 requests of 8 clients: answers, refusals and pages are right',
  async () => {
    build();
    const flags = ['--requests', '120', '--clients', '8', '--rounds', '2', '--untimed', '--json'];
    const said = await new Promise<string>((resolve, reject) => {
      execFile(process.execPath, [script, ...flags], (error, stdout, stderr) => {
        if (stdout === '') reject(new Error(stderr, { cause: error }));
        else resolve(stdout);
      });
    });
    const { manners, checks } = JSON.parse(said) as Result;
    expect(checks.length).toBeGreaterThanOrEqual(7);
    expect(checks.filter(({ ok }) => !ok)).toEqual([]);
    expect(manners).toMatchObject({
      whole: expect.any(Number),
      stream: expect.any(Number),
      malformed: expect.any(Number),
      'leaves the prompt': expect.any(Number),
      'leaves the answer': expect.any(Number),
    });
  },
  240_000,
);
