/** pull, list, rm and names of models, as users run them: real processes, killed at any byte. */
import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { build, type Ended, type RunOptions, tandem } from '../cli/tandem.ts';
import { MockHub, noise } from './mock-hub.ts';

const BACKEND = nativeProblem() ? ['--backend', 'reference'] : [];
const JUG = readFileSync(new URL('../../models/jug/jug-Q8_0.gguf', import.meta.url));

let hub: MockHub;
let root: string;
beforeAll(async () => {
  build();
  hub = await MockHub.start();
}, 60_000);
afterAll(() => hub.close());
beforeEach(async () => {
  hub.reset();
  hub.repositories.clear();
  hub.add('org/jug', { 'README.md': 'x', 'jug-Q8_0.gguf': JUG });
  root = await mkdtemp(join(tmpdir(), 'tandem-hub-'));
  return () => rm(root, { recursive: true });
});

function cli(args: readonly string[], { env, ...options }: RunOptions = {}): Promise<Ended> {
  return tandem(args, { ...options, env: { HF_ENDPOINT: hub.endpoint, HF_HOME: root, ...env } });
}

const blobs = () => join(root, 'hub', 'models--org--jug', 'blobs');
const journal = () => {
  const name = readdirSync(blobs()).find((file) => file.endsWith('.ranges'));
  return name === undefined ? '' : readFileSync(join(blobs(), name), 'utf8');
};

test('offline a plan reads what was pulled', async () => {
  const wanted = ['plan', 'org/jug', '--offline', '--json'];
  const absent = await cli(wanted);
  expect(absent.code).toBe(1);
  expect(absent.stderr).toMatch(/^\[hub\] .*org\/jug.*; tandem pull org\/jug/);
  await cli(['pull', 'org/jug']);
  const machine = join(root, 'machine.json');
  writeFileSync(machine, '{"cpu":{"isa":"avx2","cores":8},"memory":{"bytes":8e9,"bandwidth":6e10}}');
  hub.fault = () => ({ status: 500 });
  for (const name of ['org/jug', 'org/jug:Q8_0', 'org/jug@main']) {
    const { code, stdout } = await cli(['plan', name, '--offline', '--json', '--machine', machine]);
    expect(code).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ model: 'org/jug', source: 'file', quants: [{ quant: 'Q8_0', fileBytes: JUG.length }] }); // biome-ignore format: one thought a line
  }
});

describe('tandem pull', () => {
  test('killed again and again at random bytes, it ends with the right file', { timeout: 300_000 }, async () => {
    const random = noise(64, 20);
    for (let round = 0; round < 10; round++) {
      // Every third time only when something is in the journal, so that there is something to go on from.
      const after = hub.sent + random[round] * 8_000;
      hub.fault = ({ kind }) => (kind === 'cdn' ? { pieces: 16_384 } : undefined);
      let child: { kill(signal: 'SIGKILL'): boolean } | undefined;
      let killed = false;
      hub.onSent = (sent) => {
        if (killed || child === undefined || sent < after || (round % 3 === 2 && !/\n\d+ \d+\n/.test(journal())))
          return;
        killed = child.kill('SIGKILL');
      };
      const { code, stderr } = await cli(['pull', 'org/jug'], { watch: (running) => (child = running) });
      expect([code, stderr]).toEqual([null, expect.stringContaining('org/jug:Q8_0')]);
      expect(readdirSync(blobs()).filter((file) => /^[0-9a-f]{64}$/.test(file))).toEqual([]);
    }
    hub.onSent = () => {};
    const { code, stdout, stderr } = await cli(['pull', 'org/jug', '--json']);
    expect([code, stderr]).toEqual([
      0,
      expect.stringMatching(/org\/jug:Q8_0: 1 file, 17\.3 MB, [\d.]+ [kM]?B missing\n/),
    ]);
    const { path, fetched, bytes } = JSON.parse(stdout) as { path: string; fetched: number; bytes: number };
    expect(fetched).toBeLessThan(bytes);
    expect(Buffer.compare(await readFile(path), JUG)).toBe(0);
    expect(readdirSync(blobs())).toHaveLength(1);
  });

  test('two processes at once share one download', async () => {
    hub.fault = ({ kind }) => (kind === 'cdn' ? { pieces: 262_144 } : undefined);
    const ended = await Promise.all([cli(['pull', 'org/jug']), cli(['pull', 'org/jug'])]);
    expect(ended.map(({ code }) => code)).toEqual([0, 0]);
    expect(ended[0].stdout).toBe(ended[1].stdout);
    expect(hub.sent).toBe(JUG.length);
    expect(Buffer.compare(await readFile(ended[0].stdout.trim()), JUG)).toBe(0);
  });

  test('Ctrl-C: exit code 130, quietly, and what came is kept', async () => {
    hub.fault = ({ kind }) => (kind === 'cdn' ? { pieces: 65_536 } : undefined);
    let child: { kill(signal: 'SIGINT'): boolean } | undefined;
    hub.onSent = (sent) => sent > 3_000_000 && child?.kill('SIGINT');
    const { code, stdout, stderr } = await cli(['pull', 'org/jug'], { watch: (running) => (child = running) });
    expect([code, stdout]).toEqual([130, '']);
    expect(stderr).not.toContain('[');
    expect(journal()).toMatch(/^tandem-ranges 1 \d+\n\d+ \d+\n/);
    hub.reset();
    expect((await cli(['pull', 'org/jug'])).code).toBe(0);
    expect(hub.sent).toBeLessThan(JUG.length);
  });

  test.each<[string, string[], Record<string, string>, RegExp]>([
    ['no such model', ['pull', 'org/none'], {}, /^\[hub\] .*org\/none.*RepoNotFound/],
    ['no name', ['pull', 'jug'], {}, /^\[hub\] .*jug/],
    [
      'no such quantization',
      ['pull', 'org/jug:Q4_K_M'],
      {},
      /^\[hub\] .*Q4_K_M.*; .*Q8_0 \(17\.3 MB\); .*org\/jug:Q8_0/,
    ],
    ['no such revision', ['pull', 'org/jug@v2'], {}, /^\[hub\] .*\bv2\b.*@REVISION/],
    ['offline', ['pull', 'org/jug', '--offline'], {}, /^\[hub\] .*org\/jug/],
    ['offline by the environment', ['pull', 'org/jug'], { HF_HUB_OFFLINE: '1' }, /^\[hub\] .*org\/jug/],
    [
      'a wrong endpoint',
      ['pull', 'org/jug'],
      { HF_ENDPOINT: 'huggingface.co' },
      /^\[hub\] HF_ENDPOINT .*; huggingface\.co/,
    ],
    ['a broken token', ['pull', 'org/jug'], { HF_TOKEN: 'hf_a hf_b' }, /^\[hub\] .*token/],
    [
      'a cache that cannot be',
      ['pull', 'org/jug'],
      { HF_HUB_CACHE: '/dev/null/x' },
      /^\[hub\] .*\/dev\/null\/x.*HF_HUB_CACHE/,
    ],
    [
      'a name that was never pulled',
      ['run', '-m', 'org/jug:Q8_0', 'x'],
      {},
      /^\[hub\] .*; .*tandem pull org\/jug:Q8_0/,
    ],
    ['names of other programs', ['inspect', 'llama3:8b'], {}, /^\[\w+\] .*llama3:8b/],
    ['an address', ['inspect', 'ftp://x/y.gguf'], {}, /^\[\w+\] .*ftp:\/\/x\/y\.gguf/],
    ['what is not there to remove', ['rm', 'org/jug', '-y'], {}, /^\[\w+\] .*org\/jug.*; tandem list/],
    ['a revision to remove', ['rm', 'org/jug@main', '-y'], {}, /^\[\w+\] .*; org\/jug@main; tandem rm org\/jug/],
  ])('%s: one line and exit code 1', async (_, args, env, message) => {
    const { code, stdout, stderr } = await cli(args, { env });
    expect([code, stdout]).toEqual([1, '']);
    expect(stderr).toMatch(message);
    expect(stderr.split('\n')).toHaveLength(2);
  });

  test('a gated model: how to get in, and the token from the file that other tools write', async () => {
    hub.add('org/gated', { 'jug-Q8_0.gguf': JUG }, { gated: true, token: 'hf_right' });
    const refused = await cli(['pull', 'org/gated']);
    expect(refused.code).toBe(1);
    expect(refused.stderr).toMatch(/^\[hub\] org\/gated .*HF_TOKEN\n$/m);
    const { writeFile } = await import('node:fs/promises');
    await writeFile(join(root, 'token'), 'hf_right\n');
    expect((await cli(['pull', 'org/gated'])).code).toBe(0);
  });
});

test('pulled, used by its name, listed, removed', async () => {
  const pulled = await cli(['pull', 'org/jug']);
  expect(pulled.stdout).toBe(
    `${join(root, 'hub', 'models--org--jug', 'snapshots', 'a'.repeat(40), 'jug-Q8_0.gguf')}\n`,
  );
  hub.reset();
  const answer = await cli(['run', ...BACKEND, '-m', 'org/jug', '--hide-thinking', 'What is 9 + 0?']);
  expect([answer.code, answer.stdout]).toEqual([0, '9 + 0 = 9\n']);
  const explained = await cli(['explain', 'org/jug:q8_0', '--json']);
  expect(JSON.parse(explained.stdout)).toHaveProperty('steps');
  expect(hub.log).toEqual([]);

  const listed = JSON.parse((await cli(['list', '--json'])).stdout) as unknown[];
  expect(listed).toMatchObject([
    { name: 'org/jug:Q8_0', quant: 'Q8_0', bytes: JUG.length, commit: 'a'.repeat(40), path: pulled.stdout.trim() },
    { name: null, quant: 'Q8_0', bytes: JUG.length },
  ]);
  expect((await cli(['list'])).stdout).toMatch(
    /^model .*\norg\/jug:Q8_0 +Q8_0 +17\.3 MB +\d{4}-\d\d-\d\d \d\d:\d\d\n\(the model that ships\)/,
  );

  const asked = await cli(['rm', 'org/jug']);
  expect(asked.stderr).toMatch(/remove org\/jug \(Q8_0, 17\.3 MB\)\? and there is no terminal to answer at; add --yes/);
  expect(statSync(pulled.stdout.trim()).size).toBe(JUG.length);
  const removed = await cli(['rm', 'org/jug:Q8_0', '--yes']);
  expect([removed.code, removed.stderr]).toEqual([0, 'removed; 17.3 MB are free again\n']);
  expect(readdirSync(join(root, 'hub'))).toEqual(['.locks']);
});

test("a server's clients name models, never repositories or paths", async () => {
  await cli(['pull', 'org/jug']);
  const path = readdirSync(join(root, 'hub'), { recursive: true, encoding: 'utf8' }).find((file) =>
    file.endsWith('.gguf'),
  )!;
  hub.reset();
  let asking: Promise<unknown[]> | undefined;
  const ask = async (url: string, child: { kill(signal: 'SIGTERM'): boolean }) => {
    const answers: unknown[] = [];
    for (const model of ['org/jug', 'org/jug:Q8_0', 'org/other', join(root, 'hub', path), '../../etc/passwd']) {
      const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'x' }] });
      const headers = { 'content-type': 'application/json' };
      for (const route of ['/v1/chat/completions', '/api/chat', '/api/show']) {
        const { status } = await fetch(url + route, { method: 'POST', headers, body });
        answers.push([route, model, status]);
      }
    }
    child.kill('SIGTERM');
    return answers;
  };
  const { stderr } = await cli(['serve', ...BACKEND, '--lazy', '--port', '0'], {
    watch: (child, piece) => {
      const url = /http:\/\/[\w.:]+/.exec(piece)?.[0];
      if (url !== undefined) asking ??= ask(url, child);
    },
  });
  expect(stderr).toContain('jug-Q8_0');
  const answers = await asking;
  expect(answers).toHaveLength(15);
  expect(answers).toEqual(answers?.map((one) => [...(one as unknown[]).slice(0, 2), 404]));
  expect(hub.log).toEqual([]);
});

// `script` of util-linux gives a process a terminal; there is no such thing on every machine.
const HAS_TERMINALS = spawnSync('script', ['-qec', 'true', '/dev/null']).status === 0;

describe.skipIf(!HAS_TERMINALS)('at a terminal', () => {
  /** `tandem ARGS`, with what a person types at the first question. */
  function typed(args: string, answer: string): Promise<{ code: number | null; text: string }> {
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HOME: root, NO_COLOR: '1' };
    const dist = new URL('../../dist/cli.js', import.meta.url).pathname;
    const child = spawn('script', ['-qec', `${process.execPath} ${dist} ${args}`, '/dev/null'], { env });
    let text = '';
    child.stdout.on('data', (piece) => {
      if (!text.includes('[y/N]') && `${text}${piece}`.includes('[y/N]')) child.stdin.write(answer);
      text += piece;
    });
    return new Promise((done) => child.on('close', (code) => done({ code, text })));
  }
  const ask = `run ${BACKEND.join(' ')} --no-server -m org/jug --hide-thinking "${'What is 9 + 0?'}"`;

  test('a model that is not here is offered, and taken, or not; so is its removal', async () => {
    const declined = await typed(ask, 'n\n');
    expect(declined).toMatchObject({
      code: 1,
      text: expect.stringMatching(/org\/jug:Q8_0 is not here\. Download 17\.3 MB\? \[y\/N\]/),
    });
    expect(hub.sent).toBe(0);
    const taken = await typed(ask, 'y\n');
    expect(taken).toMatchObject({ code: 0, text: expect.stringContaining('9 + 0 = 9') });
    expect(await typed('rm org/jug', '\n')).toMatchObject({ code: 0, text: expect.not.stringContaining('free again') });
    expect(await typed('rm org/jug', 'yes\n')).toMatchObject({
      code: 0,
      text: expect.stringContaining('17.3 MB are free again'),
    });
  });

  test('Ctrl-C ends the download that was offered', async () => {
    hub.fault = ({ kind }) => (kind === 'cdn' ? { pieces: 16_384 } : undefined);
    const env = { ...process.env, HF_ENDPOINT: hub.endpoint, HF_HOME: root };
    const dist = new URL('../../dist/cli.js', import.meta.url).pathname;
    const child = spawn('script', ['-qec', `${process.execPath} ${dist} ${ask}`, '/dev/null'], { env });
    child.stdout.once('data', () => child.stdin.write('y\n'));
    hub.onSent = (sent) => {
      if (sent > 2_000_000) child.stdin.write('\x03');
    };
    expect(await new Promise((done) => child.on('close', done))).toBe(130);
    expect(hub.sent).toBeLessThan(JUG.length);
  });
});
