/** What goes wrong around a server: clients that vanish, passes that fail, disks that are full, damaged or gone, kills. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { build } from '../cli/tandem.ts';
import { END } from '../engine/fake-tokenizer.ts';
import { CARD, serveAnswer, serveJug, type TestServer } from './fixture.ts';

const post = (url: string, path: string, body: unknown, signal?: AbortSignal) =>
  fetch(`${url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
    signal,
  });

const engineOf = (server: TestServer) => server.models.peek('')!;

describe('a client that vanishes', () => {
  const asks = [
    ['/v1/chat/completions', { messages: [{ role: 'user', content: 'x'.repeat(1500) }] }],
    ['/v1/completions', { prompt: 'x'.repeat(1500) }],
    ['/v1/messages', { model: CARD.id, max_tokens: 500, messages: [{ role: 'user', content: 'x'.repeat(1500) }] }],
    ['/api/generate', { model: CARD.id, prompt: 'x'.repeat(1500) }],
  ] as const;

  test.each(asks)('%s: no pass begins for it any more, in the prompt and in the answer', async (path, body) => {
    for (const stream of [true, false])
      for (const place of ['prompt', 'answer']) {
        const server = await serveAnswer('y'.repeat(400), {}, () => sleep(15));
        const { executable } = server;
        const gone = new AbortController();
        const asked = post(server.url, path, { ...body, stream }, gone.signal).then((reply) => reply.text());
        const there = () => engineOf(server).requests()[0]?.[place === 'prompt' ? 'computed' : 'generated'] ?? 0;
        await expect.poll(there, { interval: 2 }).toBeGreaterThan(0);
        gone.abort();
        await expect(asked).rejects.toThrow();
        await expect
          .poll(() => executable.cancelled.length + Number(engineOf(server).stats().running === 0))
          .not.toBe(0);
        const passes = executable.passes.length;
        await sleep(100);
        expect(executable.passes.length - passes).toBeLessThanOrEqual(1);
        const { running, waiting, freePages, totalPages } = engineOf(server).stats();
        expect([running, waiting, freePages]).toEqual([0, 0, totalPages]);
        await server.close();
      }
  });

  // Reason of the skip: the native core is not built here (nativeProblem() says why).
  test.skipIf(nativeProblem() !== undefined)('native: a long prompt stops within one pass', async () => {
    const server = await serveJug({}, { maxBatchRows: 16, contextLength: 2048 });
    await server.models.warm('');
    const prompt = Array.from({ length: 1900 }, (_, i) => 10 + ((i * i) % 1400));
    const whole = Math.ceil(1900 / 16);
    const gone = new AbortController();
    const asked = post(server.url, '/v1/completions', { prompt, max_tokens: 5 }, gone.signal);
    await expect.poll(() => engineOf(server).stats().passes, { interval: 1 }).toBeGreaterThan(2);
    gone.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(() => engineOf(server).stats().running, { interval: 1 }).toBe(0);
    const { passes } = engineOf(server).stats();
    expect(passes).toBeLessThan(whole);
    await sleep(200);
    expect(engineOf(server).stats()).toMatchObject({ passes, running: 0, waiting: 0 });
    await server.close();
  });
});

describe('a client that does not read', () => {
  test('is cut off once nothing moves for a while; its pages come back', async () => {
    const server = await serveAnswer('y'.repeat(50_000), { writeTimeoutMs: 500, heartbeatMs: 50 }, undefined, 1 << 16);
    // More than systems keep for a socket.
    const body = JSON.stringify({
      messages: [{ role: 'user', content: 'x' }],
      logprobs: true,
      top_logprobs: 20,
      stream: true,
    });
    const socket = connect(server.port, '127.0.0.1');
    socket.pause();
    socket.write(
      `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    );
    const told = () => server.logs.find((line) => line.includes('/v1/chat/completions')) ?? '';
    await expect.poll(told).toContain('"finish":"ABORTED"');
    expect(JSON.parse(told()).completionTokens ?? 0).toBeLessThan(50_000);
    const { running, waiting, freePages, totalPages } = engineOf(server).stats();
    expect([running, waiting, freePages]).toEqual([0, 0, totalPages]);
    socket.destroy();
    await server.close();
  });

  test('but waits for its answer is not', async () => {
    const server = await serveAnswer('</think>y', { writeTimeoutMs: 50 }, () => sleep(100));
    const reply = await post(server.url, '/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] });
    expect(await reply.text()).toContain('"content":"y"');
    await server.close();
  });
});

describe('who waits for a thread', () => {
  const ENDLESS = { type: 'regex', pattern: '((a|b){0,500}c?){0,20000}' };
  const formed = (format: object) => ({ messages: [{ role: 'user', content: 'x' }], response_format: format });
  const statusOf = (server: TestServer, path: string) =>
    server.logs.map((line) => JSON.parse(line)).find((line) => line.path === path)?.status;

  test('a form that compiles for ever: gone with its client, the next form has its turn', async () => {
    const server = await serveAnswer('</think>ab');
    const gone = new AbortController();
    const chat = vi.spyOn(engineOf(server), 'chat');
    const asked = ['/v1/chat/completions', '/chat/completions'].map((path) =>
      post(server.url, path, formed(ENDLESS), gone.signal),
    );
    const next = post(server.url, '/v1/chat/completions/', formed({ type: 'regex', pattern: 'ab' }));
    await expect.poll(() => chat.mock.calls.length).toBe(3);
    expect(server.logs).toEqual([]);
    gone.abort();
    for (const one of asked) await expect(one).rejects.toThrow();
    await expect.poll(() => statusOf(server, '/v1/chat/completions')).toBe(499);
    expect(await (await next).text()).toContain('"content":"ab"');
    expect(engineOf(server).stats()).toMatchObject({ running: 0, waiting: 0 });
    await server.close();
  });

  test.each([false, true])(
    'a form that compiles for ever, streamed %j: the end of the server is told',
    async (stream) => {
      const server = await serveAnswer('</think>x', { drainMs: 0, heartbeatMs: 20 });
      const chat = vi.spyOn(engineOf(server), 'chat');
      const asked = post(server.url, '/v1/chat/completions', { ...formed(ENDLESS), stream });
      await expect.poll(() => chat.mock.calls.length).toBe(1);
      if (stream) await asked; // its head goes out with the first sign of life
      await server.close();
      const reply = await asked;
      expect(reply.status).toBe(stream ? 200 : 503);
      expect(await reply.text()).toContain('"code":"server_stopping"');
    },
  );

  // Reason of the skip: the native core is not built here (nativeProblem() says why).
  test.skipIf(nativeProblem() !== undefined)(
    'a text of megabytes: gone with its client, told when the server ends',
    async () => {
      const server = await serveJug({ drainMs: 0 });
      await server.models.warm('');
      const content = 'Some words to read, and 12 more. '.repeat(200_000);
      const gone = new AbortController();
      const tokenize = vi.spyOn(engineOf(server), 'tokenizeApart');
      const asked = post(server.url, '/tokenize', { content }, gone.signal);
      const behind = post(server.url, '/v1/tokenize', { content });
      await expect.poll(() => tokenize.mock.calls.length).toBe(2);
      gone.abort();
      await expect(asked).rejects.toThrow();
      await expect.poll(() => statusOf(server, '/tokenize')).toBe(499);
      await server.close();
      expect((await behind).status).toBe(503);
    },
  );
});

describe('a pass that fails', () => {
  test('ends the request at fault; the others get their answers', async () => {
    const BAD = 'Z'.charCodeAt(0);
    const server = await serveAnswer('y'.repeat(60), {}, async ({ tokens }) => {
      await sleep(2);
      if (tokens.includes(BAD) && !tokens.includes(END)) throw new Error('a fault of the core at /secret/place');
    });
    const chat = (content: string) =>
      post(server.url, '/v1/chat/completions', { messages: [{ role: 'user', content }] });
    const replies = await Promise.all(['a', 'b', 'Z', 'c', 'd'].map(chat));
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 500, 200, 200]);
    const bodies = (await Promise.all(replies.map((reply) => reply.json()))) as {
      choices: { message: { reasoning_content: string } }[];
    }[];
    for (const i of [0, 1, 3, 4]) expect(bodies[i].choices[0].message.reasoning_content).toBe('y'.repeat(60));
    expect(JSON.stringify(bodies[2])).not.toContain('/secret/place');
    expect(server.logs.join('')).toContain('/secret/place');
    expect(engineOf(server).stats()).toMatchObject({ running: 0, waiting: 0 });
    await server.close();
  });
});

// Reason of the skip: the native core is not built here (nativeProblem() says why).
describe.skipIf(nativeProblem() !== undefined)('a store', () => {
  let folder: string;
  beforeAll(() => build());
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tandem-faults-'));
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const prompt = Array.from({ length: 500 }, (_, i) => 10 + ((i * i) % 1400));
  const PAGES = Math.floor(prompt.length / 64);

  async function answers(server: TestServer) {
    const reply = await post(server.url, '/v1/completions', { prompt, max_tokens: 12, temperature: 0 });
    const { choices, usage } = (await reply.json()) as {
      choices: { text: string }[];
      usage: { prompt_tokens_details: { cached_tokens: number } };
    };
    return { text: choices[0].text, cached: usage.prompt_tokens_details.cached_tokens };
  }
  const once = async (directory = folder) => {
    const server = await serveJug({}, { exact: true, prefixCache: { directory } });
    const answer = await answers(server);
    const { disk } = engineOf(server).stats();
    await server.close();
    return { ...answer, disk: disk! };
  };
  const files = async () =>
    (await readdir(folder, { recursive: true, withFileTypes: true }))
      .filter((entry) => entry.isFile())
      .map(({ parentPath, name }) => join(parentPath, name));

  test.each([
    [
      'bits turned in every file',
      async (path: string, i: number) => {
        const bytes = await readFile(path);
        bytes[(i * 7919 + 13) % bytes.length] ^= 1 << (i & 7);
        await writeFile(path, bytes);
      },
    ],
    ['every file cut off', (path: string, i: number) => truncate(path, i * 1000)],
    ['every file longer', (path: string) => appendFile(path, 'x')],
    ['every file full of zeros', async (path: string) => writeFile(path, Buffer.alloc((await readFile(path)).length))],
  ])('with %s: none is used, the answer is the same', async (_, damage) => {
    const first = await once();
    const all = await files();
    expect(all).toHaveLength(PAGES);
    for (const [i, path] of all.entries()) await damage(path, i);
    const second = await once();
    expect([second.text, second.cached]).toEqual([first.text, 0]);
    expect(second.disk.corrupt).toBeGreaterThan(0);
    const third = await once(); // what was written anew is good
    expect([third.text, third.disk.corrupt]).toEqual([first.text, 0]);
    expect(third.cached).toBe(PAGES * 64);
  });

  test('whose folder is removed while the server runs: answers stay, and it fills again', async () => {
    const server = await serveJug({}, { exact: true, prefixCache: { directory: folder } });
    const first = await answers(server);
    await expect.poll(files).toHaveLength(PAGES);
    await rm(folder, { recursive: true });
    expect((await answers(server)).text).toBe(first.text);
    await server.close();
    const again = await once();
    expect(again.text).toBe(first.text);
  });

  test('whose folder becomes a file while the server runs: answers stay', async () => {
    const server = await serveJug({}, { exact: true, prefixCache: { directory: folder } });
    await server.models.warm('');
    await rm(folder, { recursive: true });
    await writeFile(folder, '');
    const first = await answers(server);
    const second = await answers(server);
    expect(second.text).toBe(first.text);
    await expect.poll(() => engineOf(server).stats().disk?.errors).toBeGreaterThan(0);
    await server.close();
    await rm(folder);
    await mkdir(folder);
    expect((await once()).text).toBe(first.text);
  });

  /** The command line under a limit of the shell; resolves once it is ready. */
  async function command(limit: string): Promise<{ url: string; child: ChildProcess; ended: Promise<unknown> }> {
    const cli = fileURLToPath(new URL('../../dist/cli.js', import.meta.url));
    const line = `${limit}; exec "$0" "$1" serve --port 0 --exact --prefix-cache "$2"`;
    const child = spawn('bash', ['-c', line, process.execPath, cli, folder], { stdio: ['ignore', 'ignore', 'pipe'] });
    const ended = new Promise((resolve) => child.on('close', resolve));
    let text = '';
    child.stderr.setEncoding('utf8').on('data', (piece: string) => {
      text += piece;
    });
    await expect.poll(() => text).toContain('ready');
    return { url: /http:\/\/\S+/.exec(text)![0], child, ended };
  }

  test('on a disk that takes no more: answers stay, nothing half-written is left', async () => {
    const wanted = await once();
    await rm(folder, { recursive: true });
    await mkdir(folder);
    // 64 kB a file: less than a page has.
    const { url, child, ended } = await command('ulimit -f 64');
    const first = await answers({ url } as TestServer);
    const errors = async () =>
      Number(/^tandem_prefix_disk_errors_total\{.*\} (.*)$/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1]);
    await expect.poll(errors).toBeGreaterThan(0);
    expect(first.text).toBe(wanted.text);
    expect((await answers({ url } as TestServer)).text).toBe(wanted.text);
    child.kill('SIGTERM');
    expect(await ended).toBe(0);
    expect(await files()).toEqual([]);
  });

  test('survives kills at any moment: every answer is the one without a store', async () => {
    const script = fileURLToPath(new URL('../../bench/kill.mjs', import.meta.url));
    const { stdout } = await promisify(execFile)(process.execPath, [script, '--kills', '10', '--json'], {
      cwd: dirname(dirname(script)),
    });
    const found = JSON.parse(stdout) as Record<string, number>;
    expect(found).toMatchObject({ kills: 10, unequal: 0, corrupt_total: 0, errors_total: 0 });
    expect(found.answers).toBeGreaterThan(10);
    expect(found.cachedTokens).toBeGreaterThan(0);
  }, 240_000);
});
