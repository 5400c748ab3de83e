/** What no client library shows: headers, heartbeats, errors of all kinds, hosts, CORS, keys, load, the end. */
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { messagesBody } from '../../src/server/dialects/anthropic/schema.ts';
import { chatBody } from '../../src/server/dialects/openai/chat-schema.ts';
import { CARD, serve, serveAnswer, type TestServer } from './fixture.ts';
import { gate, json, post, raw, readUntil } from './raw.ts';

const ASK = { messages: [{ role: 'user', content: 'x' }] };

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
    const { passed, open } = gate();
    const slow = await serveAnswer('</think>x', { heartbeatMs: 20 }, () => passed);
    const told = await Promise.all(
      (
        [
          ['/v1/chat/completions', { ...ASK, stream: true }, /(: ping\n\n){4}/],
          ['/v1/completions', { prompt: 'x', stream: true }, /(: ping\n\n){4}/],
          ['/v1/responses', { input: 'x', stream: true }, /(: ping\n\n){4}/],
          ['/v1/messages', { ...ASK, model: CARD.id, max_tokens: 50, stream: true }, /(event: ping\n[^\n]*\n\n){4}/],
          ['/api/chat', { ...ASK, model: CARD.id }, /(.*"content":"".*"done":false.*\n){4}/],
          ['/api/generate', { prompt: 'x', model: CARD.id }, /(.*"response":"".*"done":false.*\n){4}/],
        ] as const
      ).map(async ([path, body, signs]) => readUntil(await post(slow, path, body), signs)),
    );
    open();
    for (const { rest } of told) expect(await rest()).toContain('x');
    await slow.close();
  });

  test('a stream shows signs of life while its model loads, and white space does for an answer that is not streamed', async () => {
    const ready = await serveAnswer('Hm</think>x');
    const { passed, open } = gate();
    const load = () => passed.then(() => ready.models.peek('')!);
    const late = await serve(CARD, load, { heartbeatMs: 20, heartbeatJson: true });
    const stream = await readUntil(
      await post(late, '/v1/chat/completions', { ...ASK, stream: true }),
      /^(: ping\n\n){4,}$/,
    );
    expect(late.models.list()[0].state).toBe('loading');
    const whole = await post(late, '/v1/chat/completions', ASK);
    expect(whole.headers.get('content-type')).toMatch(/^application\/json/);
    const spaces = await readUntil(whole, /^ {4,}$/);
    open();
    expect(await stream.rest()).toMatch(/^(: ping\n\n){4,}data: .*"content":"x"/s);
    expect(JSON.parse(await spaces.rest()).choices[0].message.content).toBe('x');
    const wrong = await (await post(late, '/v1/chat/completions', { ...ASK, model: 'none' })).text();
    expect(JSON.parse(wrong).error.code).toBe('model_not_found');
    await late.close();
    await ready.close();
  });

  test('every route is in /openapi.json, every field of the validators too', async () => {
    const { paths } = await json(fetch(`${server.url}/openapi.json`));
    const documented = Object.entries<Record<string, { description?: string }>>(paths).flatMap(([path, operations]) =>
      Object.entries(operations).flatMap(([method, { description = '' }]) =>
        [path, ...description.replace(/^Also at |\.$/g, '').split(', ')].map((name) => `${method} ${name}`),
      ),
    );
    const served = server.app.routes
      .filter(({ path, method }) => !path.includes('*') && method !== 'ALL' && path !== '/favicon.ico')
      .map(({ method, path }) => `${method.toLowerCase()} ${path.replace(/:(\w+)/g, '{$1}')}`);
    expect([...new Set(served)].filter((route) => !documented.includes(route))).toEqual([]);
    const fields = (path: string) =>
      Object.keys(paths[path].post.requestBody.content['application/json'].schema.properties);
    expect(fields('/v1/chat/completions')).toEqual(expect.arrayContaining(Object.keys(chatBody.shape)));
    expect(fields('/v1/messages')).toEqual(expect.arrayContaining(Object.keys(messagesBody.shape)));
    const docs = await (await fetch(`${server.url}/docs`)).text();
    expect(docs).toContain('messages[].content');
    expect(docs).not.toMatch(/<script|https?:\/\//);
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

  test('a slash at the end of a route changes nothing, keys and forms of errors included', async () => {
    const locked = await serveAnswer('x', { apiKeys: ['k'] });
    const { paths } = await json(fetch(`${server.url}/openapi.json/`));
    for (const [path, operations] of Object.entries<object>(paths)) {
      if (path.includes('{') || path === '/experts/stream') continue;
      for (const method of Object.keys(operations)) {
        const ask = (url: string, slash: string) => fetch(`${url}${path}${slash}`, { method: method.toUpperCase() });
        for (const { url } of [server, locked]) {
          const [plain, slashed] = await Promise.all(['', '/'].map((slash) => ask(url, slash)));
          expect([method, path, slashed.status]).toEqual([method, path, plain.status]);
          expect(Object.keys((await slashed.json().catch(() => ({}))) as object)).toEqual(
            Object.keys((await plain.json().catch(() => ({}))) as object),
          );
        }
      }
    }
    expect((await fetch(`${server.url}/v1/models/alias%2Fof:it/`)).status).toBe(200);
    expect((await post(server, '/v1/nothing/', {})).status).toBe(404);
    await locked.close();
  });

  test('HTTP/1.0: answered, with and without a Host; what names no path of a host is refused in words', async () => {
    const ask = (head: string, body = '') => raw(server, `${head}\r\n\r\n${body}`);
    const body = JSON.stringify(ASK);
    for (const host of ['', '\r\nHost: localhost']) {
      expect(await ask(`GET /health HTTP/1.0${host}`)).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*"ok"/);
      const whole = await ask(`POST /v1/chat/completions HTTP/1.0${host}\r\nContent-Length: ${body.length}`, body);
      expect(whole).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*"content":"world"/);
      const stream = JSON.stringify({ ...ASK, stream: true });
      const streamed = await ask(
        `POST /v1/chat/completions HTTP/1.0${host}\r\nContent-Length: ${stream.length}`,
        stream,
      );
      expect(streamed).toMatch(/^HTTP\/1\.1 200 OK[\s\S]*data: \[DONE\]\n\n$/);
      expect(streamed.toLowerCase()).not.toContain('transfer-encoding');
      expect(streamed.toLowerCase()).toContain('connection: close');
    }
    expect(await ask('GET /health HTTP/1.0\r\nHost: evil.example')).toMatch(/^HTTP\/1\.1 403/);
    for (const head of [
      'GET /health HTTP/1.1',
      'GET /health HTTP/1.1\r\nHost: a b',
      'OPTIONS * HTTP/1.1\r\nHost: localhost',
    ])
      expect(await ask(`${head}\r\nConnection: close`)).toMatch(
        /^HTTP\/1\.1 400[\s\S]*"\[server\] a request names a path of a host; [^"]+","type":"invalid_request_error"/,
      );
  });

  test('errors: 404, 405, 400, 401 in the form of the dialect, as JSON, before and behind the prefix', async () => {
    const locked = await serveAnswer('x', { apiKeys: ['k'] });
    const openai = { error: { message: expect.any(String), type: expect.any(String), code: expect.any(String) } };
    const anthropic = { type: 'error', error: { type: expect.any(String), message: expect.any(String) } };
    const ollama = { error: expect.any(String) };
    const cases: [string, object][] = [
      ['/v1/chat/completions', openai],
      ['/chat/completions', openai],
      ['/v1/completions', openai],
      ['/v1/responses', openai],
      ['/v1/embeddings', openai],
      ['/tokenize', openai],
      ['/v1/messages', anthropic],
      ['/messages/count_tokens', anthropic],
      ['/api/chat', ollama],
      ['/api/show', ollama],
    ];
    try {
      for (const [path, form] of cases) {
        const wrong = await fetch(`${server.url}${path}`, { method: 'DELETE' });
        expect([path, wrong.status, wrong.headers.get('allow')]).toEqual([path, 405, 'POST']);
        expect(wrong.headers.get('content-type')).toMatch(/^application\/json/);
        expect(await json(wrong)).toMatchObject(form);
        expect((await fetch(`${server.url}${path}`, { method: 'HEAD' })).status).toBe(405);
        const broken = await post(server, path, '{');
        expect([path, broken.status]).toEqual([path, 400]);
        expect(await json(broken)).toMatchObject(form);
        const stranger = await post(locked, path, '{}');
        expect([path, stranger.status]).toEqual([path, 401]);
        expect(await json(stranger)).toMatchObject(form);
      }
      for (const path of ['/v1/nothing', '/nothing', '/v1/messages/nothing', '/api/nothing']) {
        const nowhere = await post(server, path, {});
        expect([path, nowhere.status, nowhere.headers.get('allow')]).toEqual([path, 404, null]);
        expect(await json(nowhere)).toHaveProperty('error');
      }
      expect((await post(server, '/v1/models', {})).headers.get('allow')).toBe('GET, HEAD');
      // Open to everybody, also where a key is asked.
      for (const path of ['/health', '/livez', '/', '/api/version'])
        expect([path, (await fetch(`${locked.url}${path}`)).status]).toEqual([path, 200]);
      expect((await fetch(`${locked.url}/v1/chat/completions`, { method: 'OPTIONS' })).status).toBe(204);
      for (const header of [{ authorization: 'Bearer k' }, { 'x-api-key': 'k' }])
        expect((await post(locked, '/v1/chat/completions', ASK, { headers: header as never })).status).toBe(200);
    } finally {
      await locked.close();
    }
  });

  test('bodies: chunked, announced by Expect, 50 MB, several on one connection', async () => {
    const body = JSON.stringify(ASK);
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n';
    const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;
    const one = `${head}Transfer-Encoding: chunked\r\n\r\n${chunk(body.slice(0, 9))}${chunk(body.slice(9))}0\r\n\r\n`;
    const last = `${head}Expect: 100-continue\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const answers = await raw(server, one + one + last);
    expect(answers.match(/HTTP\/1\.1 200 OK/g)).toHaveLength(3);
    expect(answers).toContain('HTTP/1.1 100 Continue');
    const large = await serveAnswer('x');
    const image = { type: 'image_url', image_url: { url: `data:image/png;base64,${'A'.repeat(50 << 20)}` } };
    const refused = await post(large, '/v1/chat/completions', { messages: [{ role: 'user', content: [image] }] });
    expect(refused.status).toBe(400);
    expect((await json(refused)).error.message).toContain('read text only');
    await large.close();
  });

  test('what is wrong inside the server is told without its inside', async () => {
    const broken = await serve(CARD, () => Promise.reject(new Error('no such file: /secret/model.gguf')));
    for (const path of ['/v1/chat/completions', '/api/chat', '/v1/messages']) {
      const reply = await post(broken, path, { ...ASK, model: CARD.id, max_tokens: 3 });
      expect([path, reply.status, reply.headers.get('x-should-retry')]).toEqual([path, 500, 'false']);
      expect(await reply.text()).not.toContain('secret');
    }
    expect(await (await fetch(`${broken.url}/v1/models`)).text()).toContain('loading failed');
    for (const path of ['/v1/models', '/health', '/props', '/api/tags', '/metrics'])
      expect(await (await fetch(`${broken.url}${path}`)).text()).not.toContain('secret');
    expect(broken.logs.join('')).toContain('/secret/model.gguf');
    await broken.close();
  });

  test('a pass that breaks in the middle of a stream is told in the stream, in the words of its dialect', async () => {
    let passes = 0;
    const frail = await serveAnswer(`${'y'.repeat(200)}`, {}, async () => {
      if (++passes % 20 === 0) throw new Error('bits fell over in /secret/place');
    });
    const request = { ...ASK, model: CARD.id, max_tokens: 100, stream: true };
    const told = async (path: string, body: object) => {
      const reply = await post(frail, path, body);
      expect(reply.status).toBe(200);
      const text = await reply.text();
      expect(text).not.toContain('secret');
      return text.trimEnd().split('\n');
    };
    for (const [path, body] of [
      ['/v1/chat/completions', request],
      ['/v1/completions', { prompt: 'x', max_tokens: 100, stream: true }],
    ] as const) {
      const last = (await told(path, body)).at(-1)!;
      expect(JSON.parse(last.slice(6))).toMatchObject({ error: { message: expect.any(String), type: 'api_error' } });
    }
    const [name, data] = (await told('/v1/messages', request)).slice(-2);
    expect(name).toBe('event: error');
    expect(JSON.parse(data.slice(6))).toMatchObject({ type: 'error', error: { type: 'api_error' } });
    const response = (await told('/v1/responses', { input: 'x', stream: true })).slice(-2);
    expect(response[0]).toBe('event: error');
    expect(JSON.parse((await told('/api/chat', request)).at(-1)!)).toEqual({ error: expect.any(String) });
    expect(frail.logs.join('')).toContain('/secret/place');
    await frail.close();
  });

  test("llama.cpp's routes: tokens there and back, props, slots of what runs", async () => {
    const text = 'Grüße, 世界';
    const { tokens, count } = await json(post(server, '/tokenize', { content: text }));
    expect(count).toBe(new TextEncoder().encode(text).length);
    expect(await json(post(server, '/detokenize', { tokens }))).toMatchObject({ content: text });
    const pieces = await json(post(server, '/v1/tokenize', { text: 'ab', add_special: true, with_pieces: true }));
    expect(pieces.tokens.slice(-2)).toEqual([
      { id: 97, piece: 'a' },
      { id: 98, piece: 'b' },
    ]);
    expect(await json(fetch(`${server.url}/props`))).toMatchObject({
      model_alias: CARD.id,
      total_slots: 16,
      default_generation_settings: { n_ctx: 2048 },
      chat_template: expect.stringContaining('think'),
    });
    const slow = await serveAnswer('y'.repeat(300), {}, () => sleep(10));
    expect(await json(fetch(`${slow.url}/slots`))).toEqual([]);
    const running = post(slow, '/v1/chat/completions', ASK);
    await expect
      .poll(async () => (await json(fetch(`${slow.url}/slots`)))[0])
      .toMatchObject({ is_processing: true, n_prompt_tokens: 14, n_decoded: expect.any(Number) });
    await running;
    await slow.close();
  });

  test('which experts fire is told live where a backend counts them', async () => {
    expect((await fetch(`${server.url}/experts/stream`)).status).toBe(404);
    const counting = await serveAnswer('y'.repeat(40), {}, () => sleep(20));
    let visits = 0;
    vi.spyOn(counting.models.peek('')!, 'expertVisits').mockImplementation(() => ({
      layers: Int32Array.of(1, 3),
      experts: 4,
      counts: Uint32Array.of(0, visits, 0, visits++, visits, 0, 0, 0),
    }));
    const stop = new AbortController();
    const reply = await fetch(`${counting.url}/experts/stream`, { signal: stop.signal });
    let text = '';
    const decoder = new TextDecoder();
    for await (const bytes of reply.body as unknown as AsyncIterable<Uint8Array>) {
      text += decoder.decode(bytes);
      if (text.includes('data: ')) break;
    }
    const told = JSON.parse(/data: (.*)\n/.exec(text)![1]);
    expect(told).toEqual({ layers: [1, 3], experts: 4, fired: [[1, 3], [0]], times: [[1, 1], [1]], place: 'ram' });
    stop.abort();
    await counting.close();
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
    const ask = (origin: string, site = 'Sec-Fetch-Site: cross-site\r\n') =>
      raw(
        server,
        `POST /api/generate HTTP/1.1\r\nHost: 10.0.0.7:80\r\nConnection: close\r\n${site}Origin: ${origin}\r\nContent-Length: 2\r\n\r\n{}`,
      );
    expect(await ask('https://elsewhere.example')).toMatch(/^HTTP\/1.1 403/);
    expect(await ask('http://localhost:3000')).toMatch(/^HTTP\/1.1 400/);
    // On plain http outside localhost browsers do not say what a request is.
    expect(await ask('http://elsewhere.example', '')).toMatch(/^HTTP\/1.1 403/);
    expect(await ask('null', '')).toMatch(/^HTTP\/1.1 403/);
    expect(await ask('http://10.0.0.7:80', '')).toMatch(/^HTTP\/1.1 400/);
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
    const far = await post(server, '/v1/chat/completions', ASK, { headers: origin('https://evil.example') });
    expect(far.headers.get('access-control-allow-origin')).toBeNull();
    const stream = await post(
      server,
      '/v1/chat/completions',
      { ...ASK, stream: true },
      { headers: origin('http://[::1]:9') },
    );
    expect(stream.headers.get('access-control-allow-origin')).toBe('http://[::1]:9');
    await stream.text();
    const wrong = await post(server, '/v1/chat/completions', {}, { headers: origin('http://127.0.0.1:5') });
    expect([wrong.status, wrong.headers.get('access-control-allow-origin')]).toEqual([400, 'http://127.0.0.1:5']);
  });

  test('a client that goes away ends its request, in the prompt and in the answer', async () => {
    const slow = await serveAnswer('y'.repeat(500), {}, () => sleep(20));
    const stop = new AbortController();
    const asked = post(
      slow,
      '/v1/chat/completions',
      { messages: [{ role: 'user', content: 'x'.repeat(1500) }] },
      { signal: stop.signal },
    );
    await expect.poll(() => slow.models.peek('')!.stats().running).toBe(1);
    stop.abort();
    await expect(asked).rejects.toThrow();
    await expect.poll(() => slow.models.peek('')!.stats().running).toBe(0);
    const reply = await post(slow, '/v1/chat/completions', { ...ASK, stream: true });
    const reader = reply.body!.getReader();
    await reader.read();
    await reader.cancel();
    await expect.poll(() => slow.models.peek('')!.stats().running).toBe(0);
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
    const slow = await serveAnswer('y'.repeat(40), { drainMs: 60_000 }, () => sleep(10));
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
