/** Flags of llama.cpp and fewer experts, from outside. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { load } from '../../src/index.ts';
import { build, tandem } from './tandem.ts';

const BACKEND = nativeProblem() ? ['--backend', 'reference'] : [];
const HERE = ['--no-server', ...BACKEND, '--hide-thinking'];
const SUM = 'What is 9 + 0?';

let root: string;
beforeAll(async () => {
  build();
  root = await mkdtemp(join(tmpdir(), 'tandem-familiar-'));
}, 60_000);
afterAll(() => rm(root, { recursive: true }));

test('a command line of llama.cpp answers, and says what has no effect', async () => {
  const line = [
    'run',
    ...HERE,
    '-ngl',
    '99',
    '-ot',
    'exps=CPU',
    '--n-cpu-moe',
    '3',
    '-fa',
    'on',
    '-b',
    '512',
    '-ub',
    '64',
  ];
  const { code, stdout, stderr } = await tandem([
    ...line,
    '-c',
    '0',
    '-n',
    '-1',
    '--temp',
    '0',
    '--top-k',
    '40',
    '-p',
    SUM,
  ]);
  expect([code, stdout]).toEqual([0, '9 + 0 = 9\n']);
  expect(stderr).toContain('-fa: attention is always computed in blocks\n');
  expect(stderr).toContain(
    '-ngl, --n-cpu-moe, -ot: this machine has no GPU that is used, all is on the CPU; no effect\n',
  );
});

test('a prompt from a file', async () => {
  const file = join(root, 'prompt.txt');
  await writeFile(file, SUM);
  const { code, stdout } = await tandem(['run', ...HERE, '-f', file]);
  expect([code, stdout]).toEqual([0, '9 + 0 = 9\n']);
});

test('fewer experts: it says what that means', async () => {
  const { code, stderr } = await tandem(['run', ...HERE, '--experts-per-token', '1', '-n', '3', SUM]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/1 experts a token where the model was trained with \d: faster, and lossy/);
});

test('late experts: it says what that means, and perplexity says what it costs', async () => {
  const { code, stderr } = await tandem(['run', ...HERE, '--defer-experts', '2', '-n', '3', SUM]);
  expect(code).toBe(0);
  expect(stderr).toMatch(/2 of the 4 experts of a token come one layer late: .* lossy\n/);
  const file = join(root, 'text.txt');
  await writeFile(file, 'What is 9 + 0? 9 + 0 = 9. What is 2 + 3? 2 + 3 = 5.');
  const judge = ['perplexity', ...BACKEND, '--text', file, '--skip', '0', '--json', '--kl-against', 'undeferred'];
  const means: number[] = [];
  for (const late of ['0', '3']) {
    const { stdout } = await tandem([...judge, '--defer-experts', late]);
    means.push(JSON.parse(stdout).mean);
  }
  expect(means[0]).toBe(0);
  expect(means[1]).toBeGreaterThan(0);
});

test.each<[string, string[], RegExp]>([
  ['two prompts', ['run', '-p', 'a', 'b'], /^\[cli\] run takes one prompt; -p and "b"/],
  ['a file that is not there', ['run', '-f', '/nope'], /\/nope/],
  ['layers that are no number', ['run', ...HERE, '-ngl', 'many', SUM], /-ngl takes a number of layers, or all; many/],
  [
    'a device of others',
    ['run', ...HERE, '-ot', 'exps=Vulkan0', SUM],
    /-ot takes REGEX=CPU or REGEX=CUDA0; exps=Vulkan0/,
  ],
  ['a broken expression', ['run', ...HERE, '-ot', '(=CPU', SUM], /-ot takes a regular expression before the =/],
  ['a pass of one row', ['run', ...HERE, '-ub', '1', SUM], /--ubatch-size is an integer in \[2, 65536\]; got 1/],
  [
    'no experts',
    ['run', ...HERE, '--experts-per-token', '0', SUM],
    /'--experts-per-token <n>' argument '0' is invalid/,
  ],
  [
    'more experts than there are',
    ['run', ...HERE, '--experts-per-token', '999', SUM],
    /\[models\] --experts-per-token is a whole number from 1 to \d+ \(deepseek-v3 was trained with \d\); 999/,
  ],
  [
    'all experts late',
    ['run', ...HERE, '--defer-experts', '4', SUM],
    /\[models\] --defer-experts is a whole number from 0 to 3: of 4 experts a token one is in time; 4/,
  ],
])('%s: one line', async (_, args, message) => {
  const { code, stderr } = await tandem(args);
  expect(code).toBe(1);
  expect(stderr).toMatch(message);
  expect(stderr.split('\n')).toHaveLength(2);
});

describe('expertsPerToken of load', () => {
  const options = nativeProblem() ? ({ backend: 'reference' } as const) : ({ exact: true } as const);

  test('changes what is computed, and all of them are the model as it is', async () => {
    await using whole = await load(undefined, { ...options, contextLength: 128 });
    const ids = whole.tokenize(SUM);
    const logits = await whole.logits(ids);
    await using one = await load(undefined, { ...options, contextLength: 128, expertsPerToken: 1 });
    expect(await one.logits(ids)).not.toEqual(logits);
    expect(one.info.warnings).toEqual([expect.stringMatching(/^1 experts a token .* lossy$/)]);
    const trained = Number(/trained with (\d+)/.exec(one.info.warnings[0])?.[1]);
    await using same = await load(undefined, { ...options, contextLength: 128, expertsPerToken: trained });
    expect(await same.logits(ids)).toEqual(logits);
    expect(same.info.warnings).toEqual([]);
  });
});
