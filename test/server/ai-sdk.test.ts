/** Vercel's AI SDK over its OpenAI-compatible provider. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, jsonSchema, streamText, tool } from 'ai';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { serveAnswer, serveJug, type TestServer } from './fixture.ts';

const provider = (server: TestServer) =>
  createOpenAICompatible({
    name: 'tandem',
    baseURL: `${server.url}/v1`,
    includeUsage: true,
    supportsStructuredOutputs: true,
  });

describe('AI SDK', () => {
  let jug: TestServer;
  let calls: TestServer;
  beforeAll(async () => {
    jug = await serveJug();
    await jug.models.warm('');
    calls = await serveAnswer(
      'Hm.\n</think>\n\nLooking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
    );
  }, 60_000);
  afterAll(async () => {
    await jug?.close();
    await calls?.close();
  });

  test('streamText: reasoning, text, usage', async () => {
    const result = streamText({ model: provider(jug)('jug-Q8_0'), prompt: 'What is 3 + 4?', temperature: 0 });
    let text = '';
    for await (const piece of result.textStream) text += piece;
    expect(text).toContain('7');
    expect(await result.reasoningText).toContain('7');
    expect(await result.finishReason).toBe('stop');
    expect((await result.usage).inputTokens).toBe(13);
  });

  test('streamText with tools', async () => {
    const called: unknown[] = [];
    const result = streamText({
      model: provider(calls)('org/scripted:1'),
      prompt: 'x',
      tools: {
        get_weather: tool({
          inputSchema: jsonSchema<{ city: string }>({ type: 'object', properties: { city: { type: 'string' } } }),
          execute: async (input) => {
            called.push(input);
            return 'sunny';
          },
        }),
      },
    });
    await result.consumeStream();
    expect(called).toEqual([{ city: 'Rome' }]);
    expect(await result.finishReason).toBe('tool-calls');
    expect(await result.reasoningText).toBe('Hm.');
  });

  test('generateObject', async () => {
    const { object } = await generateObject({
      model: provider(jug)('jug-Q8_0'),
      schema: jsonSchema<{ n: number }>({
        type: 'object',
        properties: { n: { type: 'integer' } },
        required: ['n'],
        additionalProperties: false,
      }),
      prompt: 'What is 3 + 4?',
      maxOutputTokens: 300,
    });
    expect(typeof object.n).toBe('number');
  });

  test('generateObject of a provider that knows JSON but no schemas', async () => {
    const scripted = await serveAnswer('Hm.</think>{"n": 7}');
    const engine = vi.spyOn(scripted.models.peek('')!, 'chat');
    const plain = createOpenAICompatible({ name: 'tandem', baseURL: `${scripted.url}/v1` });
    const { object } = await generateObject({ model: plain('alias/of:it'), output: 'no-schema', prompt: 'x' });
    expect(object).toEqual({ n: 7 });
    expect(engine.mock.lastCall?.[1]).toMatchObject({ format: { type: 'json' } });
    await scripted.close();
  });

  test('an error in the middle of a stream is told', async () => {
    let passes = 0;
    const frail = await serveAnswer('y'.repeat(100), {}, async () => {
      if (++passes > 20) throw new Error('inside');
    });
    const errors: unknown[] = [];
    const result = streamText({
      model: provider(frail)('org/scripted:1'),
      prompt: 'x',
      maxRetries: 0,
      onError: ({ error }) => {
        errors.push(error);
      },
    });
    await result.consumeStream();
    expect(JSON.stringify(errors)).toContain('see the log of the server');
    await frail.close();
  });

  test('an abort frees the slot', async () => {
    const stop = new AbortController();
    const result = streamText({
      model: provider(jug)('jug-Q8_0'),
      prompt: 'What is 3 + 4?',
      abortSignal: stop.signal,
      providerOptions: { tandem: { ignore_eos: true } },
    });
    for await (const _ of result.fullStream) stop.abort();
    await expect.poll(() => jug.models.peek('')!.stats().running).toBe(0);
  });
});
