/** Forms of output, thinking budgets and demanded calls on the model that ships: what comes out is of the form, whatever is drawn. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { type Engine, load } from '../../src/index.ts';

// Reason of the skip: the native core is not built here (nativeProblem() says why).
describe.skipIf(nativeProblem() !== undefined)('guided output', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await load();
  });
  afterAll(() => engine?.dispose());
  const ask = [{ role: 'user' as const, content: 'What is 3 + 4?' }];

  test('a schema, hot and with many seeds', async () => {
    const schema = {
      type: 'object',
      properties: {
        n: { type: 'integer' },
        kind: { enum: ['sum', 'product'] },
        list: { type: 'array', items: { type: 'boolean' }, maxItems: 2 },
      },
      required: ['n', 'kind', 'list'],
      additionalProperties: false,
    };
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, seed) =>
        engine.chat(ask, { format: { type: 'schema', schema }, temperature: 1.5, seed, maxTokens: 600 }),
      ),
    );
    for (const { text, finishReason } of answers) {
      if (finishReason === 'length') continue; // numbers may go on for ever
      const value = JSON.parse(text) as { n: number; kind: string; list: boolean[] };
      expect(Number.isInteger(value.n)).toBe(true);
      expect(['sum', 'product']).toContain(value.kind);
      expect(value.list.length).toBeLessThanOrEqual(2);
    }
    expect(answers.filter(({ finishReason }) => finishReason === 'stop').length).toBeGreaterThan(6);
  });

  test('a regular expression and a grammar', async () => {
    const regex = await engine.chat(ask, {
      format: { type: 'regex', pattern: '(yes|no), [0-9]{1,3}!' },
      temperature: 1,
      seed: 1,
    });
    expect(regex.text).toMatch(/^(yes|no), [0-9]{1,3}!$/);
    const ebnf = await engine.chat(ask, {
      format: { type: 'ebnf', grammar: 'root ::= "it is " digit digit?\ndigit ::= [0-9]' },
      temperature: 1,
      seed: 1,
    });
    expect(ebnf.text).toMatch(/^it is [0-9]{1,2}$/);
    const raw = await engine.generate('x', { format: { type: 'regex', pattern: 'a{3}' }, temperature: 1 });
    expect(raw.text).toBe('aaa');
  });

  test('a form that is none is refused, and the next one works', async () => {
    for (const format of [
      { type: 'regex', pattern: '[a' },
      { type: 'ebnf', grammar: 'root ::= "a' },
      { type: 'schema', schema: { type: 'nonsense' } },
      { type: 'regex', pattern: '' },
    ] as const)
      await expect(engine.chat(ask, { format })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    expect((await engine.chat(ask, { format: { type: 'regex', pattern: 'ok' } })).text).toBe('ok');
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0 });
  });

  test('a thinking budget ends the thinking', async () => {
    const free = await engine.chat(ask, { temperature: 0 });
    const short = await engine.chat(ask, { temperature: 0, thinkingBudget: 2, maxTokens: 60 });
    expect(short.usage.reasoningTokens).toBeLessThan(free.usage.reasoningTokens);
    expect(free.reasoning.startsWith(short.reasoning)).toBe(true);
    const none = await engine.chat(ask, { temperature: 0, thinkingBudget: 0, maxTokens: 60 });
    expect(none.reasoning).toBe('');
    const formed = await engine.chat(ask, { thinkingBudget: 1, format: { type: 'regex', pattern: 'x{2}y' } });
    expect(formed.text).toBe('xxy');
  });

  test('a call that is demanded is made, by name and with its schema', async () => {
    const tools = ['a', 'b'].map((name) => ({
      name,
      parameters: {
        type: 'object',
        properties: { city: { enum: ['Rome', 'Cork'] } },
        required: ['city'],
        additionalProperties: false,
      },
    }));
    for (const toolChoice of ['required', { name: 'b' }] as const) {
      const { toolCalls, text } = await engine.chat(ask, { tools, toolChoice, temperature: 1, seed: 2 });
      expect(text).toBe('');
      expect(toolCalls).toHaveLength(1);
      expect(toolChoice === 'required' ? ['a', 'b'] : ['b']).toContain(toolCalls[0].name);
      expect(['Rome', 'Cork']).toContain((JSON.parse(toolCalls[0].arguments) as { city: string }).city);
    }
    await expect(engine.chat(ask, { tools, toolChoice: { name: 'c' } })).rejects.toMatchObject({
      code: 'REQUEST_INVALID',
    });
  });

  test('an abort while a form is compiled leaves nothing behind', async () => {
    const generation = engine.chat(ask, { format: { type: 'regex', pattern: 'z{5}' } });
    generation.abort();
    await expect(generation).rejects.toMatchObject({ code: 'ABORTED' });
    expect(engine.stats()).toMatchObject({ running: 0, waiting: 0 });
  });
});
