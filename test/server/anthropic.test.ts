/** Anthropic's own client against the server. */
import Anthropic from '@anthropic-ai/sdk';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
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

  test('models, as its client lists them', async () => {
    const { data, has_more } = await client.models.list();
    expect(data.map(({ id, type, display_name }) => [id, type, display_name])).toEqual([
      ['org/scripted:1', 'model', 'org/scripted:1'],
      ['alias/of:it', 'model', 'alias/of:it'],
    ]);
    expect([has_more, Date.parse(data[0].created_at)]).toEqual([false, 1_700_000_000_000]);
    expect((await client.models.retrieve('alias/of:it')).id).toBe('alias/of:it');
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

  test('documents and results of searches that are text; pictures and PDFs are refused in words', async () => {
    const engine = vi.spyOn(server.models.peek('')!, 'chat');
    const ask = (content: Anthropic.MessageParam['content']) =>
      client.messages.create({ model: 'alias/of:it', max_tokens: 5, messages: [{ role: 'user', content }] });
    await ask([
      { type: 'document', title: 'Notes', source: { type: 'text', media_type: 'text/plain', data: 'It rains.' } },
      { type: 'document', source: { type: 'content', content: [{ type: 'text', text: 'It pours.' }] } },
      { type: 'search_result', title: 'Hit', source: 'https://a.example', content: [{ type: 'text', text: 'Sun.' }] },
      { type: 'tool_result', tool_use_id: 't', content: [{ type: 'text', text: 'r' }] },
      { type: 'text', text: 'And now?' },
    ]);
    expect(engine.mock.lastCall?.[0]).toEqual([
      { role: 'tool', content: 'r', toolCallId: 't' },
      { role: 'user', content: 'Notes\nIt rains.\nIt pours.\nHit\nSun.\nAnd now?' },
    ]);
    const data = 'AAAA';
    for (const [kind, block] of [
      ['image', { type: 'image', source: { type: 'base64', media_type: 'image/png', data } }],
      ['document', { type: 'document', source: { type: 'base64', media_type: 'application/pdf', data } }],
      ['document', { type: 'document', source: { type: 'url', url: 'https://a.example/x.pdf' } }],
    ] as const)
      await expect(ask([block])).rejects.toMatchObject({
        status: 400,
        message: expect.stringMatching(new RegExp(`read text only; messages\\[0\\] holds a part of type .*${kind}`)),
      });
    vi.restoreAllMocks();
  });

  test('choices of tools, thinking and its budget, stop sequences', async () => {
    const engine = vi.spyOn(server.models.peek('')!, 'chat').mockImplementation(() => {
      throw new Error('seen');
    });
    const asked = async (more: object) => {
      await client.messages.create({ ...request, model: 'alias/of:it', ...more }).catch(() => {});
      return engine.mock.lastCall?.[1];
    };
    expect(await asked({ tool_choice: { type: 'any' } })).toMatchObject({ toolChoice: 'required' });
    expect(await asked({ tool_choice: { type: 'tool', name: 'get_weather' } })).toMatchObject({
      toolChoice: { name: 'get_weather' },
    });
    expect(await asked({ tool_choice: { type: 'none' } })).not.toHaveProperty('tools');
    expect(await asked({ thinking: { type: 'enabled', budget_tokens: 1024 } })).toMatchObject({
      thinking: true,
      thinkingBudget: 1024,
    });
    expect(await asked({ thinking: { type: 'disabled' } })).toMatchObject({ thinking: false });
    expect(await asked({ thinking: { type: 'enabled', budget_tokens: 0 } })).toMatchObject({
      thinking: false,
      thinkingBudget: 0,
    });
    vi.restoreAllMocks();
    for (const tool_choice of [{ type: 'tool', name: 'nope' }, { type: 'tool' }])
      await expect(
        client.messages.create({ ...request, model: 'alias/of:it', tool_choice: tool_choice as never }),
      ).rejects.toMatchObject({ status: 400 });
    await expect(
      client.messages.create({ ...request, model: 'alias/of:it', tools: undefined, tool_choice: { type: 'any' } }),
    ).rejects.toMatchObject({ status: 400, message: expect.stringContaining('no functions among tools') });
    const stopped = await client.messages.create({ ...request, model: 'alias/of:it', stop_sequences: ['ook'] });
    expect(stopped).toMatchObject({ stop_reason: 'stop_sequence', stop_sequence: 'ook' });
  });

  test('an error in the middle of a stream is thrown by the client', async () => {
    let passes = 0;
    const frail = await serveAnswer('y'.repeat(100), {}, async () => {
      if (++passes > 20) throw new Error('inside');
    });
    const stream = new Anthropic({ baseURL: frail.url, apiKey: 'x', maxRetries: 0 }).messages.stream({
      model: 'alias/of:it',
      max_tokens: 100,
      messages: [{ role: 'user', content: 'x' }],
    });
    await expect(stream.finalMessage()).rejects.toThrow('see the log of the server');
    await frail.close();
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
