/** OpenAI's own client against the server: chat, tools, schemas, completions, responses, models, errors, aborts. */
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { serveAnswer, serveJug, type TestServer } from './fixture.ts';

const client = (server: TestServer, options: object = {}) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0, ...options });

const CALL =
  'Let me look.\n</think>\n\nLooking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁call▁begin｜>get_time<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>';
const TOOLS = ['get_weather', 'get_time'].map((name) => ({
  type: 'function' as const,
  function: { name, parameters: { type: 'object', properties: {} } },
}));
const ASK = [{ role: 'user' as const, content: 'How is the weather in Rome?' }];

describe('with the model that ships', () => {
  let server: TestServer;
  let openai: OpenAI;
  beforeAll(async () => {
    server = await serveJug();
    await server.models.warm('');
    openai = client(server);
  }, 60_000);
  afterAll(() => server?.close());

  test('models', async () => {
    const [model] = (await openai.models.list()).data;
    expect(model).toMatchObject({ id: 'jug-Q8_0', object: 'model', owned_by: 'tandem' });
    expect((await openai.models.retrieve('alias/of:it')).id).toBe('alias/of:it');
    await expect(openai.models.retrieve('nope')).rejects.toMatchObject({ status: 404, code: 'model_not_found' });
  });

  test('an answer, whole', async () => {
    const answer = await openai.chat.completions.create({
      model: 'jug-Q8_0',
      messages: [{ role: 'user', content: 'What is 3 + 4?' }],
      temperature: 0,
    });
    expect(answer.choices[0].message.content).toContain('7');
    expect(answer.choices[0].finish_reason).toBe('stop');
    expect(answer.usage).toMatchObject({ prompt_tokens: 13 });
    expect(answer.usage!.total_tokens).toBe(answer.usage!.prompt_tokens + answer.usage!.completion_tokens);
    expect(answer._request_id).toMatch(/^req_/);
  });

  test('an answer in pieces says the same, with usage at its end', async () => {
    const request = {
      model: 'jug-Q8_0',
      messages: [{ role: 'user' as const, content: 'What is 9 - 7?' }],
      temperature: 0,
    };
    const whole = await openai.chat.completions.create(request);
    let [text, reasoning, finish] = ['', '', ''];
    let usage: OpenAI.CompletionUsage | null | undefined;
    const ids = new Set<string>();
    for await (const chunk of await openai.chat.completions.create({
      ...request,
      stream: true,
      stream_options: { include_usage: true },
    })) {
      ids.add(chunk.id);
      const [choice] = chunk.choices;
      text += choice?.delta.content ?? '';
      reasoning += (choice?.delta as { reasoning_content?: string })?.reasoning_content ?? '';
      finish = choice?.finish_reason ?? finish;
      usage = chunk.usage ?? usage;
    }
    expect(text).toBe(whole.choices[0].message.content);
    expect(reasoning).toBe((whole.choices[0].message as { reasoning_content?: string }).reasoning_content);
    expect(finish).toBe('stop');
    expect(ids.size).toBe(1);
    expect(usage).toMatchObject({ completion_tokens: whole.usage!.completion_tokens });
  });

  test('JSON of a schema cannot come out invalid', async () => {
    const schema = {
      type: 'object',
      properties: { answer: { type: 'integer' }, sure: { type: 'boolean' } },
      required: ['answer', 'sure'],
      additionalProperties: false,
    };
    const answer = await openai.chat.completions.create({
      model: 'jug-Q8_0',
      messages: [{ role: 'user', content: 'What is 3 + 4?' }],
      temperature: 1,
      seed: 5,
      max_tokens: 400,
      response_format: { type: 'json_schema', json_schema: { name: 'x', schema, strict: true } },
    });
    const value = JSON.parse(answer.choices[0].message.content!);
    expect(Object.keys(value)).toEqual(['answer', 'sure']);
    expect([typeof value.answer, typeof value.sure]).toEqual(['number', 'boolean']);
  });

  test('a tool that is demanded is called, with arguments of its schema', async () => {
    const answer = await openai.chat.completions.create({
      model: 'jug-Q8_0',
      messages: ASK,
      max_tokens: 400,
      tools: [
        {
          type: 'function',
          function: {
            name: 'get_weather',
            parameters: {
              type: 'object',
              properties: { city: { enum: ['Rome', 'Cork'] } },
              required: ['city'],
              additionalProperties: false,
            },
          },
        },
      ],
      tool_choice: 'required',
      parallel_tool_calls: false,
    });
    const [call] = answer.choices[0].message.tool_calls!;
    expect(answer.choices[0].finish_reason).toBe('tool_calls');
    expect(call).toMatchObject({ type: 'function', function: { name: 'get_weather' } });
    expect(['Rome', 'Cork']).toContain(
      JSON.parse((call as { function: { arguments: string } }).function.arguments).city,
    );
  });

  test('the same seed, the same text; log-probabilities of it', async () => {
    const request = {
      model: '',
      messages: ASK,
      temperature: 1.2,
      seed: 7,
      max_tokens: 20,
      logprobs: true,
      top_logprobs: 2,
    };
    const [a, b] = await Promise.all([1, 2].map(() => openai.chat.completions.create(request)));
    expect(a.choices[0].message).toEqual(b.choices[0].message);
    expect(a.choices[0].logprobs!.content![0]).toMatchObject({ top_logprobs: [{}, {}] });
    expect(a.choices[0].logprobs!.content).toHaveLength(a.usage!.completion_tokens);
  });

  test('text completions of text and of ids, echoed, in pieces', async () => {
    const prompt = '<｜User｜>What is 3 + 4?<｜Assistant｜>';
    const reply = await fetch(`${server.url}/tokenize`, {
      method: 'POST',
      body: JSON.stringify({ content: prompt, add_special: true }),
    });
    const { tokens } = (await reply.json()) as { tokens: number[] };
    const request = { model: 'jug-Q8_0', max_tokens: 24, temperature: 0 };
    const whole = await openai.completions.create({ ...request, prompt });
    expect(whole.choices[0].text.length).toBeGreaterThan(5);
    expect((await openai.completions.create({ ...request, prompt: tokens })).choices[0].text).toBe(
      whole.choices[0].text,
    );
    expect((await openai.completions.create({ ...request, prompt, echo: true })).choices[0].text).toBe(
      prompt + whole.choices[0].text,
    );
    let text = '';
    for await (const chunk of await openai.completions.create({ ...request, prompt, stream: true }))
      text += chunk.choices[0]?.text ?? '';
    expect(text).toBe(whole.choices[0].text);
  });

  test('what is wrong with a request is a 4xx that is not repeated', async () => {
    const retrying = client(server, { maxRetries: 2 });
    const before = server.logs.length;
    const long = 'word '.repeat(5000);
    await expect(
      retrying.chat.completions.create({ model: 'jug-Q8_0', messages: [{ role: 'user', content: long }] }),
    ).rejects.toMatchObject({
      status: 400,
      code: 'context_length_exceeded',
    });
    await expect(retrying.chat.completions.create({ model: 'jug-Q8_0', messages: ASK, n: 2 })).rejects.toMatchObject({
      status: 400,
    });
    await expect(retrying.chat.completions.create({ model: 'x', messages: ASK })).rejects.toMatchObject({
      status: 404,
    });
    await expect(retrying.embeddings.create({ model: 'x', input: 'a' })).rejects.toMatchObject({ status: 400 });
    await expect(
      retrying.chat.completions.create({
        model: 'jug-Q8_0',
        messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'data:x' } }] }],
      }),
    ).rejects.toMatchObject({ status: 400, message: expect.stringContaining('read text only') });
    expect(server.logs.slice(before).length).toBe(5);
  });

  test('responses, whole and in events', async () => {
    const request = { model: 'jug-Q8_0', input: 'What is 3 + 4?', temperature: 0 };
    const whole = await openai.responses.create(request);
    expect(whole.status).toBe('completed');
    expect(whole.output_text).toContain('7');
    expect(whole.usage).toMatchObject({ input_tokens: 13 });
    const types: string[] = [];
    const numbers: number[] = [];
    let text = '';
    for await (const event of await openai.responses.create({ ...request, stream: true })) {
      types.push(event.type);
      numbers.push(event.sequence_number);
      if (event.type === 'response.output_text.delta') text += event.delta;
      if (event.type === 'response.completed') expect(event.response.output_text ?? text).toBe(text);
    }
    expect(text).toBe(whole.output_text);
    expect(numbers).toEqual(numbers.map((_, i) => i));
    expect(types.slice(0, 2)).toEqual(['response.created', 'response.in_progress']);
    expect(types.at(-1)).toBe('response.completed');
    expect(types).toContain('response.reasoning_text.delta');
  });

  test('a break and an abort free the slot at once', async () => {
    const stream = await openai.chat.completions.create({ model: '', messages: ASK, stream: true, max_tokens: 900 });
    for await (const _ of stream) break;
    const controller = new AbortController();
    const asked = openai.chat.completions.create(
      { model: '', messages: ASK, max_tokens: 900, ignore_eos: true } as never,
      { signal: controller.signal },
    );
    setTimeout(() => controller.abort(), 30);
    await expect(asked).rejects.toThrow();
    await expect.poll(() => server.models.peek('')!.stats().running).toBe(0);
  });
});

describe('with a model that writes calls', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await serveAnswer(CALL);
  });
  afterAll(() => server?.close());

  test('calls, whole', async () => {
    const { choices } = await client(server).chat.completions.create({
      model: 'org/scripted:1',
      messages: ASK,
      tools: TOOLS,
    });
    expect(choices[0]).toMatchObject({
      finish_reason: 'tool_calls',
      message: {
        content: 'Looking.',
        reasoning_content: 'Let me look.',
        tool_calls: [
          { type: 'function', function: { name: 'get_weather', arguments: '{"city": "Rome"}' } },
          { type: 'function', function: { name: 'get_time', arguments: '{}' } },
        ],
      },
    });
  });

  test('calls in pieces: index in each, id and name once, arguments that join to JSON', async () => {
    const seen: { id?: string; name?: string; json: string }[] = [];
    let finish: string | null = null;
    const stream = await client(server).chat.completions.create({
      model: '',
      messages: ASK,
      tools: TOOLS,
      stream: true,
    });
    for await (const { choices } of stream) {
      for (const { index, id, function: call } of choices[0]?.delta.tool_calls ?? []) {
        if (id !== undefined) {
          expect(seen[index]).toBeUndefined();
          seen[index] = { id, name: call?.name, json: '' };
        } else expect(call?.name).toBeUndefined();
        seen[index].json += call?.arguments ?? '';
      }
      finish = choices[0]?.finish_reason ?? finish;
    }
    expect(seen.map(({ name, json }) => [name, JSON.parse(json)])).toEqual([
      ['get_weather', { city: 'Rome' }],
      ['get_time', {}],
    ]);
    expect(finish).toBe('tool_calls');
  });

  test('runTools: the client calls and comes back', async () => {
    const weather = await serveAnswer(CALL.replace(/<｜tool▁call▁begin｜>get_time.*?<｜tool▁call▁end｜>/, ''));
    const called: unknown[] = [];
    const engine = vi.spyOn(weather.models.peek('')!, 'chat');
    try {
      const runner = client(weather).chat.completions.runTools(
        {
          model: '',
          messages: ASK,
          tools: [
            {
              type: 'function' as const,
              function: {
                name: 'get_weather',
                description: 'the weather',
                parse: (json: string) => JSON.parse(json) as object,
                parameters: { type: 'object', properties: { city: { type: 'string' } } },
                function: async (input: object) => {
                  called.push(input);
                  return 'sunny';
                },
              },
            },
          ],
          stream: true,
        },
        { maxChatCompletions: 2 },
      );
      await runner.done();
      // This model asks again and again; the client comes back with every result until it has had enough.
      expect(called).toEqual([{ city: 'Rome' }, { city: 'Rome' }]);
      expect(engine.mock.lastCall?.[0].map(({ role, content }) => [role, content])).toEqual([
        ['user', ASK[0].content],
        ['assistant', 'Looking.'],
        ['tool', 'sunny'],
      ]);
    } finally {
      await weather.close();
    }
  });

  test('responses with calls', async () => {
    const { output } = await client(server).responses.create({
      model: '',
      input: [
        { role: 'user', content: 'a' },
        { type: 'function_call', call_id: 'c1', name: 'get_time', arguments: '{}' },
        { type: 'function_call_output', call_id: 'c1', output: 'noon' },
      ],
      tools: [{ type: 'function', name: 'get_weather', parameters: {}, strict: false }, { type: 'web_search' }],
    });
    expect(output.map(({ type }) => type)).toEqual(['reasoning', 'message', 'function_call', 'function_call']);
    expect(output[2]).toMatchObject({ name: 'get_weather', arguments: '{"city": "Rome"}' });
  });
});
