/** What hostile or broken clients send: a 4xx with one clear message, never a stack trace, a path of this machine or a hang. */
import { connect } from 'node:net';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CARD, serveAnswer, type TestServer } from './fixture.ts';
import { json, post, raw } from './raw.ts';

const ASK = { messages: [{ role: 'user', content: 'x' }] };

let server: TestServer;
beforeAll(async () => {
  server = await serveAnswer('Hello</think>\n\nworld', { bodyBytes: 64 << 20 });
});
afterAll(() => server?.close());

/** The text of a refusal in whatever dialect. */
function messageOf(body: { error?: string | { message?: string } }): string {
  return (typeof body.error === 'string' ? body.error : body.error?.message) ?? '';
}

function expectClear(message: string): void {
  expect(message).toMatch(/^\[\w+\] [^\n]+; [^\n]+$/);
  expect(message).not.toMatch(/\.[jt]s:\d|node_modules|\bat [\w.]+ \(/);
  expect(message.length).toBeLessThan(600);
}

describe('bodies', () => {
  test.each<[string, string | (() => string)]>([
    ['no JSON', '{'],
    ['no object', '[]'],
    ['nothing', ''],
    ['10 MB of arrays', () => '['.repeat(10 << 20)],
    ['10 MB of nested fields', () => `{"messages":${'[{"a":'.repeat(1_700_000)}1`],
    [
      '10 MB of closed nesting in an unknown field',
      () => `{"messages":[],"x":${'['.repeat(5 << 20)}${']'.repeat(5 << 20)}}`,
    ],
    ['nesting in a schema', () => JSON.stringify({ ...ASK, json_schema: nested(200) })],
    ['a million tools', () => JSON.stringify({ ...ASK, tools: new Array(1_000_000).fill({}) })],
    [
      'a million tools with names',
      () => JSON.stringify({ ...ASK, tools: new Array(1_000_000).fill({ type: 'function', function: { name: 'f' } }) }),
    ],
    ['a million messages', () => JSON.stringify({ messages: new Array(1_000_000).fill({ role: 'user', content: 5 }) })],
    ['a million biases', () => `{"messages":[],"logit_bias":{${'"1":"x",'.repeat(1_000_000)}"2":1}}`],
    ['a million stop strings', () => JSON.stringify({ ...ASK, stop: new Array(1_000_000).fill('x') })],
    ['NUL in a name', JSON.stringify({ ...ASK, model: 'a\0b' })],
    ['a role that is none', JSON.stringify({ messages: [{ role: 'root', content: 'x' }] })],
    ['an empty conversation', JSON.stringify({ messages: [] })],
    ['numbers as text', JSON.stringify({ ...ASK, temperature: '1' })],
    ['numbers out of range', JSON.stringify({ ...ASK, max_tokens: -5 })],
    ['an answer of no tokens', JSON.stringify({ ...ASK, max_tokens: 0 })],
    ['a stop of the wrong kind', JSON.stringify({ ...ASK, stop: { a: 1 } })],
    ['a bias for no token', JSON.stringify({ ...ASK, logit_bias: { '999999': 1 } })],
    ['a prototype', '{"__proto__":{"messages":[]},"constructor":1}'],
    ['a schema that is none', JSON.stringify({ ...ASK, json_schema: { type: 'nonsense' } })],
    ['a grammar that is none', JSON.stringify({ ...ASK, grammar: 'root ::= (' })],
    ['two forms', JSON.stringify({ ...ASK, grammar: 'root ::= "a"', json_schema: {} })],
    ['a form without its text', JSON.stringify({ ...ASK, response_format: { type: 'regex' } })],
    ['a demand without tools', JSON.stringify({ ...ASK, tool_choice: 'required' })],
    [
      'a demand of a tool that is not there',
      JSON.stringify({
        ...ASK,
        tools: [{ type: 'function', function: { name: 'f' } }],
        tool_choice: { type: 'function', function: { name: 'g' } },
      }),
    ],
  ])(
    '%s: refused, with one clear message, at once',
    async (_, body) => {
      const reply = await post(server, '/v1/chat/completions', typeof body === 'string' ? body : body());
      expect([400, 404, 413]).toContain(reply.status);
      expect(reply.headers.get('x-should-retry')).toBe('false');
      const { error } = await json(reply);
      expectClear(error.message);
      expect(typeof error.code).toBe('string');
    },
    20_000,
  );

  test('say which field is wrong, inside fields of several kinds too', async () => {
    const told = async (path: string, body: object) => messageOf(await json(post(server, path, body)));
    const chat = '/v1/chat/completions';
    expect(await told(chat, { ...ASK, stop: {} })).toContain('stop: Invalid input: expected string or array');
    expect(await told(chat, { messages: [{ role: 'user', content: [{ type: 'text', text: 5 }] }] })).toContain(
      'messages[0].content[0].text: Invalid input: expected string',
    );
    expect(await told(chat, { ...ASK, stop: new Array(65).fill('x') })).toContain('<=64 items');
    expect(await told(chat, { ...ASK, max_tokens: 0 })).toContain('max_tokens: an answer has at least one token');
    expect(await told('/v1/completions', { prompt: 'x', best_of: 3 })).toContain(
      'best_of: Invalid input: a request asks for one answer',
    );
    expect(await told('/api/chat', { ...ASK, model: CARD.id, keep_alive: 'soon' })).toContain('keep_alive: "soon"');
  });

  test('bytes that are no UTF-8; halves of surrogate pairs are only odd', async () => {
    const head =
      'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 3\r\n\r\n';
    const answer = await raw(server, Buffer.concat([Buffer.from(head), Buffer.from([0x7b, 0xff, 0x7d])]));
    expect(answer).toMatch(/^HTTP\/1\.1 400/);
    expect(answer).toContain('UTF-8');
    const half = '{"messages":[{"role":"user","content":"\\ud800 and \\u0000"}]}';
    expect((await post(server, '/v1/chat/completions', half)).status).toBe(200);
  });

  test('packed ones are refused by name', async () => {
    const reply = await post(server, '/v1/chat/completions', ASK, { headers: { 'content-encoding': 'gzip' } });
    expect(reply.status).toBe(400);
    expect((await json(reply)).error.message).toContain('Content-Encoding: gzip');
  });

  test('a client that leaves before its body is whole is no fault of the server', async () => {
    const head =
      'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: left\r\nContent-Length: 99\r\n\r\n{';
    await raw(server, head, 200);
    const told = () => server.logs.filter((line) => line.includes('"left"'));
    await expect.poll(() => told().length).toBe(1);
    expect(JSON.parse(told()[0])).toMatchObject({ level: 30, status: 499, error: 'ABORTED' });
  });

  test('larger than allowed: refused before they are read, also without a length', async () => {
    const small = await serveAnswer('x', { bodyBytes: 1000 });
    try {
      expect((await post(small, '/v1/chat/completions', `"${'x'.repeat(2000)}"`)).status).toBe(413);
      const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n';
      expect(await raw(small, `${head}Content-Length: 99999999999\r\nConnection: close\r\n\r\n{`)).toMatch(
        /^HTTP\/1\.1 413/,
      );
      const endless = `${'400\r\n'}${'x'.repeat(1024)}\r\n`;
      const chunked = await raw(small, `${head}Transfer-Encoding: chunked\r\n\r\n${endless.repeat(3)}`, 1500);
      expect(chunked).toMatch(/^HTTP\/1\.1 413/);
    } finally {
      await small.close();
    }
  });
});

function nested(depth: number): object {
  let schema: object = { type: 'string' };
  for (let i = 0; i < depth / 2; i++) schema = { type: 'object', properties: { a: schema }, required: ['a'] };
  return { ...schema, pattern: 5 };
}

describe('fields', () => {
  interface Schema {
    readonly type?: string | readonly string[];
    readonly enum?: readonly unknown[];
    readonly const?: unknown;
    readonly anyOf?: readonly Schema[];
    readonly items?: Schema;
    readonly properties?: Record<string, Schema>;
    readonly required?: readonly string[];
    readonly minimum?: number;
  }

  const kindOf = (value: unknown) =>
    value === null ? 'null' : Array.isArray(value) ? 'array' : typeof value === 'object' ? 'object' : typeof value;

  /** JSON kinds a schema takes; undefined: any. */
  function kinds(schema: Schema): Set<string> | undefined {
    if (schema.anyOf) {
      const all = schema.anyOf.map(kinds);
      return all.some((one) => one === undefined) ? undefined : new Set(all.flatMap((one) => [...one!]));
    }
    if (schema.const !== undefined) return new Set([kindOf(schema.const)]);
    if (schema.type === undefined) return undefined;
    return new Set([schema.type].flat().map((type) => (type === 'integer' ? 'number' : type)));
  }

  /** The smallest value a schema takes. */
  function sample(schema: Schema): unknown {
    if (schema.enum) return schema.enum[0];
    if (schema.anyOf) return sample(schema.anyOf[0]);
    switch ([schema.type].flat()[0]) {
      case 'string':
        return 'x';
      case 'integer':
      case 'number':
        return Math.max(1, schema.minimum ?? 1);
      case 'boolean':
        return false;
      case 'array':
        return schema.items ? [sample(schema.items)] : [];
      default:
        return Object.fromEntries((schema.required ?? []).map((name) => [name, sample(schema.properties![name])]));
    }
  }

  type Wrap = (value: unknown) => unknown;

  /** Every field below a schema, with what builds a body around a value of it. */
  function fields(schema: Schema, wrap: Wrap, name = ''): { name: string; schema: Schema; wrap: Wrap }[] {
    return [schema, ...(schema.anyOf ?? [])].flatMap((kind) => [
      ...Object.entries(kind.properties ?? {}).flatMap(([field, below]) => {
        const around: Wrap = (value) => wrap({ ...(sample({ ...kind, type: 'object' }) as object), [field]: value });
        return [
          { name: `${name}.${field}`, schema: below, wrap: around },
          ...fields(below, around, `${name}.${field}`),
        ];
      }),
      ...(kind.items ? fields(kind.items, (value) => wrap([value]), `${name}[]`) : []),
    ]);
  }

  /** Without a socket: there are many. */
  const ask = async (path: string, body: unknown) =>
    server.app.request(path, { method: 'POST', headers: { host: 'localhost' }, body: JSON.stringify(body) });

  test('wrong types in every field of every route, as /openapi.json tells them', async () => {
    const { paths } = await json(fetch(`${server.url}/openapi.json`));
    let tried = 0;
    for (const [path, { post: operation }] of Object.entries<{ post?: object }>(paths)) {
      const schema = (
        operation as { requestBody?: { content: { 'application/json': { schema: Schema } } } } | undefined
      )?.requestBody?.content['application/json'].schema;
      if (schema === undefined) continue;
      for (const field of fields(schema, (body) => body)) {
        const allowed = kinds(field.schema);
        if (allowed === undefined) continue;
        const wrong = fc.jsonValue({ maxDepth: 2 }).filter((value) => !allowed.has(kindOf(value)));
        await fc.assert(
          fc.asyncProperty(wrong, async (value) => {
            const reply = await ask(path, field.wrap(value));
            expect(reply.status, `${path} ${field.name} ${JSON.stringify(value)}`).toBe(400);
            const body = await json(reply);
            expectClear(messageOf(body));
            tried++;
          }),
          { numRuns: 3 },
        );
      }
    }
    expect(tried).toBeGreaterThan(500);
  }, 120_000);

  test('any JSON at all', async () => {
    const paths = [
      '/v1/chat/completions',
      '/v1/completions',
      '/v1/responses',
      '/v1/messages',
      '/api/chat',
      '/tokenize',
    ];
    await fc.assert(
      fc.asyncProperty(fc.constantFrom(...paths), fc.jsonValue(), async (path, value) => {
        const { status } = await ask(path, value);
        expect(status).toBeLessThan(500);
      }),
      { numRuns: 150 },
    );
  }, 30_000);
});

describe('names', () => {
  const names = [
    '../../etc/passwd',
    '/etc/passwd',
    '..\\..\\x',
    'file:///etc/passwd',
    'http://169.254.169.254/',
    'a\0b',
  ];

  test.each(names)('%j is no model in any dialect, and opens nothing', async (model) => {
    const bodies: [string, object][] = [
      ['/v1/chat/completions', { ...ASK, model }],
      ['/v1/completions', { prompt: 'x', model }],
      ['/v1/responses', { input: 'x', model }],
      ['/v1/messages', { ...ASK, model, max_tokens: 3 }],
      ['/v1/messages/count_tokens', { ...ASK, model }],
      ['/api/chat', { ...ASK, model }],
      ['/api/generate', { prompt: 'x', model }],
      ['/api/show', { model }],
      ['/tokenize', { content: 'x', model }],
    ];
    for (const [path, body] of bodies) {
      const reply = await post(server, path, body);
      expect([path, reply.status]).toEqual([path, 404]);
      expectClear(messageOf(await json(reply)));
    }
    expect((await fetch(`${server.url}/v1/models/${encodeURIComponent(model)}`)).status).toBe(404);
  });

  test('a path that climbs is a path nobody has', async () => {
    for (const path of [
      '/../../etc/passwd',
      '/docs/..%2f..%2fetc%2fpasswd',
      '/v1/models/../../../etc/passwd',
      '//etc/passwd',
    ]) {
      const answer = await raw(server, `GET ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
      expect(answer).toMatch(/^HTTP\/1\.1 40[04]/);
      expect(answer).not.toContain('root:');
    }
  });
});

describe('sockets', () => {
  test('heads that are none, or huge', async () => {
    expect(await raw(server, 'NONSENSE / HTTP/1.1\r\n\r\n')).toMatch(/^HTTP\/1\.1 400/);
    expect(await raw(server, `GET / HTTP/1.1\r\nHost: localhost\r\nx: ${'y'.repeat(64 << 10)}\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 431/,
    );
    expect(await raw(server, `GET /${'y'.repeat(64 << 10)} HTTP/1.1\r\nHost: localhost\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 4\d\d/,
    );
    const many = Array.from({ length: 5000 }, (_, i) => `x-${i}: y\r\n`).join('');
    expect(await raw(server, `GET /health HTTP/1.1\r\nHost: localhost\r\n${many}\r\n`)).toMatch(/^HTTP\/1\.1 4\d\d/);
  });

  test('two lengths, or a length and chunks, are not guessed at', async () => {
    const head = 'POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n';
    expect(await raw(server, `${head}Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}`)).toMatch(/^HTTP\/1\.1 400/);
    expect(await raw(server, `${head}Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`)).toMatch(
      /^HTTP\/1\.1 400/,
    );
  });

  test('a head or a body that comes drop by drop is cut off; others are answered meanwhile', async () => {
    const strict = await serveAnswer('x', { headTimeoutMs: 1000, requestTimeoutMs: 1500 });
    try {
      const drip = (start: string) =>
        new Promise<string>((resolve) => {
          const socket = connect(strict.port, '127.0.0.1');
          let text = '';
          socket.write(start);
          const drops = setInterval(() => socket.write('x'), 50);
          socket.on('data', (bytes) => {
            text += bytes;
          });
          socket.on('error', () => {});
          socket.on('close', () => {
            clearInterval(drops);
            resolve(text);
          });
        });
      const slow = [
        ...Array.from({ length: 20 }, () => drip('GET / HTTP/1.1\r\nHost: localhost\r\nx: ')),
        drip('POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{'),
      ];
      expect((await post(strict, '/v1/chat/completions', ASK)).status).toBe(200);
      for (const answer of await Promise.all(slow)) expect(answer).toMatch(/^(HTTP\/1\.1 408|$)/);
      expect((await fetch(`${strict.url}/health`)).status).toBe(200);
    } finally {
      await strict.close();
    }
  }, 20_000);

  test('a name that is not ours is refused: DNS rebinding', async () => {
    const ask = (host: string, path = '/v1/models') =>
      raw(server, `GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);
    for (const host of ['evil.example', 'localhost.evil.example', '127.0.0.1.evil.example', 'evil.example:11435', ''])
      expect(await ask(host)).toMatch(/^HTTP\/1\.1 40[03]/);
    expect(await ask('evil.example', '/')).toMatch(/^HTTP\/1\.1 403/);
    expect(await ask('evil.example', '/v1/models')).toMatch(/"permission_error".*"access_denied"/);
    for (const host of ['localhost:1', '192.168.1.7:11435', '[::1]:11435', 'LOCALHOST'])
      expect(await ask(host)).toMatch(/^HTTP\/1\.1 200/);
  });
});
