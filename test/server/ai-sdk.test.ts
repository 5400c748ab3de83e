/** Vercel's AI SDK over its OpenAI-compatible provider. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, jsonSchema, streamText, tool } from 'ai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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
});
