/** Fields of the OpenAI routes that clients send and what they do: roles, histories, forms, logprobs, progress, limits. */
import OpenAI, { APIError } from 'openai';
import { zodResponseFormat } from 'openai/helpers/zod';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { z } from 'zod';
import { CARD, serve, serveAnswer, serveJug, type TestServer } from './fixture.ts';
import { chunks, json, post } from './raw.ts';

const user = (content: string) => ({ role: 'user', content });
const QUESTION = user('What is 3 + 4?');

const client = (server: TestServer, options: object = {}) =>
  new OpenAI({ baseURL: `${server.url}/v1`, apiKey: 'any', maxRetries: 0, ...options });

describe('with the model that ships', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await serveJug();
    await server.models.warm('');
  }, 60_000);
  afterAll(() => server?.close());
  afterEach(() => {
    vi.restoreAllMocks();
  });

  const chat = (body: object) => json(post(server, '/v1/chat/completions', { temperature: 0, ...body }));
  const tokens = async (messages: object[], more: object = {}): Promise<number> => {
    const answer = await json(post(server, '/v1/chat/completions/input_tokens', { messages, ...more }));
    expect(answer.object).toBe('response.input_tokens');
    return answer.input_tokens;
  };

  test('tokens of a conversation are counted as they are computed', async () => {
    const { usage } = await chat({ messages: [QUESTION] });
    expect(await tokens([QUESTION])).toBe(usage.prompt_tokens);
    const openai = client(server);
    expect((await openai.responses.inputTokens.count({ input: QUESTION.content })).input_tokens).toBe(
      usage.prompt_tokens,
    );
  });

  test('roles of all times, in any order', async () => {
    const messages = [
      user('Hello'),
      { role: 'system', content: 'Be brief.' },
      {
        role: 'developer',
        content: [
          { type: 'text', text: 'Be ' },
          { type: 'text', text: 'kind.' },
        ],
      },
      user('Hello?'),
      { role: 'assistant', content: 'Yes' },
      { role: 'assistant', content: 'Yes.' },
      {
        role: 'assistant',
        content: null,
        tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '' } }],
      },
      { role: 'tool', tool_call_id: 'a', content: [{ type: 'text', text: '7' }] },
      { role: 'function', name: 'f', content: '8' },
      QUESTION,
    ];
    const reply = await post(server, '/v1/chat/completions', { messages, max_tokens: 3 });
    expect(reply.status).toBe(200);
    // Parts are their text, developers are the system, functions are tools.
    const plain = messages.map(({ role, content, ...rest }) => ({
      ...rest,
      role: role === 'developer' ? 'system' : role === 'function' ? 'tool' : role,
      content: Array.isArray(content) ? content.map(({ text }) => text).join('') : content,
    }));
    expect(await tokens(messages)).toBe(await tokens(plain));
  });

  test('thinking that comes back in a history, in whatever way, is the same thinking', async () => {
    const assistant = [
      { content: '7', reasoning_content: 'Add.' },
      { content: '7', reasoning: 'Add.' },
      { content: '<think>Add.</think>7' },
      { content: '<details type="reasoning" done="true">\n<summary>Thought</summary>\n> Add.\n</details>\n7' },
    ];
    const sizes = await Promise.all(
      assistant.map((message) => tokens([QUESTION, { role: 'assistant', ...message }, QUESTION])),
    );
    expect(new Set(sizes).size).toBe(1);
  });

  test('tools that are no functions are skipped; functions need no parameters', async () => {
    const name = { type: 'function', function: { name: 'f' } };
    const bare = await tokens([QUESTION], { tools: [name] });
    for (const parameters of [{}, null, { type: 'object' }, { type: 'object', properties: {} }])
      expect(await tokens([QUESTION], { tools: [{ ...name, function: { name: 'f', parameters } }] })).toBe(bare);
    const skipped = [{ type: 'web_search' }, { type: 'image_generation', size: '1' }, { type: 'namespace' }];
    expect(await tokens([QUESTION], { tools: [name, ...skipped] })).toBe(bare);
    expect(await tokens([QUESTION], { tools: skipped })).toBe(await tokens([QUESTION]));
    expect(await tokens([QUESTION], { tools: [name], tool_choice: 'none' })).toBe(await tokens([QUESTION]));
  });

  test('limits: both names, -1, and one in the middle of the thinking', async () => {
    for (const limit of [
      { max_tokens: 4 },
      { max_completion_tokens: 4 },
      { max_tokens: 900, max_completion_tokens: 4 },
    ]) {
      const { choices, usage } = await chat({ messages: [QUESTION], ...limit });
      expect(usage.completion_tokens).toBe(4);
      expect(choices[0]).toMatchObject({
        finish_reason: 'length',
        message: { content: '', reasoning_content: expect.any(String) },
      });
    }
    expect((await chat({ messages: [QUESTION], max_tokens: -1 })).choices[0].finish_reason).toBe('stop');
  });

  test('thinking: left in the text, turned off by effort, capped', async () => {
    const { message } = (await chat({ messages: [QUESTION], reasoning_format: 'none' })).choices[0];
    expect(message).not.toHaveProperty('reasoning_content');
    expect(message.content).toMatch(/^<think>\n[\s\S]+<\/think>[\s\S]*7/);
    const capped = await chat({ messages: [QUESTION], thinking_budget: 2 });
    expect(capped.usage.completion_tokens_details.reasoning_tokens).toBeLessThan(6);
    const none = await chat({ messages: [QUESTION], thinking_budget: 0 });
    expect(none.choices[0].message).not.toHaveProperty('reasoning_content');
    // This model goes on thinking all the same, and ends it: the answer shows no sign of that.
    expect(none.choices[0].message.content).toMatch(/^(?!.*<\/think>)[\s\S]*3 \+ 4/);
    const marked = await chat({ messages: [QUESTION], thinking_budget: 0, reasoning_format: 'none' });
    expect(marked.choices[0].message.content.match(/<\/think>/g)).toHaveLength(2);
    const pieces = await chunks(
      post(server, '/v1/chat/completions', { messages: [QUESTION], thinking_budget: 0, temperature: 0, stream: true }),
    );
    expect(pieces.map((chunk) => chunk.choices[0].delta.content ?? '').join('')).toBe(none.choices[0].message.content);
    const engine = vi.spyOn(server.models.peek('')!, 'chat');
    await chat({ messages: [QUESTION], reasoning_effort: 'none', max_tokens: 2 });
    expect(engine.mock.lastCall?.[1]).toMatchObject({
      thinking: false,
      templateVariables: { reasoning_effort: 'none' },
    });
    await chat({ messages: [QUESTION], chat_template_kwargs: { a: 1 }, max_tokens: 2 });
    expect(engine.mock.lastCall?.[1]).toMatchObject({ templateVariables: { a: 1 } });
  });

  test('every field of sampling reaches the engine; stop that is empty is none', async () => {
    const engine = vi.spyOn(server.models.peek('')!, 'chat');
    const fields = {
      temperature: 0.7,
      top_p: 0.9,
      top_k: 5,
      min_p: 0.01,
      presence_penalty: 0.1,
      frequency_penalty: 0.2,
      repeat_penalty: 1.1,
      seed: 4,
      logit_bias: { '5': -1 },
      stop: ['END', ''],
      ignore_eos: false,
      priority: 2,
      user: 'me',
      metadata: { a: 'b' },
      parallel_tool_calls: true,
      store: true,
      chat_id: 'x',
    };
    expect(
      (await post(server, '/v1/chat/completions', { messages: [QUESTION], max_tokens: 2, ...fields })).status,
    ).toBe(200);
    expect(engine.mock.lastCall?.[1]).toMatchObject({
      temperature: 0.7,
      topP: 0.9,
      topK: 5,
      minP: 0.01,
      presencePenalty: 0.1,
      frequencyPenalty: 0.2,
      repetitionPenalty: 1.1,
      seed: 4,
      logitBias: { '5': -1 },
      stop: ['END'],
      ignoreEos: false,
      priority: 2,
    });
    const nulls = Object.fromEntries(Object.keys(fields).map((name) => [name, null]));
    expect((await post(server, '/v1/chat/completions', { messages: [QUESTION], max_tokens: 2, ...nulls })).status).toBe(
      200,
    );
    expect((await post(server, '/v1/chat/completions', { messages: [QUESTION], max_tokens: 2, stop: '' })).status).toBe(
      200,
    );
  });

  test('a stop string ends the text before it', async () => {
    const { choices } = await chat({ messages: [QUESTION], stop: '=' });
    expect(choices[0].finish_reason).toBe('stop');
    expect(choices[0].message.content + choices[0].message.reasoning_content).not.toContain('=');
  });

  test.each<[string, object, RegExp]>([
    ['a regex', { response_format: { type: 'regex', pattern: '[ab]{3}' } }, /^[ab]{3}$/],
    ['a grammar', { response_format: { type: 'grammar', grammar: 'root ::= "yes" | "no"' } }, /^(yes|no)$/],
    ["a grammar in llama.cpp's field", { grammar: 'root ::= "yes" | "no"' }, /^(yes|no)$/],
    ["a schema in llama.cpp's field", { json_schema: { enum: ['p', 'q'] } }, /^"[pq]"$/],
    ['a schema of a JSON object', { response_format: { type: 'json_object', schema: { enum: [1, 2] } } }, /^[12]$/],
    ['text', { response_format: { type: 'text' } }, /7/],
  ])('answers in the form of %s', async (_, form, expected) => {
    const { choices } = await chat({ messages: [QUESTION], max_tokens: 200, ...form });
    expect(choices[0].message.content).toMatch(expected);
    const text = await json(post(server, '/v1/completions', { prompt: 'a', max_tokens: 30, ...form }));
    if (!JSON.stringify(form).includes('"text"')) expect(text.choices[0].text).toMatch(expected);
  });

  test('parse: a zod schema in, its value out', async () => {
    const answer = await client(server).chat.completions.parse({
      model: '',
      messages: [{ role: 'user', content: 'What is 3 + 4?' }],
      max_tokens: 300,
      response_format: zodResponseFormat(z.object({ sum: z.int(), even: z.boolean() }), 'sum'),
    });
    expect(answer.choices[0].message.parsed).toEqual({ sum: expect.any(Number), even: expect.any(Boolean) });
  });

  test('progress of the prompt in chunks that every client can read', async () => {
    const long = 'Some words to read. '.repeat(30);
    const pieces = await chunks(
      post(server, '/v1/chat/completions', {
        messages: [user(long)],
        max_tokens: 2,
        stream: true,
        return_progress: true,
      }),
    );
    const progress = pieces.filter((chunk) => chunk.prompt_progress);
    expect(progress.length).toBeGreaterThan(0);
    for (const chunk of progress) expect(chunk.choices).toEqual([]);
    const last = progress.at(-1).prompt_progress;
    expect(last.processed).toBe(last.total);
    const silent = await chunks(
      post(server, '/v1/chat/completions', { messages: [QUESTION], max_tokens: 2, stream: true }),
    );
    expect(silent.every((chunk) => chunk.prompt_progress === undefined)).toBe(true);
  });

  test('log-probabilities, whole and in chunks', async () => {
    const request = { messages: [QUESTION], temperature: 0, max_tokens: 6, logprobs: true, top_logprobs: 2 };
    const whole = (await chat(request)).choices[0].logprobs.content;
    const pieces = await chunks(post(server, '/v1/chat/completions', { ...request, stream: true }));
    const streamed = pieces.flatMap((chunk) => chunk.choices[0]?.logprobs?.content ?? []);
    expect(streamed).toEqual(whole);
    expect(streamed).toHaveLength(6);
    expect(streamed[0]).toEqual({
      token: expect.any(String),
      logprob: expect.any(Number),
      bytes: [...Buffer.from(streamed[0].token)],
      top_logprobs: [expect.objectContaining({ token: streamed[0].token }), expect.any(Object)],
    });
  });

  test('a letter of several tokens: their bytes make it', async () => {
    const format = { type: 'regex', pattern: '[😀-😎]{2}' };
    const { message, logprobs } = (
      await chat({ messages: [QUESTION], temperature: 0, max_tokens: 60, logprobs: true, response_format: format })
    ).choices[0];
    expect(message.content).toMatch(/^[😀-😎]{2}$/u);
    const bytes = logprobs.content.flatMap((entry: { bytes: number[] }) => entry.bytes);
    expect(Buffer.from(bytes).toString()).toContain(message.content);
  });

  test('titles and tags of front ends go behind', async () => {
    const engine = vi.spyOn(server.models.peek('')!, 'chat');
    for (const [content, priority] of [
      ['### Task:\nGenerate 1-3 broad tags', -1],
      ['Hello', undefined],
    ] as const) {
      await chat({ messages: [user(content)], max_tokens: 2 });
      expect(engine.mock.lastCall?.[1]?.priority).toBe(priority);
      await post(server, '/api/chat', {
        model: 'jug-Q8_0',
        messages: [user(content)],
        options: { num_predict: 2 },
        stream: false,
      });
      expect(engine.mock.lastCall?.[1]?.priority).toBe(priority);
    }
  });

  test('completions: echo with log-probabilities of the prompt, offsets, no tokens at all', async () => {
    const prompt = 'What is 3 + 4?';
    const request = { prompt, temperature: 0, max_tokens: 5, logprobs: 2, echo: true };
    const tokenize = vi.spyOn(server.models.peek('')!, 'tokenize');
    const whole = (await json(post(server, '/v1/completions', request))).choices[0];
    const columns = whole.logprobs;
    expect(tokenize).not.toHaveBeenCalled(); // long prompts would hold up everybody
    expect(whole.text.startsWith(prompt)).toBe(true);
    expect(columns.token_logprobs[0]).toBeNull();
    expect(columns.token_logprobs.slice(1).every((value: number) => value <= 0)).toBe(true);
    expect(columns.tokens.length).toBe(columns.text_offset.length);
    // Drawn greedily: the likeliest at its place.
    const drawn = columns.tokens.length - 1;
    expect(Object.keys(columns.top_logprobs[drawn])[0]).toBe(columns.tokens[drawn]);

    // What was drawn is judged the same as a prompt.
    const judged = (await json(post(server, '/v1/completions', { ...request, prompt: whole.text, max_tokens: 0 })))
      .choices[0];
    expect(judged).toMatchObject({ text: whole.text, finish_reason: 'length' });
    expect(judged.logprobs.tokens).toEqual(columns.tokens);
    judged.logprobs.token_logprobs.forEach((value: number | null, i: number) => {
      if (value !== null) expect(value).toBeCloseTo(columns.token_logprobs[i], 2);
    });

    const pieces = await chunks(post(server, '/v1/completions', { ...request, stream: true }));
    const streamed = pieces.flatMap((chunk) => chunk.choices[0]?.logprobs ?? []);
    expect(streamed.flatMap(({ text_offset }) => text_offset)).toEqual(columns.text_offset);
    expect(streamed.flatMap(({ tokens }) => tokens)).toEqual(columns.tokens);

    const none = await json(post(server, '/v1/completions', { prompt: [5, 6, 7], max_tokens: 0 }));
    expect(none).toMatchObject({
      choices: [{ text: '', logprobs: null }],
      usage: { prompt_tokens: 3, completion_tokens: 0 },
    });
    expect((await post(server, '/v1/completions', { prompt, max_tokens: 0, stream: true })).status).toBe(400);
    expect((await post(server, '/v1/completions', { prompt, suffix: 'x' })).status).toBe(400);
    expect((await post(server, '/v1/completions', { prompt: ['a', 'b'] })).status).toBe(400);
    expect(
      (await json(post(server, '/v1/completions', { prompt: ['a'], ignore_eos: true }))).usage.completion_tokens,
    ).toBe(16);
  });

  test('responses: probes, what is stored elsewhere, tools of others, the events as the client assembles them', async () => {
    const openai = client(server);
    const probe = await openai.responses.create({ model: '', input: [], max_output_tokens: 1 });
    expect(probe).toMatchObject({ status: 'incomplete', incomplete_details: { reason: 'max_output_tokens' } });
    await expect(
      openai.responses.create({ model: '', input: 'x', previous_response_id: 'resp_1' }),
    ).rejects.toMatchObject({ status: 400, message: expect.stringContaining('not stored') });
    await expect(openai.responses.create({ model: '', input: 'x', tool_choice: 'required' })).rejects.toMatchObject({
      status: 400,
    });
    const stream = openai.responses.stream({
      model: '',
      instructions: 'Be brief.',
      input: [
        { role: 'user', content: [{ type: 'input_text', text: 'What is 3 + 4?' }] },
        { type: 'reasoning', id: 'rs_1', summary: [{ type: 'summary_text', text: 'Hm.' }] },
        {
          role: 'assistant',
          content: [{ type: 'output_text', text: '7', annotations: [] }],
          type: 'message',
          id: 'm',
          status: 'completed',
        },
        { role: 'user', content: 'What is 9 - 7?' },
      ],
      tools: [{ type: 'web_search' }],
      store: true,
      include: ['reasoning.encrypted_content'],
      temperature: 0,
    });
    const final = await stream.finalResponse();
    expect(final.output.map(({ type }) => type)).toEqual(['reasoning', 'message']);
    expect(final.output_text).toContain('2');
    const schema = {
      type: 'object',
      properties: { n: { type: 'integer' } },
      required: ['n'],
      additionalProperties: false,
    };
    const formed = await openai.responses.create({
      model: '',
      input: 'What is 3 + 4?',
      max_output_tokens: 300,
      text: { format: { type: 'json_schema', name: 'n', schema, strict: true } },
    });
    expect(typeof JSON.parse(formed.output_text).n).toBe('number');
  });
});

describe('with other models', () => {
  test('a key that is wrong', async () => {
    const server = await serveAnswer('x', { apiKeys: ['right'] });
    await expect(client(server).models.list()).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    expect((await client(server, { apiKey: 'right' }).models.list()).data).toHaveLength(2);
    await server.close();
  });

  test('a server that loads is asked again, by itself', async () => {
    const ready = await serveAnswer('</think>there');
    let load: () => void = () => {};
    const loaded = new Promise<void>((resolve) => {
      load = resolve;
    });
    const late = await serve(CARD, () => loaded.then(() => ready.models.peek('')!), { waitForModel: false });
    const statuses: number[] = [];
    const retrying = client(late, {
      maxRetries: 2,
      // Its own wait of half a second in place of ours of five.
      fetch: async (url: string, init: RequestInit) => {
        const reply = await fetch(url, init);
        statuses.push(reply.status);
        load();
        const headers = new Headers(reply.headers);
        headers.delete('retry-after');
        return new Response(reply.body, { status: reply.status, headers });
      },
    });
    const answer = await retrying.chat.completions.create({ model: '', messages: [{ role: 'user', content: 'x' }] });
    expect(answer.choices[0].message.content).toBe('there');
    expect(statuses).toEqual([503, 200]);
    await late.close();
    await ready.close();
  });

  test('an error in the middle of a stream is an APIError with its message', async () => {
    let passes = 0;
    const frail = await serveAnswer('y'.repeat(100), {}, async () => {
      if (++passes > 20) throw new Error('inside');
    });
    const stream = await client(frail).chat.completions.create({
      model: '',
      messages: [{ role: 'user', content: 'x' }],
      stream: true,
    });
    let pieces = 0;
    const read = async () => {
      for await (const _ of stream) pieces++;
    };
    const error = await read().catch((error: unknown) => error);
    expect(error).toBeInstanceOf(APIError);
    expect((error as APIError).message).toContain('see the log of the server');
    expect(pieces).toBeGreaterThan(5);
    await frail.close();
  });

  test('an abort while the prompt is read, streamed or not', async () => {
    let passes = 0;
    const slow = await serveAnswer('y', {}, async () => {
      passes++;
      await new Promise((resolve) => setTimeout(resolve, 30));
    });
    for (const stream of [true, false]) {
      const stop = new AbortController();
      const asked = client(slow).chat.completions.create(
        { model: '', messages: [{ role: 'user', content: 'word '.repeat(380) }], stream },
        { signal: stop.signal },
      );
      asked.catch(() => {});
      await expect.poll(() => slow.models.peek('')!.stats().running).toBe(1);
      stop.abort();
      await expect.poll(() => slow.models.peek('')!.stats().running).toBe(0);
      const before = passes;
      await new Promise((resolve) => setTimeout(resolve, 150));
      expect(passes - before).toBeLessThan(2);
    }
    await slow.close();
  });
});
