/** Ollama's own client against the server. */
import { Ollama } from 'ollama';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { keepAliveMs } from '../../src/server/dialects/ollama/request.ts';
import { serveAnswer, serveJug, type TestServer } from './fixture.ts';

describe('Ollama', () => {
  let server: TestServer;
  let calls: TestServer;
  let ollama: Ollama;
  beforeAll(async () => {
    server = await serveJug();
    await server.models.warm('');
    calls = await serveAnswer(
      'Hm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    );
    ollama = new Ollama({ host: server.url });
  }, 60_000);
  afterAll(async () => {
    await server?.close();
    await calls?.close();
  });

  test('list, show, ps, version', async () => {
    const { models } = await ollama.list();
    expect(models[0]).toMatchObject({
      name: 'jug-Q8_0:latest',
      details: { family: 'deepseek-v3', quantization_level: 'Q8_0' },
    });
    const shown = await ollama.show({ model: 'jug-Q8_0:latest' });
    expect(shown.capabilities).toEqual(expect.arrayContaining(['completion', 'thinking']));
    expect(shown.model_info).toMatchObject({
      'general.architecture': 'deepseek-v3',
      'deepseek-v3.context_length': 1024,
    });
    expect((await ollama.ps()).models).toHaveLength(1);
    expect((await ollama.version()).version).toMatch(/^\d+\.\d+\.\d+$/);
  });

  test('chat, whole and in lines', async () => {
    const request = {
      model: 'jug-Q8_0',
      messages: [{ role: 'user', content: 'What is 3 + 4?' }],
      options: { temperature: 0 },
    };
    const whole = await ollama.chat(request);
    expect(whole.message.content).toContain('7');
    expect(whole).toMatchObject({ done: true, done_reason: 'stop', prompt_eval_count: 13 });
    let [text, thinking] = ['', ''];
    let last: { done: boolean; eval_count?: number } | undefined;
    for await (const part of await ollama.chat({ ...request, stream: true })) {
      text += part.message.content;
      thinking += part.message.thinking ?? '';
      last = part;
    }
    expect(text).toBe(whole.message.content);
    expect(thinking).toBe(whole.message.thinking);
    expect(last).toMatchObject({ done: true, eval_count: whole.eval_count });
  });

  test('generate, raw, of a form, and only to load', async () => {
    const whole = await ollama.generate({ model: 'jug-Q8_0', prompt: 'What is 9 - 7?', options: { temperature: 0 } });
    expect(whole.response).toContain('2');
    const raw = await ollama.generate({
      model: 'jug-Q8_0',
      prompt: 'a',
      raw: true,
      options: { num_predict: 3, temperature: 0 },
    });
    expect(raw).toMatchObject({ done: true, eval_count: 3, done_reason: 'length' });
    const json = await ollama.generate({
      model: 'jug-Q8_0',
      prompt: 'What is 3 + 4?',
      format: { type: 'object', properties: { n: { type: 'integer' } }, required: ['n'], additionalProperties: false },
      options: { num_predict: 300 },
    });
    expect(typeof JSON.parse(json.response ?? '').n).toBe('number');
    expect((await ollama.generate({ model: 'jug-Q8_0', prompt: '' })).done_reason).toBe('load');
  });

  test('arguments of calls are objects', async () => {
    const client = new Ollama({ host: calls.url });
    const request = { model: 'org/scripted:1', messages: [{ role: 'user', content: 'x' }] };
    const { message } = await client.chat(request);
    expect(message.tool_calls).toEqual([{ function: { name: 'get_weather', arguments: { city: 'Rome' } } }]);
    const streamed: unknown[] = [];
    for await (const part of await client.chat({ ...request, stream: true }))
      streamed.push(...(part.message.tool_calls ?? []));
    expect(streamed).toEqual(message.tool_calls);
  });

  test('thinking on and off, results of tools in the history, pictures refused', async () => {
    const client = new Ollama({ host: calls.url });
    const engine = vi.spyOn(calls.models.peek('')!, 'chat');
    const ask = (more: object) =>
      client.chat({ model: 'org/scripted:1', messages: [{ role: 'user', content: 'x' }], ...more });
    for (const [think, expected] of [
      [false, { thinking: false }],
      [true, { thinking: true }],
      ['high', { thinking: true, templateVariables: { reasoning_effort: 'high' } }],
    ] as const) {
      const { message } = await ask({ think });
      // This model thinks all the same; where it was told not to, that is its answer.
      expect((think === false ? message.content : message.thinking)?.startsWith('Hm.')).toBe(true);
      expect(engine.mock.lastCall?.[1]).toMatchObject(expected);
    }
    await ask({
      messages: [
        { role: 'user', content: 'x' },
        {
          role: 'assistant',
          content: '',
          tool_calls: [{ function: { name: 'get_weather', arguments: { city: 'Cork' } } }],
        },
        { role: 'tool', content: 'rain', tool_name: 'get_weather' },
      ],
      tools: [{ type: 'function', function: { name: 'get_weather' } }],
    });
    expect(engine.mock.lastCall?.[0].slice(1)).toEqual([
      { role: 'assistant', content: '', toolCalls: [{ name: 'get_weather', arguments: '{"city":"Cork"}' }] },
      { role: 'tool', content: 'rain', name: 'get_weather' },
    ]);
    expect(engine.mock.lastCall?.[1]?.tools).toEqual([{ name: 'get_weather' }]);
    await expect(ask({ messages: [{ role: 'user', content: 'x', images: ['AAAA'] }] })).rejects.toThrow(
      'read text only',
    );
    vi.restoreAllMocks();
  });

  test('options: a context of its own is not followed but noted; -1 and -2 mean the end', async () => {
    const before = calls.logs.length;
    const client = new Ollama({ host: calls.url });
    const request = { model: 'org/scripted:1', messages: [{ role: 'user', content: 'x' }] };
    for (const num_predict of [-1, -2])
      expect((await client.chat({ ...request, options: { num_ctx: 4096, num_predict } })).done_reason).toBe('stop');
    expect(calls.logs.slice(before).join('')).toContain('num_ctx 4096 is not followed');
    expect((await client.chat({ ...request, options: { num_predict: 3 } })).done_reason).toBe('length');
    expect((await client.chat({ ...request, options: { stop: ['Hm'] } })).message.thinking).toBeUndefined();
  });

  test('pull succeeds where the model is here', async () => {
    expect((await ollama.pull({ model: 'jug-Q8_0' })).status).toBe('success');
    const statuses: string[] = [];
    for await (const { status } of await ollama.pull({ model: 'jug-Q8_0', stream: true })) statuses.push(status);
    expect(statuses).toEqual(['success']);
  });

  test('an error in the middle of a stream is thrown by the client', async () => {
    let passes = 0;
    const frail = await serveAnswer('y'.repeat(100), {}, async () => {
      if (++passes > 20) throw new Error('inside');
    });
    const stream = await new Ollama({ host: frail.url }).generate({
      model: 'org/scripted:1',
      prompt: 'x',
      stream: true,
    });
    const read = async () => {
      for await (const _ of stream);
    };
    await expect(read()).rejects.toThrow('see the log of the server');
    await frail.close();
  });

  test('errors are text', async () => {
    await expect(ollama.chat({ model: 'nope', messages: [{ role: 'user', content: 'x' }] })).rejects.toThrow(
      /has jug-Q8_0; a request asked for "nope"/,
    );
    await expect(ollama.pull({ model: 'llama3' })).rejects.toThrow(/does not download models/);
    await expect(ollama.embed({ model: 'jug-Q8_0', input: 'x' })).rejects.toThrow(/does not compute embeddings/);
    await expect(ollama.delete({ model: 'jug-Q8_0' })).rejects.toThrow(/does not delete models/);
    await expect(ollama.show({ model: 'nope' })).rejects.toThrow(/asked for "nope"/);
    await expect(ollama.generate({ model: 'jug-Q8_0', prompt: 'a', suffix: 'b' })).rejects.toThrow(/fill a gap/);
  });

  test('abort', async () => {
    const stream = await ollama.chat({ model: 'jug-Q8_0', messages: [{ role: 'user', content: 'x' }], stream: true });
    await expect(
      (async () => {
        for await (const _ of stream) stream.abort();
      })(),
    ).rejects.toThrow();
    await expect.poll(() => server.models.peek('')!.stats().running).toBe(0);
  });

  test('keep_alive 0 unloads, the next request loads', async () => {
    const { done_reason } = await ollama.generate({ model: 'jug-Q8_0', prompt: '', keep_alive: 0 });
    expect(done_reason).toBe('unload');
    expect((await ollama.ps()).models).toHaveLength(0);
    expect((await ollama.list()).models).toHaveLength(1);
    const { response } = await ollama.generate({
      model: 'jug-Q8_0',
      prompt: 'What is 3 + 4?',
      options: { temperature: 0 },
    });
    expect(response).toContain('7');
    const last = await ollama.generate({
      model: 'jug-Q8_0',
      prompt: 'What is 3 + 4?',
      keep_alive: '0s',
      options: { num_predict: 2 },
    });
    expect(last.eval_count).toBe(2);
    await expect.poll(() => server.models.list()[0].state).toBe('unloaded');
  }, 60_000);

  test.each([
    [0, 0],
    [30, 30_000],
    [-1, -1000],
    ['5m', 300_000],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['-1m', -60_000],
    ['300', 300_000],
    [null, undefined],
  ])('keep_alive %j', (given, ms) => {
    expect(keepAliveMs(given)).toBe(ms);
  });

  test.each(['soon', '5 m', '', '1h?', 'm5', '5m-'])('keep_alive %j is no duration', (given) => {
    expect(() => keepAliveMs(given)).toThrow('keep_alive is a duration');
  });
});
