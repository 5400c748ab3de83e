/** What clients were seen to break on, where no other suite shows it: shapes to the field, limits, letters, idle timers. */
import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';
import { LengthFinishReasonError } from 'openai/error';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CARD, serveAnswer, type TestServer } from './fixture.ts';
import { chunks, gate, json, post, readUntil } from './raw.ts';

const ASK = { messages: [{ role: 'user', content: 'x' }] };
const MODEL = CARD.id;
const TOOLS = ['get_time', 'get_weather'].map((name) => ({
  type: 'function' as const,
  function: { name, parameters: { type: 'object', properties: {} } },
}));
/** A call without arguments, and one with. */
const CALLS =
  'Hm.\n</think>\n\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜><｜tool▁call▁end｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Köln"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>';
const TEXT = 'Ja.\n</think>\n\nGrüße, 世界 👩‍👩‍👧 é <thin> </ ｜';

let writes: TestServer;
let calls: TestServer;
beforeAll(async () => {
  writes = await serveAnswer(TEXT);
  calls = await serveAnswer(CALLS);
});
afterAll(async () => {
  await writes?.close();
  await calls?.close();
});

describe('OpenAI', () => {
  test('models: what Codex and dashboards read beside the list', async () => {
    const { object, data, models } = await json(fetch(`${writes.url}/v1/models`));
    expect(object).toBe('list');
    expect(models).toEqual(data);
    for (const model of data) {
      expect(model).toMatchObject({ object: 'model', owned_by: 'tandem', status: { value: 'loaded' } });
      expect(Number.isInteger(model.created)).toBe(true);
      expect(model.name).toBeUndefined();
    }
  });

  test('chunks: one id, one time, one model, no field twice, usage only where it was asked for', async () => {
    const headers = { 'accept-encoding': 'gzip, br', 'x-request-id': 'mine-1' };
    const reply = await post(writes, '/v1/chat/completions', { ...ASK, stream: true }, { headers });
    expect(reply.headers.get('content-encoding')).toBeNull();
    expect(reply.headers.get('x-request-id')).toBe('mine-1');
    const plain = await chunks(reply);
    for (const name of ['id', 'created', 'model', 'object']) expect(new Set(plain.map((c) => c[name])).size).toBe(1);
    expect(plain[0]).toMatchObject({ object: 'chat.completion.chunk', model: MODEL, created: expect.any(Number) });
    const deltas = plain.map(({ choices: [{ delta }] }) => delta);
    expect(deltas.filter(({ role }) => role !== undefined)).toHaveLength(1);
    for (const delta of deltas) {
      expect(delta).not.toHaveProperty('reasoning');
      expect(delta.reasoning_content === undefined || delta.content === undefined).toBe(true);
    }
    expect(plain.some((chunk) => 'usage' in chunk)).toBe(false);
    expect(plain.at(-1).timings).toEqual(
      Object.fromEntries(
        ['cache_n', 'prompt_n', 'prompt_ms', 'prompt_per_second', 'predicted_n', 'predicted_ms']
          .concat(['predicted_per_second', 'queue_ms', 'temperature'])
          .map((name) => [name, expect.any(Number)]),
      ),
    );
    const asked = { ...ASK, stream: true, stream_options: { include_usage: true } };
    const [finish, usage] = (await chunks(post(writes, '/v1/chat/completions', asked))).slice(-2);
    expect([finish.choices[0].finish_reason, finish.usage, usage.choices]).toEqual(['stop', undefined, []]);
    expect(usage.usage).toEqual({
      prompt_tokens: expect.any(Number),
      completion_tokens: expect.any(Number),
      total_tokens: usage.usage.prompt_tokens + usage.usage.completion_tokens,
      prompt_tokens_details: { cached_tokens: expect.any(Number) },
      completion_tokens_details: { reasoning_tokens: expect.any(Number) },
    });
  });

  test('letters come whole, whatever tokens they were made of; half a marker at the end is text', async () => {
    const pieces = await chunks(post(writes, '/v1/chat/completions', { ...ASK, stream: true }));
    const texts = pieces.map(({ choices }) => choices[0].delta.content ?? '');
    expect(texts.join('')).toBe(TEXT.slice(TEXT.indexOf('Grüße')));
    for (const text of texts) expect(text).not.toMatch(/�|[\ud800-\udbff]$/);
    const stopped = await chunks(post(writes, '/v1/chat/completions', { ...ASK, stop: ['世界'], stream: true }));
    expect(stopped.map(({ choices }) => choices[0].delta.content ?? '').join('')).toBe('Grüße, ');
    for (const path of ['/v1/completions', '/api/generate']) {
      const body = { prompt: 'x', model: MODEL, max_tokens: 500, raw: true, stream: true };
      expect(await (await post(writes, path, body)).text()).not.toContain('�');
    }
  });

  test('parse: an answer that was cut is not parsed', async () => {
    const client = new OpenAI({ baseURL: `${writes.url}/v1`, apiKey: 'any', maxRetries: 0 });
    const request = {
      model: '',
      messages: [{ role: 'user' as const, content: 'x' }],
      max_tokens: 3,
      response_format: { type: 'json_schema' as const, json_schema: { name: 'x', strict: true, schema: {} } },
    };
    await expect(client.chat.completions.parse(request)).rejects.toBeInstanceOf(LengthFinishReasonError);
  });

  test('a call without arguments has {}; beside calls there is no text', async () => {
    const request = { ...ASK, tools: TOOLS };
    const [choice] = (await json(post(calls, '/v1/chat/completions', request))).choices;
    expect(choice.message).toMatchObject({ content: null, reasoning_content: 'Hm.' });
    expect(choice.message.tool_calls.map((call: { function: object }) => call.function)).toEqual([
      { name: 'get_time', arguments: '{}' },
      { name: 'get_weather', arguments: '{"city": "Köln"}' },
    ]);
    const joined = ['', ''];
    for (const { choices } of await chunks(post(calls, '/v1/chat/completions', { ...request, stream: true })))
      for (const call of choices[0].delta.tool_calls ?? []) joined[call.index] += call.function.arguments;
    expect(joined).toEqual(['{}', '{"city": "Köln"}']);
  });

  test('errors say which field', async () => {
    const told = async (path: string, body: object) => (await json(post(writes, path, body))).error;
    expect(await told('/v1/chat/completions', { ...ASK, temperature: 'hot' })).toEqual({
      message: expect.any(String),
      type: 'invalid_request_error',
      param: 'temperature',
      code: 'request_invalid',
    });
    expect(await told('/v1/nothing', {})).toMatchObject({ param: null, type: 'not_found_error' });
  });

  test('responses: the events of calls', async () => {
    const reply = await post(calls, '/v1/responses', {
      input: 'x',
      tools: [{ type: 'function', name: 'get_time', parameters: {} }, { type: 'custom' }, { type: 'mcp', x: 1 }],
      stream: true,
    });
    const events = (await reply.text()).split('\n\n').flatMap((event) => {
      const [, name, data] = /^event: (.*)\ndata: (.*)$/.exec(event) ?? [];
      if (data === undefined) return [];
      const value = JSON.parse(data);
      expect(value.type).toBe(name);
      return [value];
    });
    const types = events.map(({ type }) => type.replace('response.', ''));
    for (const type of ['created', 'in_progress', 'reasoning_text.delta', 'function_call_arguments.delta', 'completed'])
      expect(types).toContain(type);
    const items = events.filter(({ type }) => type === 'response.output_item.done').map(({ item }) => item);
    expect(items.map(({ type, name, arguments: json }) => [type, name, json])).toEqual([
      ['reasoning', undefined, undefined],
      ['function_call', 'get_time', '{}'],
      ['function_call', 'get_weather', '{"city": "Köln"}'],
    ]);
    const done = events.filter(({ type }) => type === 'response.function_call_arguments.done');
    expect(done.map((event) => event.arguments)).toEqual(['{}', '{"city": "Köln"}']);
    expect(events.at(-1).response).toMatchObject({
      status: 'completed',
      output: items,
      usage: { input_tokens: expect.any(Number), output_tokens: expect.any(Number) },
    });
  });
});

test('Anthropic: tokens of the prompt are known at the start of a message, a call without arguments has {}', async () => {
  const stream = new Anthropic({ baseURL: calls.url, apiKey: 'any', maxRetries: 0 }).messages.stream({
    model: MODEL,
    max_tokens: 500,
    messages: [{ role: 'user', content: 'x' }],
    thinking: { type: 'enabled', budget_tokens: 1024 },
    tools: [{ name: 'get_time', input_schema: { type: 'object' } }],
  });
  let begun = 0;
  stream.on('streamEvent', (event) => {
    if (event.type === 'message_start')
      begun = event.message.usage.input_tokens + (event.message.usage.cache_read_input_tokens ?? 0);
  });
  const { content, usage } = await stream.finalMessage();
  expect(content.slice(1)).toMatchObject([{ input: {} }, { input: { city: 'Köln' } }]);
  expect(begun).toBeGreaterThan(3);
  expect(usage.output_tokens).toBeGreaterThan(20);
});

describe('Ollama', () => {
  test('lists, what runs, one model: every field front ends read', async () => {
    const details = {
      format: 'gguf',
      family: 'fake',
      families: ['fake'],
      parameter_size: expect.any(String),
      quantization_level: 'F32',
      parent_model: '',
    };
    const shared = { name: `${MODEL}:latest`, model: `${MODEL}:latest`, size: 1, digest: CARD.digest, details };
    const { models } = await json(fetch(`${writes.url}/api/tags`));
    expect(models[0]).toEqual({ ...shared, modified_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) });
    const [running] = (await json(fetch(`${writes.url}/api/ps`))).models;
    expect(running).toMatchObject({ ...shared, size_vram: 0, expires_at: expect.stringMatching(/^\d{4}-.*Z$/) });
    expect(await json(post(writes, '/api/show', { model: MODEL }))).toMatchObject({
      details,
      capabilities: expect.arrayContaining(['completion', 'thinking']),
      model_info: { 'general.architecture': 'fake', 'fake.context_length': expect.any(Number) },
      template: expect.any(String),
      parameters: expect.any(String),
    });
  });

  test('lines: streamed by default, figures in the last one, no text where there is none', async () => {
    const reply = await post(calls, '/api/chat', { ...ASK, model: MODEL, tools: TOOLS });
    expect(reply.headers.get('content-type')).toMatch(/^application\/x-ndjson/);
    const lines = (await reply.text()).trim().split('\n').map((line) => JSON.parse(line)); // biome-ignore format: one line
    for (const line of lines) expect(line).toMatchObject({ model: MODEL, created_at: expect.any(String) });
    expect(lines.flatMap(({ message }) => message.tool_calls ?? [])).toEqual([
      { function: { name: 'get_time', arguments: {} } },
      { function: { name: 'get_weather', arguments: { city: 'Köln' } } },
    ]);
    expect(lines.slice(0, -1).every(({ done }) => done === false)).toBe(true);
    const figures = ['total_duration', 'load_duration', 'prompt_eval_count', 'prompt_eval_duration', 'eval_count', 'eval_duration']; // biome-ignore format: one line
    for (const figure of figures) expect(Number.isInteger(lines.at(-1)[figure])).toBe(true);
    expect(lines.at(-1)).toMatchObject({ done: true, done_reason: 'stop', message: { content: '' } });
  });
});

test('no client waits longer than its idle timer for a sign of life, in the queue and in the prompt', async () => {
  const { passed, open } = gate();
  const slow = await serveAnswer('</think>y', { heartbeatMs: 20 }, () => passed);
  // One runs for each sequence there is, the last one waits behind them.
  const all = await Promise.all(
    Array.from({ length: 17 }, () => post(slow, '/v1/chat/completions', { ...ASK, stream: true })),
  );
  const read = await Promise.all(all.map((reply) => readUntil(reply, /(: ping\n\n[\s\S]*){6}/)));
  expect(slow.models.peek('')!.stats().waiting).toBeGreaterThan(0);
  open();
  for (const { rest } of read) expect(await rest()).toContain('"content":"y"');
  await slow.close();
});
