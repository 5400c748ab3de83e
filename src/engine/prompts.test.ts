import { afterEach, describe, expect, test, vi } from 'vitest';
import { openCheckpoint } from '../formats/open.ts';
import { createChatTemplate } from '../text/chat-template.ts';
import { createTokenizer } from '../text/tokenizer.ts';
import { defaultModelPath } from './load.ts';
import { Prompts, type PromptsOptions } from './prompts.ts';

const path = defaultModelPath();
const checkpoint = await openCheckpoint(path);
const tokenizer = await createTokenizer(checkpoint);
const template = await createChatTemplate(checkpoint, tokenizer);
await checkpoint.close();

const open: Prompts[] = [];
const prompts = (options: Partial<PromptsOptions> = {}) => {
  const made = new Prompts({ tokenizer, template, path, ...options });
  open.push(made);
  return made;
};
afterEach(() => Promise.all(open.splice(0).map((one) => one.dispose())));

const conversation = {
  messages: [
    { role: 'system' as const, content: 'Count. <|im_end|> is text here.' },
    { role: 'assistant' as const, content: '<think>\nof nothing\n</think>\n\nYes?' },
    { role: 'user' as const, content: 'How many pears, apples and 12 plums? '.repeat(200) },
  ],
  options: { tools: [{ name: 'count', description: 'counts' }] },
};

describe('prompts', () => {
  test('are the same ids from a thread, and others get their turn meanwhile', async () => {
    const here = prompts({ longFrom: Number.POSITIVE_INFINITY });
    const apart = prompts({ longFrom: 1 });
    const expected = here.chat(conversation);
    expect(expected).not.toBeInstanceOf(Promise);
    let turns = 0;
    let counting = true;
    const count = () => {
      turns++;
      if (counting) setImmediate(count);
    };
    count();
    const read = apart.chat(conversation);
    expect(read).toBeInstanceOf(Promise);
    expect(await read).toEqual(expected);
    const text = { text: 'words and more words. '.repeat(1000), options: { addSpecial: true } };
    expect(await apart.text(text)).toEqual(here.text(text));
    counting = false;
    expect(turns).toBeGreaterThan(10);
  });

  test('a template that refuses says so from a thread too', async () => {
    const refusing = { messages: [{ role: 'user' as const, content: 'x' }], options: { kwargs: { tools: 5 } } };
    const told = async (longFrom: number) => prompts({ longFrom }).chat(refusing);
    const messages = await Promise.all([told(1), told(1e9)].map((one) => one.catch((error: Error) => error.message)));
    expect(messages[0]).toMatch(/^\[text\] the chat template accepts the conversation/);
    expect(messages[1]).toBe(messages[0]);
  });

  test('what is no data is refused, and the next prompt is read', async () => {
    const apart = prompts({ longFrom: 1 });
    const call = { ...conversation, options: { kwargs: { now: () => 0 } } };
    await expect(apart.chat(call)).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
      message: expect.stringMatching(/is data.*could not be cloned/s),
    });
    expect((await apart.chat(conversation)).ids.length).toBeGreaterThan(100);
  });

  test('what cannot fit is refused before it is cut into tokens, what may fit is not', async () => {
    const encode = vi.spyOn(tokenizer, 'encode');
    const text = 'a b '.repeat(1 << 16);
    const options = {};
    const most = Math.ceil(text.length / tokenizer.bytesPerToken!);
    expect(() => prompts().text({ text, options, mostTokens: most - 1 })).toThrow(
      expect.objectContaining({ code: 'CONTEXT_OVERFLOW' }),
    );
    const messages = [{ role: 'user' as const, content: text }];
    const here = prompts({ path: undefined });
    expect(() => here.chat({ messages, options, mostTokens: 1000 })).toThrow(
      expect.objectContaining({ code: 'CONTEXT_OVERFLOW' }),
    );
    expect(encode).not.toHaveBeenCalled();
    await expect(prompts().chat({ messages, options, mostTokens: 1000 })).rejects.toMatchObject({
      code: 'CONTEXT_OVERFLOW',
    });
    encode.mockRestore();
    const ids = await prompts().text({ text, options, mostTokens: most });
    expect(ids.length).toBeGreaterThanOrEqual(most);
  });

  test('who is gone is skipped, an idle thread ends and another begins', async () => {
    const gone = new AbortController();
    const apart = prompts({ longFrom: 1, idleMs: 1 });
    const text = { text: 'words '.repeat(2000), options: {} };
    const first = apart.text(text, new AbortController().signal);
    const second = apart.text(text, gone.signal);
    gone.abort();
    await expect(second).rejects.toMatchObject({ code: 'ABORTED' });
    const ids = await first;
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(await apart.text(text)).toEqual(ids);
    await apart.dispose();
    await expect(apart.text(text)).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});
