/** What Open WebUI sends, in its order: models, a streamed answer, stop, title and tags, the next turn with reasoning in it. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { serveJug, type TestServer } from './fixture.ts';

// biome-ignore lint/suspicious/noExplicitAny: bodies are looked at by the expectations
type Body = Record<string, any>;

describe('Open WebUI', () => {
  let server: TestServer;
  beforeAll(async () => {
    server = await serveJug();
    await server.models.warm('');
  }, 60_000);
  afterAll(() => server?.close());

  const post = (body: object, signal?: AbortSignal) =>
    fetch(`${server.url}/v1/chat/completions`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: 'Bearer ' },
      body: JSON.stringify(body),
      signal,
    });

  test('a conversation', async () => {
    const { data } = (await (
      await fetch(`${server.url}/v1/models`, { headers: { authorization: 'Bearer ' } })
    ).json()) as { data: { id: string }[] };
    const model = data[0].id;
    const question = { role: 'user', content: 'What is 3 + 4?' };
    const first = await post({
      stream: true,
      model,
      messages: [question],
      stream_options: { include_usage: true },
      chat_id: 'x',
      session_id: 'y',
    });
    const text = await first.text();
    const chunks = text
      .split('\n\n')
      .filter((event) => event.startsWith('data: {'))
      .map((event) => JSON.parse(event.slice(6)) as Body);
    const answer = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? '').join('');
    const thought = chunks.map((chunk) => chunk.choices[0]?.delta?.reasoning_content ?? '').join('');
    expect(answer).toContain('7');
    expect(chunks.at(-1)).toMatchObject({
      choices: [],
      usage: { completion_tokens: expect.any(Number) },
      timings: { predicted_per_second: expect.any(Number) },
    });

    // Stop: the front end closes the connection.
    const stop = new AbortController();
    const stopped = await post({ stream: true, model, messages: [question] }, stop.signal);
    await stopped.body!.getReader().read();
    stop.abort();
    await expect.poll(() => server.models.peek('')!.stats().running).toBe(0);

    // Title and tags, not streamed, right behind the answer.
    const task = {
      stream: false,
      model,
      messages: [{ role: 'user', content: '### Task:\nGenerate a concise, 3-5 word title.' }],
      max_completion_tokens: 20,
    };
    const titles = await Promise.all([post(task), post(task)]);
    expect(titles.map(({ status }) => status)).toEqual([200, 200]);

    // The next turn brings the thinking back, in the way of old and of new versions: the prompt is the same.
    const histories = [
      `<details type="reasoning" done="true">\n<summary>Thought</summary>\n> ${thought.trim().replaceAll('\n', '\n> ')}\n</details>\n${answer}`,
      `<think>${thought}</think>\n\n${answer}`,
    ].map((content) => [question, { role: 'assistant', content }, { role: 'user', content: 'What is 9 - 7?' }]);
    const sizes: number[] = [];
    for (const messages of histories) {
      const reply = (await (await post({ model, messages, stream: false, temperature: 0 })).json()) as Body;
      expect(reply.choices[0].message.content).toContain('2');
      sizes.push(reply.usage.prompt_tokens);
    }
    expect(sizes[0]).toBe(sizes[1]);
  });
});
