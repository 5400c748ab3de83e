/** A running server as the model of `tandem run` and `tandem chat`. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { connect, findServer, RemoteAnswerer } from '../../src/commands/remote.ts';
import type { Generation } from '../../src/engine/generation.ts';
import { CARD, serveAnswer, serveJug, type TestServer } from './fixture.ts';

const QUESTION = [{ role: 'user' as const, content: 'What is 3 + 4?' }];

describe('a server as a model', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await serveJug();
    await server.models.warm('');
  }, 60_000);
  afterAll(() => server?.close());

  test('answers as an engine in this process does, events and result', async () => {
    const remote = new RemoteAnswerer(await connect(server.url));
    const engine = server.models.peek('')!;
    const told = async (generation: Generation) => {
      const pieces: Record<string, string> = { reasoning: '', text: '' };
      for await (const event of generation)
        if (event.type === 'text' || event.type === 'reasoning') pieces[event.type] += event.text;
      const { text, reasoning, finishReason, usage, seed, temperature } = await generation;
      const { promptTokens, completionTokens, reasoningTokens } = usage;
      return {
        pieces,
        text,
        reasoning,
        finishReason,
        promptTokens,
        completionTokens,
        reasoningTokens,
        seed,
        temperature,
      };
    };
    for (const options of [{ temperature: 0 }, { temperature: 1.5, seed: 11, maxTokens: 20, topK: 50 }]) {
      const local = await told(engine.chat(QUESTION, options));
      const far = await told(remote.chat(QUESTION, options));
      expect({ ...far, seed: options.seed }).toEqual({ ...local, seed: options.seed });
      if (options.seed !== undefined) expect(far.seed).toBe(options.seed);
      expect((await remote.generate('What', { ...options, maxTokens: 9 })).text).toBe(
        (await engine.generate('What', { ...options, maxTokens: 9 })).text,
      );
    }
    const { seed } = await remote.chat(QUESTION, { temperature: 1, maxTokens: 2 });
    expect(seed).toBeGreaterThan(0); // the server's choice comes back, so that it can be typed again
  });

  test('an abort is an abort here and there', async () => {
    const remote = new RemoteAnswerer(await connect(server.url));
    const stop = new AbortController();
    const generation = remote.chat(QUESTION, { temperature: 1.2, seed: 3, signal: stop.signal });
    let text = '';
    const read = async () => {
      for await (const event of generation) {
        if (event.type === 'reasoning') text += event.text;
        if (text !== '') stop.abort();
      }
    };
    await expect(read()).rejects.toMatchObject({ code: 'ABORTED' });
    expect(generation.partial).toMatchObject({ finishReason: 'abort', reasoning: text });
    await expect.poll(() => server.models.peek('')!.stats().running).toBe(0);
  });

  test('addresses as people write them; what is wrong is said with the address', async () => {
    for (const url of [server.url, `${server.url}/`, `${server.url}/v1/`, server.url.replace('http://', '')])
      expect(await connect(url)).toMatchObject({ url: server.url, model: 'jug-Q8_0' });
    await expect(connect('ftp://x')).rejects.toThrow('takes the address of a server; ftp://x');
    await expect(connect('http://127.0.0.1:9')).rejects.toThrow(
      /http:\/\/127\.0\.0\.1:9: .*start it with tandem serve/,
    );
    await expect(connect(server.url.replace('http:', 'https:'))).rejects.toThrow('it speaks no TLS');
    await expect(connect(`${server.url}/nothing`)).rejects.toMatchObject({ code: 'MODEL_UNKNOWN' });
  });

  test('a model by its name there, or by the file that is here too', async () => {
    const { digest } = server.models.list()[0];
    const file = (value?: string) => ({ model: 'some/file.gguf', digest: async () => value });
    expect((await connect(server.url, { model: 'alias/of:it' })).model).toBe('alias/of:it');
    expect((await connect(server.url, file(digest))).model).toBe('jug-Q8_0');
    for (const other of ['0'.repeat(64), undefined])
      await expect(connect(server.url, file(other))).rejects.toThrow(/has jug-Q8_0, alias\/of:it; --model some\/file/);
    expect(await findServer(server.port, digest)).toMatchObject({ model: 'jug-Q8_0' });
    expect(await findServer(server.port, '0'.repeat(64))).toBeUndefined();
    expect(await findServer(9, digest)).toBeUndefined();
  });
});

test('a key: given, wrong, missing', async () => {
  const locked = await serveAnswer('Hm.</think>yes', { apiKeys: ['k'] });
  const { model } = await connect(locked.url, { key: 'k' });
  expect((await new RemoteAnswerer({ url: locked.url, model, key: 'k' }).chat(QUESTION, {})).text).toBe('yes');
  for (const key of [undefined, 'wrong'])
    await expect(connect(locked.url, { key })).rejects.toThrow('give its key with --api-key or in TANDEM_API_KEY');
  expect(await findServer(locked.port, CARD.digest)).toBe('locked');
  expect(await findServer(locked.port, CARD.digest, 'k')).toMatchObject({ model: CARD.id, key: 'k' });
  await locked.close();
});

test('a server that ends in the middle of its answer', async () => {
  const slow = await serveAnswer(`Hm.</think>${'word '.repeat(200)}`, { drainMs: 0 }, () => sleep(5));
  const generation = new RemoteAnswerer(await connect(slow.url)).chat(QUESTION, {});
  let text = '';
  const read = async () => {
    for await (const event of generation) if (event.type === 'text') text += event.text;
  };
  const reading = read();
  reading.catch(() => {});
  await expect.poll(() => text).toContain('word word');
  await slow.close();
  await expect(reading).rejects.toThrow(/\[cli\] the server/);
  expect(generation.partial?.text).toBe(text);
});

test.each([
  ['closes', (end: (bytes?: string) => void) => end()],
  ['says nothing more', (end: (bytes?: string) => void) => end(': ping\n\n')],
])('a stream that %s before its finish reason is no answer', async (_, finish) => {
  const liar = createServer((request, reply) => {
    if (request.url === '/v1/models') return reply.end(JSON.stringify({ data: [{ id: 'm' }] }));
    reply.writeHead(200, { 'content-type': 'text/event-stream' });
    reply.write(`data: ${JSON.stringify({ choices: [{ index: 0, delta: { content: 'half' } }] })}\n\n`);
    setTimeout(() => finish((bytes) => reply.end(bytes)), 20);
    return reply;
  });
  await new Promise<void>((resolve) => {
    liar.listen(0, '127.0.0.1', resolve);
  });
  const remote = new RemoteAnswerer(await connect(`http://127.0.0.1:${(liar.address() as AddressInfo).port}`));
  const generation = remote.chat(QUESTION, {});
  await expect(generation).rejects.toThrow(/brings its answer to an end; it closed the connection/);
  expect(generation.partial?.text).toBe('half');
  liar.close();
});
