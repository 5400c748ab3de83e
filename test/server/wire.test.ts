/** What no client library shows: headers, heartbeats, hosts, CORS, keys, hostile bodies, sockets that misbehave, the end. */
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CARD, serve, serveAnswer, type TestServer } from './fixture.ts';

const ASK = { messages: [{ role: 'user', content: 'x' }] };

/** Bytes in, bytes out, until the server closes or `ms` passed. */
function raw(server: TestServer, request: string | Buffer, ms = 3000): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(server.port, '127.0.0.1');
    let text = '';
    const end = () => {
      socket.destroy();
      resolve(text);
    };
    const timer = setTimeout(end, ms);
    socket.on('data', (bytes) => {
      text += bytes.toString();
    });
    socket.on('close', () => {
      clearTimeout(timer);
      end();
    });
    socket.on('error', () => {});
    socket.write(request);
  });
}

const post = (
  server: TestServer,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
  signal?: AbortSignal,
) =>
  fetch(`${server.url}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
    signal,
  });

describe('the wire', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await serveAnswer('Hello</think>\n\nworld', { bodyBytes: 1 << 20, heartbeatMs: 100 });
  });
  afterAll(() => server?.close());

  test('streams: headers, heartbeat first, one JSON a line, DONE last', async () => {
    const reply = await post(server, '/v1/chat/completions', { ...ASK, stream: true });
    expect(reply.headers.get('content-type')).toMatch(/^text\/event-stream/);
    expect(reply.headers.get('cache-control')).toContain('no-cache');
    expect(reply.headers.get('x-accel-buffering')).toBe('no');
    const text = await reply.text();
    const events = text.split('\n\n').filter((event) => event !== '');
    expect(events[0]).toBe(': ping');
    expect(events.at(-1)).toBe('data: [DONE]');
    const chunks = events.slice(1, -1).map((event) => {
      expect(event).toMatch(/^data: \{[^\n]*\}$/);
      return JSON.parse(event.slice(6)) as { choices: { delta: object; finish_reason: string | null }[] };
    });
    expect(chunks.every(({ choices }) => Array.isArray(choices))).toBe(true);
    expect(chunks[0].choices[0].delta).toEqual({ role: 'assistant', content: '' });
    expect(chunks.at(-1)?.choices[0]).toMatchObject({ delta: {}, finish_reason: 'stop' });
    expect(chunks.slice(0, -1).every(({ choices }) => choices[0].finish_reason === null)).toBe(true);
  });

  test('a silent stream shows signs of life', async () => {
    const slow = await serveAnswer('x', { heartbeatMs: 50 }, async () => {
      await sleep(400);
    });
    const text = await (await post(slow, '/v1/chat/completions', { ...ASK, stream: true })).text();
    expect(text.match(/: ping/g)!.length).toBeGreaterThan(3);
    const lines = await (await post(slow, '/api/chat', { ...ASK, model: CARD.id })).text();
    expect(lines.split('\n').filter((line) => line.includes('"content":""')).length).toBeGreaterThan(3);
    const events = await (
      await post(slow, '/v1/messages', { ...ASK, model: CARD.id, max_tokens: 5, stream: true })
    ).text();
    expect(events.match(/event: ping/g)!.length).toBeGreaterThan(3);
    await slow.close();
  });

  test('routes work without their prefix; the root says who is here', async () => {
    expect((await post(server, '/chat/completions', ASK)).status).toBe(200);
    expect((await fetch(`${server.url}/models`)).status).toBe(200);
    const root = await fetch(server.url, { headers: { accept: 'application/json' } });
    expect([root.status, await root.text()]).toEqual([200, 'Ollama is running']);
    expect((await fetch(server.url, { method: 'HEAD' })).status).toBe(200);
    expect((await fetch(`${server.url}/docs`)).headers.get('content-security-policy')).toContain("default-src 'none'");
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as { openapi: string; paths: object };
    expect(document.openapi).toBe('3.1.0');
    expect(Object.keys(document.paths)).toEqual(
      expect.arrayContaining(['/v1/chat/completions', '/v1/messages', '/api/chat']),
    );
  });

  test.each([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['nothing', ''],
    ['deep nesting', `${'['.repeat(100_000)}`],
    ['nested fields', `{"messages":${'[{"a":'.repeat(300)}1`],
    ['a million tools', JSON.stringify({ ...ASK, tools: Array.from({ length: 20_000 }, () => ({})) })],
    ['NUL in a name', JSON.stringify({ ...ASK, model: 'a\0b' })],
    ['a path as a model', JSON.stringify({ ...ASK, model: '../../etc/passwd' })],
    ['a role that is none', JSON.stringify({ messages: [{ role: 'root', content: 'x' }] })],
    ['an empty conversation', JSON.stringify({ messages: [] })],
    ['numbers as text', JSON.stringify({ ...ASK, temperature: '1' })],
    ['numbers out of range', JSON.stringify({ ...ASK, max_tokens: -5 })],
    ['a stop of the wrong kind', JSON.stringify({ ...ASK, stop: { a: 1 } })],
    ['a bias for no token', JSON.stringify({ ...ASK, logit_bias: { '999999': 1 } })],
    [
      'a schema that is none',
      JSON.stringify({
        ...ASK,
        response_format: { type: 'json_schema', json_schema: { schema: { type: 'nonsense' } } },
      }),
    ],
  ])('%s is refused with one clear message', async (_, body) => {
    const reply = await post(server, '/v1/chat/completions', body);
    expect([400, 404, 413]).toContain(reply.status);
    expect(reply.headers.get('x-should-retry')).toBe('false');
    const { error } = (await reply.json()) as { error: { message: string; type: string; code: string } };
    expect(error.message).toMatch(/^\[\w+\] .+; /);
    expect(error.message).not.toMatch(/\.ts:\d|node_modules|\n\s+at /);
    expect(typeof error.code).toBe('string');
  });

  test('wrong types in every field of every dialect are 400s', async () => {
    const bodies: [string, Record<string, unknown>][] = [
      ['/v1/chat/completions', { ...ASK }],
      ['/v1/completions', { prompt: 'x' }],
      ['/v1/responses', { input: 'x' }],
      ['/v1/messages', { ...ASK, model: CARD.id, max_tokens: 3 }],
      ['/api/chat', { ...ASK, model: CARD.id }],
      ['/api/generate', { model: CARD.id, prompt: 'x' }],
    ];
    const fields = [
      'messages',
      'prompt',
      'input',
      'max_tokens',
      'stream',
      'temperature',
      'tools',
      'stop',
      'options',
      'system',
      'format',
    ];
    for (const [path, body] of bodies)
      for (const field of fields)
        for (const wrong of [{ a: { b: 1 } }, [[1]], 1e308, true, 'x'.repeat(10)]) {
          const { status } = await post(server, path, { ...body, [field]: wrong, max_output_tokens: 2 });
          expect(
            status === 200 || (status >= 400 && status < 500),
            `${path} ${field} ${JSON.stringify(wrong)}: ${status}`,
          ).toBe(true);
        }
  }, 60_000);

  test('bytes that are no UTF-8, bodies that are too large, methods that are none', async () => {
    const head = (length: number) =>
      `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${length}\r\n\r\n`;
    expect(await raw(server, Buffer.concat([Buffer.from(head(3)), Buffer.from([0x7b, 0xff, 0x7d])]))).toContain(
      'UTF-8',
    );
    expect((await post(server, '/v1/chat/completions', `"${'x'.repeat(2 << 20)}"`)).status).toBe(413);
    expect((await fetch(`${server.url}/v1/chat/completions`)).status).toBe(405);
    expect(await raw(server, 'NONSENSE / HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1\.1 400/);
    expect(await raw(server, `GET / HTTP/1.1\r\nHost: localhost\r\nx: ${'y'.repeat(64 << 10)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431/,
    );
    expect(
      await raw(
        server,
        `POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{}`,
      ),
    ).toContain('100 Continue');
  });

  test('a name that is not ours is refused: DNS rebinding', async () => {
    const ask = (host: string) => raw(server, `GET /v1/models HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    expect(await ask('evil.example')).toMatch(/^HTTP\/1\.1 403/);
    expect(await ask('localhost:1')).toMatch(/^HTTP\/1\.1 200/);
    expect(await ask('192.168.1.7:11435')).toMatch(/^HTTP\/1\.1 200/);
    expect(await ask('[::1]:11435')).toMatch(/^HTTP\/1\.1 200/);
  });

  test('names that are not encoded well are names nobody has', async () => {
    for (const path of ['/v1/models/%', '/v1/models/%25', '/models/a/%ff', '/v1/models/%E0%A4%A']) {
      const response = await fetch(`${server.url}${path}`);
      expect([path, response.status]).toEqual([path, 404]);
    }
  });

  test('HEAD ends with its head', async () => {
    const before = server.logs.length;
    expect((await fetch(`${server.url}/v1/models`, { method: 'HEAD' })).status).toBe(200);
    expect(server.logs.slice(before).join('')).toContain('"method":"HEAD"');
  });

  test('a page of another site cannot make a browser run requests', async () => {
    const ask = (origin: string) =>
      raw(
        server,
        `POST /api/generate HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nSec-Fetch-Site: cross-site\r\nOrigin: ${origin}\r\nContent-Length: 2\r\n\r\n{}`,
      );
    expect(await ask('https://elsewhere.example')).toMatch(/^HTTP\/1.1 403/);
    expect(await ask('http://localhost:3000')).toMatch(/^HTTP\/1.1 400/);
  });

  test('CORS: localhost by default, also on errors and streams', async () => {
    const origin = (value: string) => ({ origin: value });
    const preflight = await fetch(`${server.url}/v1/chat/completions`, {
      method: 'OPTIONS',
      headers: {
        ...origin('http://localhost:3000'),
        'access-control-request-headers': 'authorization, x-stainless-os',
      },
    });
    expect(preflight.status).toBe(204);
    expect(preflight.headers.get('access-control-allow-origin')).toBe('http://localhost:3000');
    expect(preflight.headers.get('access-control-allow-headers')).toContain('x-stainless-os');
    const far = await post(server, '/v1/chat/completions', ASK, origin('https://evil.example'));
    expect(far.headers.get('access-control-allow-origin')).toBeNull();
    const wrong = await post(server, '/v1/chat/completions', {}, origin('http://127.0.0.1:5'));
    expect([wrong.status, wrong.headers.get('access-control-allow-origin')]).toEqual([400, 'http://127.0.0.1:5']);
  });

  test('a client that goes away ends its request, in the prompt and in the answer', async () => {
    const slow = await serveAnswer('y'.repeat(500), {}, () => sleep(20));
    const stop = new AbortController();
    const asked = post(
      slow,
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 'x'.repeat(1500) }] },
      {},
      stop.signal,
    );
    await expect.poll(() => slow.models.peek('')!.stats().running).toBe(1);
    stop.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(() => slow.models.peek('')!.stats().running, { timeout: 1000 }).toBe(0);
    const reply = await post(slow, '/v1/chat/completions', { ...ASK, stream: true });
    const reader = reply.body!.getReader();
    await reader.read();
    await reader.cancel();
    await expect.poll(() => slow.models.peek('')!.stats().running, { timeout: 1000 }).toBe(0);
    await slow.close();
  });

  test('a queue that is full says when to come again', async () => {
    const slow = await serveAnswer('y'.repeat(50), { maxQueue: 1 }, () => sleep(20));
    const all = Array.from({ length: 40 }, () =>
      post(slow, '/v1/chat/completions', ASK).then(({ status, headers }) => [status, headers.get('retry-after')]),
    );
    const statuses = await Promise.all(all);
    expect(statuses.filter(([status]) => status === 200).length).toBeGreaterThan(0);
    expect(statuses).toContainEqual([429, '2']);
    await slow.close();
  });

  test('models answer while a model loads; the others wait or are told', async () => {
    let loaded: () => void = () => {};
    const loading = new Promise<void>((resolve) => {
      loaded = resolve;
    });
    const ready = await serveAnswer('x');
    const late = await serve(
      CARD,
      async () => {
        await loading;
        return ready.models.peek('')!;
      },
      { waitForModel: false },
    );
    expect(((await (await fetch(`${late.url}/v1/models`)).json()) as { data: object[] }).data[0]).toMatchObject({
      status: { value: 'unloaded' },
    });
    const told = await post(late, '/v1/chat/completions', ASK);
    expect([told.status, told.headers.get('retry-after')]).toEqual([503, '5']);
    expect((await fetch(`${late.url}/health`)).status).toBe(503);
    expect((await fetch(`${late.url}/livez`)).status).toBe(200);
    loaded();
    await expect.poll(async () => (await fetch(`${late.url}/health`)).status).toBe(200);
    expect((await post(late, '/v1/chat/completions', ASK)).status).toBe(200);
    await late.close();
    await ready.close();
  });

  test('the end: answers that run come to theirs, new ones are refused', async () => {
    const slow = await serveAnswer('y'.repeat(40), {}, () => sleep(10));
    const running = post(slow, '/v1/chat/completions', ASK).then((reply) => reply.json());
    await expect.poll(() => slow.models.peek('')!.stats().running).toBe(1);
    const closed = slow.close();
    expect(await running).toMatchObject({ choices: [{ finish_reason: 'stop' }] });
    await closed;
    await expect(post(slow, '/v1/chat/completions', ASK)).rejects.toThrow();
  });

  test('metrics count, logs hold no prompts', async () => {
    await post(server, '/v1/chat/completions', { messages: [{ role: 'user', content: 'very secret words' }] });
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toMatch(/tandem_completion_tokens_total\{model="org\/scripted:1"\} [1-9]/);
    expect(metrics).toMatch(/tandem_num_requests_waiting\{model="org\/scripted:1"\} 0/);
    expect(metrics).toMatch(/tandem_kv_cache_usage_ratio\{model="org\/scripted:1"\} [01]/);
    expect(server.logs.join('')).not.toContain('secret');
    expect(server.logs.join('')).toContain('"completionTokens"');
  });
});
