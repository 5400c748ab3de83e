/** Anthropic's own client against the server. */
import Anthropic from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveAnswer, type TestServer } from './fixture.ts';

const CALL =
  'Let me look.\n</think>\n\nLooking.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Rome"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>';
const TOOLS = [{ name: 'get_weather', input_schema: { type: 'object' as const, properties: {} } }];

describe('Anthropic', () => {
  let server: TestServer;
  let client: Anthropic;
  beforeAll(async () => {
    server = await serveAnswer(CALL, { apiKeys: ['secret'] });
    client = new Anthropic({ baseURL: server.url, apiKey: 'secret', maxRetries: 0 });
  });
  afterAll(() => server?.close());

  const request = {
    model: 'claude',
    max_tokens: 500,
    messages: [
      { role: 'user' as const, content: 'hi' },
      {
        role: 'assistant' as const,
        content: [{ type: 'tool_use' as const, id: 't1', name: 'get_weather', input: { city: 'Cork' } }],
      },
      { role: 'user' as const, content: [{ type: 'tool_result' as const, tool_use_id: 't1', content: 'rain' }] },
    ],
    system: [{ type: 'text' as const, text: 'Be brief.', cache_control: { type: 'ephemeral' as const } }],
    tools: TOOLS,
  };

  test('an unknown model is a 404, a missing key a 401, in its form', async () => {
    await expect(client.messages.create(request)).rejects.toMatchObject({ status: 404, error: { type: 'error' } });
    const stranger = new Anthropic({ baseURL: server.url, apiKey: 'wrong', maxRetries: 0 });
    await expect(stranger.messages.create(request)).rejects.toMatchObject({
      status: 401,
      error: { type: 'error', error: { type: 'authentication_error' } },
    });
  });

  test('thinking, text and calls, whole', async () => {
    const message = await client.messages.create({ ...request, model: 'org/scripted:1' });
    expect(message).toMatchObject({
      type: 'message',
      stop_reason: 'tool_use',
      content: [
        { type: 'thinking', thinking: 'Let me look.' },
        { type: 'text', text: 'Looking.' },
        { type: 'tool_use', name: 'get_weather', input: { city: 'Rome' } },
      ],
    });
    expect(message.usage.output_tokens).toBeGreaterThan(10);
  });

  test('the same in events', async () => {
    const stream = client.messages.stream({ ...request, model: 'alias/of:it' });
    const names: string[] = [];
    stream.on('streamEvent', ({ type }) => names.push(type));
    const message = await stream.finalMessage();
    expect(message.content).toMatchObject([
      { thinking: 'Let me look.' },
      { text: 'Looking.' },
      { input: { city: 'Rome' } },
    ]);
    expect(message.stop_reason).toBe('tool_use');
    expect(names[0]).toBe('message_start');
    expect(names.filter((name) => name === 'content_block_start')).toHaveLength(3);
    expect(names.slice(-2)).toEqual(['message_delta', 'message_stop']);
  });

  test('max_tokens ends it', async () => {
    const message = await client.messages.create({ ...request, model: 'org/scripted:1', max_tokens: 5 });
    expect(message.stop_reason).toBe('max_tokens');
  });

  test('tokens of a conversation are counted without answering it', async () => {
    const { input_tokens } = await client.messages.countTokens({ ...request, model: 'org/scripted:1' });
    const { usage } = await client.messages.create({ ...request, model: 'org/scripted:1' });
    expect(input_tokens).toBe(usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
  });
});
