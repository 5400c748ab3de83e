/** Ollama's own client against the server. */
import { Ollama } from 'ollama';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

  test('errors are text', async () => {
    await expect(ollama.chat({ model: 'nope', messages: [{ role: 'user', content: 'x' }] })).rejects.toThrow(
      /has jug-Q8_0; a request asked for "nope"/,
    );
    await expect(ollama.pull({ model: 'llama3' })).rejects.toThrow(/does not download models/);
  });

  test('abort', async () => {
    const stream = await ollama.chat({ model: 'jug-Q8_0', messages: [{ role: 'user', content: 'x' }], stream: true });
    setTimeout(() => stream.abort(), 20);
    await expect(
      (async () => {
        for await (const _ of stream);
      })(),
    ).rejects.toThrow();
    await expect.poll(() => server.models.peek('')!.stats().running, { timeout: 5000 }).toBe(0);
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
  }, 60_000);
});
