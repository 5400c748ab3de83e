/** The engine on a fake executable: events, results, aborts, failures, leaks. */
import { getEventListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, test } from 'vitest';
import type { GenerationEvent } from '../../src/engine/result.ts';
import { hashOf } from './fake-executable.ts';
import { END } from './fake-tokenizer.ts';
import { engineOn, house, ScriptedExecutable, VOCAB } from './house.ts';

async function collect(generation: AsyncIterable<GenerationEvent>): Promise<GenerationEvent[]> {
  const events: GenerationEvent[] = [];
  for await (const event of generation) events.push(event);
  return events;
}

/** A promise the test opens. */
function gateway(): { promise: Promise<void>; resolve: () => void } {
  let resolve = () => {};
  const promise = new Promise<void>((open) => {
    resolve = open;
  });
  return { promise, resolve };
}

describe('a generation', () => {
  test('streams whole code points, ends at the end token and reports figures', async () => {
    const engine = engineOn(new ScriptedExecutable('3 个杯子 🫙.', 4));
    const generation = engine.generate('abc');
    const events = await collect(generation);
    const texts = events.flatMap((event) => (event.type === 'text' ? [event.text] : []));
    expect(texts).toEqual([...'3 个杯子 🫙.']);
    expect(events.filter(({ type }) => type === 'prefill')).toEqual([
      { type: 'prefill', done: 0, total: 4, cached: 0 },
      { type: 'prefill', done: 4, total: 4, cached: 0 },
    ]);
    const result = await generation;
    expect(events.at(-1)).toEqual({ type: 'done', result });
    expect(result).toMatchObject({ text: '3 个杯子 🫙.', finishReason: 'stop', reasoning: '', toolCalls: [] });
    expect(result.tokens.at(-1)).toBe(END);
    expect(result.usage).toEqual({
      promptTokens: 4,
      cachedTokens: 0,
      completionTokens: 18,
      reasoningTokens: 0,
      totalTokens: 22,
    });
    const { timings } = result;
    expect(timings.timeToFirstTokenMs).toBeCloseTo(timings.queueMs + timings.promptMs, 6);
    expect(timings.totalMs).toBeGreaterThanOrEqual(timings.timeToFirstTokenMs + timings.generationMs);
    expect(timings.tokensPerSecond).toBeCloseTo((17 / timings.generationMs) * 1000, 3);
    expect(generation.partial).toBe(result);
  });

  test('can be awaited alone, takes token ids, and ends at maxTokens', async () => {
    const { engine } = house();
    const result = await engine.generate([1, 2, 3], { maxTokens: 5, ignoreEos: true });
    expect(result.tokens).toHaveLength(5);
    expect(result.finishReason).toBe('length');
  });

  test('ends before a stop string that spans tokens', async () => {
    const engine = engineOn(new ScriptedExecutable('one two three', 2));
    const generation = engine.generate('x', { stop: ['o th', 'zzz'] });
    const text = (await collect(generation)).flatMap((event) => (event.type === 'text' ? [event.text] : [])).join('');
    expect(text).toBe('one tw');
    expect(await generation).toMatchObject({ text: 'one tw', finishReason: 'stop', stopString: 'o th' });
    expect(engine.stats()).toMatchObject({ running: 0, freePages: 64 });
  });

  test('what was held back for a stop string comes out at the end', async () => {
    const engine = engineOn(new ScriptedExecutable('abc##', 2));
    expect((await engine.generate('x', { stop: '###' })).text).toBe('abc##');
  });

  test('the end token is no text even when it is ignored', async () => {
    const engine = engineOn(new ScriptedExecutable('hi', 2));
    const result = await engine.generate('x', { ignoreEos: true, maxTokens: 6 });
    expect(result).toMatchObject({ text: 'hi', finishReason: 'length', tokens: [104, 105, END, END, END, END] });
  });

  test('stopTokens end it like the model', async () => {
    const engine = engineOn(new ScriptedExecutable('a.b', 2));
    expect(await engine.generate('x', { stopTokens: [46] })).toMatchObject({ text: 'a', finishReason: 'stop' });
  });

  test('logprobs: one entry and one event per token, alternatives as asked', async () => {
    const engine = engineOn(new ScriptedExecutable('ok', 2));
    const generation = engine.generate('x', { logprobs: 2 });
    const events = await collect(generation);
    const { logprobs } = await generation;
    expect(logprobs!.map(({ id, text }) => [id, text])).toEqual([
      [111, 'o'],
      [107, 'k'],
      [END, ''],
    ]);
    expect(logprobs![0].top.map(({ id, logprob }) => [id, logprob])).toEqual([
      [0, -1],
      [1, -2],
    ]);
    expect(events.filter(({ type }) => type === 'token')).toHaveLength(3);
    expect((await engine.generate('x')).logprobs).toBeUndefined();
  });

  test('a slow reader loses nothing and keeps nobody waiting', async () => {
    const { engine } = house();
    const slow = engine.generate([5], { maxTokens: 40, ignoreEos: true, seed: 1, logprobs: true });
    const fast = await engine.generate([5], { maxTokens: 40, ignoreEos: true, seed: 1 });
    const seen: number[] = [];
    for await (const event of slow) {
      if (event.type === 'token') seen.push(event.id);
      await sleep(1);
    }
    expect(seen).toEqual(fast.tokens);
  });

  test('events are read once', async () => {
    const { engine } = house();
    const generation = engine.generate([5], { maxTokens: 3 });
    await collect(generation);
    await expect(collect(generation)).rejects.toThrow(/read once/);
  });

  test('who asks for several events ahead gets them in order, and the end as often as wanted', async () => {
    const { engine } = house();
    const { tokens } = await engine.generate([5], { maxTokens: 3, ignoreEos: true, seed: 1 });
    const events = engine.generate([5], { maxTokens: 3, ignoreEos: true, seed: 1, logprobs: true });
    const iterator = events[Symbol.asyncIterator]();
    const asked = await Promise.all(Array.from({ length: 20 }, () => iterator.next()));
    expect(asked.flatMap(({ value }) => (value?.type === 'token' ? [value.id] : []))).toEqual([...tokens]);
    expect(asked.at(-1)).toEqual({ done: true, value: undefined });
  });

  test('leaving while an event is awaited ends the wait', async () => {
    const gate = gateway();
    const { engine } = house({ during: () => gate.promise });
    const iterator = engine.generate([5])[Symbol.asyncIterator]();
    await iterator.next(); // prefill began
    const waiting = iterator.next();
    await iterator.return?.();
    expect(await waiting).toEqual({ done: true, value: undefined });
    gate.resolve();
    await engine.dispose();
  });

  test('prefill progress rises to the prompt length, in events and in onProgress', async () => {
    const { engine } = house({ maxRows: 20 });
    const seen: number[] = [];
    await engine.generate(new Array(90).fill(7), {
      maxTokens: 2,
      onProgress: ({ done, total }) => seen.push(done / total),
    });
    expect(seen[0]).toBe(0);
    expect(seen.at(-1)).toBe(1);
    expect(seen.length).toBeGreaterThan(4);
    expect(seen).toEqual([...seen].sort((a, b) => a - b));
  });
});

describe('a chat', () => {
  const prompt = 'u:hi\na:<think>\n';

  test('thinking, answer and figures', async () => {
    const engine = engineOn(new ScriptedExecutable('Hm. </think>\n\nHello!', prompt.length));
    const generation = engine.chat([{ role: 'user', content: 'hi' }]);
    const events = await collect(generation);
    const joined = (type: 'text' | 'reasoning') =>
      events.map((event) => (event.type === type ? event.text : '')).join('');
    expect([joined('reasoning'), joined('text')]).toEqual(['Hm.', 'Hello!']);
    const result = await generation;
    expect(result).toMatchObject({ reasoning: 'Hm.', text: 'Hello!', finishReason: 'stop' });
    expect(result.usage.promptTokens).toBe(prompt.length);
    expect(result.usage.reasoningTokens).toBeGreaterThanOrEqual(3);
    expect(result.usage.reasoningTokens).toBeLessThanOrEqual('Hm. </think>\n\n'.length);
  });

  test('tool calls become events and calls', async () => {
    const call =
      '</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{"city": "Rome"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>';
    const engine = engineOn(new ScriptedExecutable(call, prompt.length));
    const generation = engine.chat([{ role: 'user', content: 'hi' }], { tools: [{ name: 'get_weather' }] });
    const events = await collect(generation);
    const kinds = new Set(events.map(({ type }) => type));
    expect(kinds).toEqual(new Set(['prefill', 'tool-call-start', 'tool-call-arguments', 'tool-call-end', 'done']));
    const { toolCalls, text } = await generation;
    expect(toolCalls).toEqual([
      { id: expect.stringMatching(/^call_/), name: 'get_weather', arguments: '{"city": "Rome"}' },
    ]);
    expect(text).toBe('');
  });

  test('parse: none leaves the text as it is, behind the mark of thinking that the prompt opened; thinking: false reaches the template', async () => {
    const raw = 'Hm.</think>Hello!';
    const engine = engineOn(new ScriptedExecutable(raw, prompt.length));
    expect(await engine.chat([{ role: 'user', content: 'hi' }], { parse: 'none' })).toMatchObject({
      text: `<think>\n${raw}`,
      reasoning: '',
    });
    const plain = engineOn(new ScriptedExecutable('Hello!', 'u:hi\na:'.length));
    expect(await plain.chat([{ role: 'user', content: 'hi' }], { thinking: false })).toMatchObject({
      text: 'Hello!',
      reasoning: '',
    });
  });

  test('thinking that clients send back is kept out of the prompt', async () => {
    const { engine } = house();
    const { usage } = await engine.chat(
      [
        { role: 'user', content: 'a' },
        { role: 'assistant', content: '<think>long</think>b' },
        { role: 'user', content: 'c' },
      ],
      { maxTokens: 1 },
    );
    expect(usage.promptTokens).toBe('u:a\na:b\nu:c\na:<think>\n'.length);
  });

  test.each([
    ['no messages', [], /messages is an array of at least one message; got an array of 0/],
    ['a text', 'hi', /messages is an array of at least one message; got "hi"/],
    [
      'a strange role',
      [{ role: 'robot', content: '' }],
      /messages\[0\].role is one of system, user, assistant, tool; got "robot"/,
    ],
    [
      'a call that is none',
      [{ role: 'assistant', content: '', toolCalls: [null] }],
      /messages\[0\].toolCalls is an array of calls with name and arguments \(JSON text\); got an array of 1/,
    ],
    ['reasoning that is no text', [{ role: 'assistant', content: '', reasoning: 7 }], /reasoning is a string; got 7/],
    ['no content', [{ role: 'user' }], /messages\[0\].content is a string; got undefined/],
  ])('refuses %s', async (_, messages, message) => {
    const { engine } = house();
    await expect(engine.chat(messages as never)).rejects.toThrow(message);
  });

  test.each([
    ['a tool that is none', { tools: [null] }, /tools is an array of tools with names/],
    ['half a thinking', { thinking: 'no' }, /thinking is true or false; got "no"/],
    ['another parse', { parse: 'json' }, /parse is separate or none; got "json"/],
    ['variables that are none', { templateVariables: 5 }, /templateVariables is an object; got 5/],
    ['a flag in words', { ignoreEos: 'yes' }, /ignoreEos is true or false; got "yes"/],
    ['half a signal', { signal: { addEventListener() {} } }, /signal is an AbortSignal; got an object/],
  ])('refuses %s', async (_, options, message) => {
    const { engine } = house();
    await expect(engine.chat([{ role: 'user', content: 'x' }], { maxTokens: 1, ...options } as never)).rejects.toThrow(
      message,
    );
  });
});

test('tools without names are refused', async () => {
  const { engine } = house();
  await expect(engine.chat([{ role: 'user', content: 'x' }], { tools: [{}] as never })).rejects.toThrow(
    /tools is an array of tools with names; got an array of 1/,
  );
  expect(engine.stats()).toMatchObject({ running: 0, waiting: 0 });
});

describe('sampling', () => {
  test('same seed same text, alone or in a batch, and another seed another text', async () => {
    const { engine } = house({ pages: 12 });
    const options = { maxTokens: 60, ignoreEos: true, temperature: 1, repetitionPenalty: 1.1 };
    const lone = await engine.generate([1, 2, 3], { ...options, seed: 7 });
    const batch = await Promise.all(
      [7, 8, 7, 9, 7, 10, 11].map((seed) => engine.generate([1, 2, 3], { ...options, seed })),
    );
    for (const result of batch)
      if (result.seed === 7) expect(result.tokens).toEqual(lone.tokens);
      else expect(result.tokens).not.toEqual(lone.tokens);
  });

  test('a seed is chosen where none is given, reported, and works again', async () => {
    const { engine } = house();
    const first = await engine.generate([1], { maxTokens: 20, ignoreEos: true });
    expect(Number.isSafeInteger(first.seed)).toBe(true);
    const again = await engine.generate([1], { maxTokens: 20, ignoreEos: true, seed: first.seed });
    expect(again.tokens).toEqual(first.tokens);
    expect((await engine.generate([1], { maxTokens: 20, ignoreEos: true })).tokens).not.toEqual(first.tokens);
  });

  test('bits of a 64-bit seed all count', async () => {
    const { engine } = house();
    const texts = await Promise.all(
      [1n, (1n << 32n) + 1n, (1n << 63n) + 1n].map((seed) =>
        engine.generate([1], { maxTokens: 20, ignoreEos: true, seed }),
      ),
    );
    expect(new Set(texts.map(({ tokens }) => tokens.join())).size).toBe(3);
  });
});

describe('abort', () => {
  test('in the middle of the prompt: the pass is cancelled, both faces fail with ABORTED, pages come back', async () => {
    const gate = gateway();
    let passes = 0;
    const { engine, executable } = house({
      maxRows: 16,
      during: () => (++passes === 2 ? gate.promise : undefined),
    });
    const controller = new AbortController();
    const generation = engine.generate(new Array(100).fill(3), { signal: controller.signal });
    while (executable.passes.length < 2) await sleep(1);
    controller.abort(new Error('enough'));
    await expect(generation).rejects.toMatchObject({ code: 'ABORTED', cause: { message: 'enough' } });
    expect(executable.cancelled).toEqual([executable.passes[1].sequences[0].slot]);
    expect(engine.stats().freePages).toBe(62);
    gate.resolve();
    await expect.poll(() => engine.stats()).toMatchObject({ freePages: 64, running: 0 });
    expect(executable.passes).toHaveLength(2);
    expect(generation.partial).toMatchObject({ finishReason: 'abort', tokens: [], usage: { promptTokens: 100 } });
  });

  test('while text streams: the reader gets what there was, then ABORTED; partial holds the text', async () => {
    const engine = engineOn(new ScriptedExecutable('abcdefghij', 2));
    const controller = new AbortController();
    const generation = engine.generate('x', { signal: controller.signal });
    let text = '';
    const reading = (async () => {
      for await (const event of generation)
        if (event.type === 'text') {
          text += event.text;
          if (text.length === 3) controller.abort();
        }
    })();
    await expect(reading).rejects.toMatchObject({ code: 'ABORTED' });
    expect(generation.partial).toMatchObject({ finishReason: 'abort', text });
    expect('abcdefghij'.startsWith(text)).toBe(true);
  });

  test('leaving the loop aborts the sequence', async () => {
    const { engine } = house();
    const generation = engine.generate([1], { ignoreEos: true });
    for await (const event of generation) if (event.type !== 'prefill') break;
    await expect(generation).rejects.toMatchObject({ code: 'ABORTED' });
    await expect.poll(() => engine.stats()).toMatchObject({ running: 0, waiting: 0, freePages: 64 });
  });

  test('a signal that fired before and one that fires after', async () => {
    const { engine } = house();
    await expect(engine.generate([1], { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
    const controller = new AbortController();
    const result = await engine.generate([1], { maxTokens: 3, ignoreEos: true, signal: controller.signal });
    controller.abort();
    expect(result.finishReason).toBe('length');
  });

  test('a signal that lives long keeps nothing of the requests that ended', async () => {
    const { engine } = house();
    const { signal } = new AbortController();
    await engine.generate([1], { maxTokens: 3, ignoreEos: true, signal });
    await expect(engine.generate([], { signal })).rejects.toThrow(/at least one token/);
    expect(getEventListeners(signal, 'abort')).toHaveLength(0);
  });

  test('a queued request leaves the queue', async () => {
    const { engine } = house({ maxSequences: 1 });
    const first = engine.generate([1], { maxTokens: 50, ignoreEos: true });
    const second = engine.generate([1], { maxTokens: 50, ignoreEos: true });
    second.abort();
    await expect(second).rejects.toMatchObject({ code: 'ABORTED' });
    expect((await first).tokens).toHaveLength(50);
  });
});

describe('failures', () => {
  test('a failing pass fails the requests in it; the engine goes on', async () => {
    let fail = false;
    const { engine } = house({
      maxSequences: 2,
      during: () => {
        if (fail) throw new Error('boom');
      },
    });
    const running = [1, 2].map((id) => engine.generate([id], { ignoreEos: true, maxTokens: 500 }));
    const queued = engine.generate([3], { ignoreEos: true, maxTokens: 4 });
    const events = running[0][Symbol.asyncIterator]();
    while ((await events.next()).value?.type !== 'text');
    fail = true;
    await expect(running[1]).rejects.toThrow('boom');
    fail = false;
    await expect(running[0]).rejects.toThrow('boom');
    expect(running[0].partial!.tokens.length).toBeGreaterThan(0);
    expect((await queued).tokens).toHaveLength(4);
    expect(engine.stats().freePages).toBe(64);
  });

  test('one request that makes passes fail ends alone; the others never know', async () => {
    const BAD = 200;
    const texts = async (fail: boolean) => {
      const { engine } = house({
        maxSequences: 5,
        during: ({ tokens }) => {
          if (fail && tokens.includes(BAD)) throw new Error('boom');
        },
      });
      const good = [1, 2, 3, 4].map((id) => engine.generate([id, 7, 8], { ignoreEos: true, maxTokens: 30, seed: id }));
      const bad = engine.generate([9, BAD], { maxTokens: 3 });
      if (fail) await expect(bad).rejects.toThrow('boom');
      else await bad;
      const all = await Promise.all(good.map(async (generation) => [...(await generation).tokens]));
      expect(engine.stats()).toMatchObject({ freePages: 64, running: 0 });
      return all;
    };
    expect(await texts(true)).toEqual(await texts(false));
  });

  test('a pass that fails once costs nobody anything', async () => {
    const texts = async (failAt: number) => {
      let passes = 0;
      const { engine } = house({
        during: () => {
          if (++passes === failAt) throw new Error('boom');
        },
      });
      const all = [1, 2, 3].map((id) => engine.generate([id, 7, 8], { ignoreEos: true, maxTokens: 20, seed: id }));
      return Promise.all(all.map(async (generation) => [...(await generation).tokens]));
    };
    const wanted = await texts(0);
    for (const failAt of [1, 2, 9]) expect(await texts(failAt)).toEqual(wanted);
  });

  test('a callback that is no function is refused', async () => {
    const { engine } = house();
    const onProgress = 1 as unknown as () => void;
    await expect(engine.generate([1], { onProgress })).rejects.toThrow(/onProgress is a function; got 1/);
    await expect(engine.logits([1], { onProgress })).rejects.toThrow(/onProgress is a function; got 1/);
  });

  test('a callback that throws fails its own request only', async () => {
    const { engine } = house();
    const [bad, good] = [
      engine.generate([1], {
        onProgress: () => {
          throw new Error('mine');
        },
      }),
      engine.generate([1], { maxTokens: 3, ignoreEos: true }),
    ];
    await expect(bad).rejects.toThrow('mine');
    expect((await good).tokens).toHaveLength(3);
    await expect.poll(() => engine.stats().freePages).toBe(64);
  });

  test('dispose ends what runs, waits for the pass in flight, frees once, and refuses what comes later', async () => {
    const gate = gateway();
    let closed = 0;
    const { executable } = house({ during: () => gate.promise });
    const engine = engineOn(executable, {
      close: async () => {
        closed++;
      },
    });
    const generation = engine.generate([1]);
    while (executable.passes.length < 1) await sleep(1);
    const disposing = engine.dispose();
    await expect(generation).rejects.toMatchObject({ code: 'DISPOSED' });
    expect(executable.disposed).toBe(false);
    gate.resolve();
    await disposing;
    await engine[Symbol.asyncDispose]();
    expect([executable.disposed, closed]).toEqual([true, 1]);
    await expect(engine.generate([1])).rejects.toMatchObject({ code: 'DISPOSED' });
    await expect(engine.logits([1])).rejects.toMatchObject({ code: 'DISPOSED' });
  });
});

describe('refusals', () => {
  const { engine } = house({ contextLength: 100 });
  test.each([
    ['an empty prompt', [], {}, 'REQUEST_INVALID', /the prompt has at least one token; it is empty/],
    [
      'a prompt as long as the context',
      new Array(100).fill(1),
      {},
      'CONTEXT_OVERFLOW',
      /at most 99 tokens in a context of 100; it has 100/,
    ],
    [
      'an id out of range',
      [1, 258],
      {},
      'REQUEST_INVALID',
      /token 1 of the prompt is an integer in \[0, 258\); got 258/,
    ],
    ['an id that is none', [1, 0.5], {}, 'REQUEST_INVALID', /got 0.5/],
    ['no tokens wanted', [1], { maxTokens: 0 }, 'REQUEST_INVALID', /maxTokens is an integer in \[1, /],
    [
      'an empty stop string',
      [1],
      { stop: ['a', ''] },
      'REQUEST_INVALID',
      /stop is a string or an array of strings, none of them empty/,
    ],
    ['a hot temperature', [1], { temperature: -1 }, 'REQUEST_INVALID', /temperature is a number in \[0, 100\]; got -1/],
    ['a temperature that is no number', [1], { temperature: Number.NaN }, 'REQUEST_INVALID', /got NaN/],
    ['a temperature in words', [1], { temperature: 'warm' }, 'REQUEST_INVALID', /got "warm"/],
    ['topP 0', [1], { topP: 0 }, 'REQUEST_INVALID', /topP is a number in \(0, 1\]; got 0/],
    ['half a topK', [1], { topK: 2.5 }, 'REQUEST_INVALID', /topK is an integer/],
    [
      'a bias beyond the vocabulary',
      [1],
      { logitBias: { 300: 1 } },
      'REQUEST_INVALID',
      /a logitBias key is a token id in \[0, 258\); got 300/,
    ],
    [
      'a bias out of range',
      [1],
      { logitBias: new Map([[3, 101]]) },
      'REQUEST_INVALID',
      /logitBias\[3\] is a number in \[-100, 100\]/,
    ],
    [
      'a negative seed',
      [1],
      { seed: -1 },
      'REQUEST_INVALID',
      /seed is an integer in \[0, 2\^53\) or a bigint in \[0, 2\^64\); got -1/,
    ],
    ['a seed of 65 bits', [1], { seed: 1n << 64n }, 'REQUEST_INVALID', /got 18446744073709551616n/],
    ['too many logprobs', [1], { logprobs: 21 }, 'REQUEST_INVALID', /logprobs is an integer in \[0, 20\]/],
    ['a misspelt option', [1], { top_k: 3 }, 'REQUEST_INVALID', /generate has no option top_k; did you mean topK\?/],
    [
      'an option nobody knows',
      [1],
      { colour: 'red' },
      'REQUEST_INVALID',
      /no option colour; its options are maxTokens, /,
    ],
    ['a signal that is none', [1], { signal: 5 }, 'REQUEST_INVALID', /signal is an AbortSignal; got 5/],
    ['a prompt that is none', 5 as never, {}, 'REQUEST_INVALID', /the prompt is a text, or token ids; got 5/],
    ['options that are none', [1], null, 'REQUEST_INVALID', /one object; got null/],
  ])('%s', async (_, prompt, options, code, message) => {
    const generation = engine.generate(prompt, options as object);
    await expect(generation).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
    await expect(collect(generation)).rejects.toMatchObject({ code });
  });

  test('what can never fit the pages is refused, what fits goes on', async () => {
    const { engine } = house({ pages: 1 });
    await expect(engine.generate(new Array(70).fill(1))).rejects.toMatchObject({ code: 'CONTEXT_OVERFLOW' });
    expect((await engine.generate([1], { maxTokens: 4, ignoreEos: true })).tokens).toHaveLength(4);
  });
});

test('logits: every position, in chunks, equal to the reference', async () => {
  const { engine } = house({ maxRows: 8, maxOutputs: 5 });
  const ids = Array.from({ length: 70 }, (_, i) => (i * 37) % VOCAB);
  const neighbour = engine.generate([9], { maxTokens: 30, ignoreEos: true });
  const logits = await engine.logits(ids);
  expect(logits).toHaveLength(70 * VOCAB);
  ids.forEach((_, t) => {
    expect(logits[t * VOCAB + 3]).toBe(Math.fround(hashOf(ids.slice(0, t + 1)) / 2 ** 32));
  });
  await neighbour;
  await expect(engine.logits([])).rejects.toThrow(/ids has at least one token/);
  await expect(engine.logits([1], { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
});

test('100 generations one after the other leave every page free', async () => {
  const { engine } = house({ pages: 4 });
  for (let i = 0; i < 100; i++) await engine.generate([i], { maxTokens: 1 + (i % 70), ignoreEos: true });
  expect(engine.stats()).toMatchObject({ freePages: 4, totalPages: 4, running: 0, waiting: 0 });
});

test('an idle engine wakes up', async () => {
  const { engine } = house();
  for (let i = 0; i < 3; i++) {
    expect((await engine.generate([i], { maxTokens: 3, ignoreEos: true })).tokens).toHaveLength(3);
    await sleep(5);
  }
});

test('the event loop keeps turning while passes follow each other', async () => {
  const { engine } = house();
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const { tokens } = await engine.generate([1], { maxTokens: 1500, ignoreEos: true });
  clearInterval(timer);
  expect(tokens).toHaveLength(1500);
  expect(ticks).toBeGreaterThan(5);
});

test('tokenize and detokenize', () => {
  const { engine } = house();
  expect(engine.detokenize(engine.tokenize('héllo'))).toBe('héllo');
  expect(engine.tokenize('a', { addSpecial: true })).toEqual([257, 97]);
});
