/** `tandem/transformers`: shapes and behaviour that code written for @huggingface/transformers rests on. */

import { readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { nativeProblem } from '../src/backend/native/load.ts';
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  BaseStreamer,
  env,
  InterruptableStoppingCriteria,
  type PreTrainedTokenizer,
  type ProgressInfo,
  pipeline,
  StoppingCriteria,
  StoppingCriteriaList,
  Tensor,
  type TextGenerationPipeline,
  TextStreamer,
} from '../src/transformers/index.ts';
import { MockHub } from './hub/mock-hub.ts';

const BACKEND = nativeProblem() ? ({ backend: 'reference' } as const) : {};
const SUM = 'What is 9 + 0?';
const CHAT = [{ role: 'user', content: SUM }];
const ANSWER = '9 + 0, so 9.\n</think>\n\n9 + 0 = 9';

let generator: TextGenerationPipeline;
let tokenizer: PreTrainedTokenizer;
beforeAll(async () => {
  generator = await pipeline('text-generation', null, { ...BACKEND, contextLength: 512 });
  tokenizer = generator.tokenizer;
});
afterAll(() => generator.dispose());
afterEach(() => vi.restoreAllMocks());

describe('pipeline', () => {
  test('a chat: the messages and the answer', async () => {
    expect(await generator(CHAT)).toEqual([{ generated_text: [...CHAT, { role: 'assistant', content: ANSWER }] }]);
  });

  test('a text: with the prompt, or without', async () => {
    const options = { max_new_tokens: 5, do_sample: false };
    const [{ generated_text: full }] = await generator(SUM, options);
    const [{ generated_text: rest }] = await generator(SUM, { ...options, return_full_text: false });
    expect(full).toBe(SUM + rest);
    expect(tokenizer.encode(rest, { add_special_tokens: false }).length).toBeLessThanOrEqual(5);
  });

  test('several texts and several chats: an array of results', async () => {
    const texts = await generator(['3 + 4 =', SUM], { max_new_tokens: 3, return_full_text: false });
    expect(texts).toEqual([[{ generated_text: expect.any(String) }], [{ generated_text: expect.any(String) }]]);
    const chats = await generator([CHAT, [{ role: 'user', content: [{ type: 'text', text: SUM }] }]]);
    expect(chats.map(([{ generated_text }]) => generated_text.at(-1)?.content)).toEqual([ANSWER, ANSWER]);
  });

  test('sampling: seeds, several answers, greedy by default', async () => {
    const options = { do_sample: true, temperature: 1.5, top_k: 0, top_p: 0.99, max_new_tokens: 12, seed: 3 };
    const first = await generator(CHAT, { ...options, num_return_sequences: 3 });
    expect(first).toHaveLength(3);
    expect(await generator(CHAT, { ...options, num_return_sequences: 3 })).toEqual(first);
    expect(new Set(first.map((one) => JSON.stringify(one))).size).toBeGreaterThan(1);
    expect(await generator(CHAT, { temperature: 100 })).toEqual(await generator(CHAT)); // as there: nobody said do_sample
  });

  test('limits, stop texts and end tokens', async () => {
    const ids = tokenizer.apply_chat_template(CHAT, {
      add_generation_prompt: true,
      return_dict: false,
      return_tensor: false,
    });
    const content = async (options: object) => {
      const [{ generated_text }] = await generator(CHAT, options);
      return generated_text.at(-1)?.content;
    };
    expect(await content({ max_length: ids.length + 3 })).toBe(await content({ max_new_tokens: 3 }));
    expect(await content({ stop_strings: ', so' })).toBe('9 + 0');
    const [plus] = tokenizer.encode(' +', { add_special_tokens: false });
    expect(await content({ eos_token_id: [plus] })).toBe('9 +');
    await expect(content({ max_length: 2 })).rejects.toThrow(/the prompt has \d+ tokens already; use max_new_tokens/);
  });

  test('a streamer gets every id, prompt first, and words as they are whole', async () => {
    const words: string[] = [];
    const ids: bigint[] = [];
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt: true,
      callback_function: (text) => words.push(text),
      token_callback_function: (tokens) => ids.push(...tokens),
    });
    const [{ generated_text }] = await generator(CHAT, { streamer });
    expect(words.join('')).toBe(generated_text.at(-1)?.content);
    expect(words.slice(0, 3)).toEqual(['9 ', '+ ', '0, ']);
    expect(tokenizer.decode(ids, { skip_special_tokens: true })).toBe(ANSWER);
    expect(Number(ids.at(-1))).toBe(tokenizer.eos_token_id);

    const all: string[] = [];
    await generator(SUM, {
      max_new_tokens: 4,
      streamer: new TextStreamer(tokenizer, { callback_function: (text) => all.push(text) }),
    });
    expect(all[0]).toBe(SUM);
  });

  test('without a callback the text goes to stdout, with a line end', async () => {
    const written: string[] = [];
    vi.spyOn(process.stdout, 'write').mockImplementation((text) => written.push(String(text)) > 0);
    await generator(CHAT, { streamer: new TextStreamer(tokenizer, { skip_prompt: true }) });
    expect(written.join('')).toBe(`${ANSWER}\n`);
  });

  test('stopping: criteria keep what there is, a signal rejects', async () => {
    const stopping_criteria = new InterruptableStoppingCriteria();
    const tokens: bigint[] = [];
    const streamer = new TextStreamer(tokenizer, {
      skip_prompt: true,
      callback_function: () => {},
      token_callback_function: (ids) => {
        tokens.push(...ids);
        if (tokens.length === 4) stopping_criteria.interrupt();
      },
    });
    const [{ generated_text }] = await generator(CHAT, { streamer, stopping_criteria });
    expect(generated_text.at(-1)?.content).toBe(tokenizer.decode(tokens));
    expect(tokens).toHaveLength(4);

    class AtSo extends StoppingCriteria {
      override _call([ids]: readonly (readonly bigint[])[]) {
        return [tokenizer.decode(ids).endsWith(' so')];
      }
    }
    const list = new StoppingCriteriaList();
    list.extend([new InterruptableStoppingCriteria()]);
    list.push(new AtSo());
    const [stopped] = await generator(CHAT, { stopping_criteria: list });
    expect(stopped.generated_text.at(-1)?.content).toBe('9 + 0, so');
    await expect(generator(CHAT, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: 'ABORTED' });
  });

  test.each<[string, () => Promise<unknown>, RegExp]>([
    [
      'another task',
      () => pipeline('text-classification' as 'text-generation'),
      /pipeline that there is is text-generation; text-classification; use @huggingface/,
    ],
    [
      'a misspelt option',
      () => generator(SUM, { max_new_token: 5 } as object),
      /a pipeline call has no option max_new_token; did you mean max_new_tokens\?/,
    ],
    ['beams', () => generator(SUM, { num_beams: 4 }), /num_beams .*; it is 4; there is no beam search/],
    [
      'greedy answers that differ',
      () => generator(SUM, { num_return_sequences: 2 }),
      /they would all be the same; add do_sample/,
    ],
    [
      'an option of nobody',
      () => pipeline('text-generation', null, { quantized: true } as object),
      /load has no option quantized/,
    ],
    ['no prompt', () => generator(7 as never), /takes a text, a chat .*; 7/],
    ['an empty list', () => generator([]), /takes a text, a chat/],
    [
      'a picture',
      () => generator([{ role: 'user', content: [{ type: 'image' }] }]),
      /messages are text; a part of type image/,
    ],
    [
      'a streamer for many',
      () => generator([SUM, SUM], { streamer: new TextStreamer(tokenizer) }),
      /a streamer takes one/,
    ],
    ['a wrong role', () => generator([{ role: 'robot', content: 'x' }]), /messages\[0\]\.role is one of system/],
  ])('%s is refused, with a word', async (_, run, message) => {
    await expect(run()).rejects.toThrow(message);
  });

  test('options of the other library that cannot matter are warned of', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const other = await pipeline('text-generation', null, {
      ...BACKEND,
      contextLength: 128,
      dtype: 'q4',
      device: 'webgpu',
    });
    expect(warned).toHaveBeenCalledWith(expect.stringMatching(/device, dtype have no effect here/), {
      code: 'TANDEM_NO_EFFECT',
    });
    await other.dispose();
  });

  test('rules reach the placement', async () => {
    await using ruled = await pipeline('text-generation', null, {
      ...BACKEND,
      contextLength: 128,
      rules: [{ match: { name: 'nowhere' }, place: { device: 'cpu' } }],
    });
    expect(ruled.model.info.warnings.join()).toMatch(/rules\[0\]: this rule matches no step/);
  });
});

describe('AutoModelForCausalLM', () => {
  test('ids in, ids out: prompt and answer, also as an object, several at once', async () => {
    await using model = await AutoModelForCausalLM.from_pretrained(null, { ...BACKEND, contextLength: 256 });
    const inputs = tokenizer.apply_chat_template(CHAT, { add_generation_prompt: true });
    const words: string[] = [];
    const streamer = new TextStreamer(tokenizer, { skip_prompt: true, callback_function: (text) => words.push(text) });
    const ids = await model.generate({ ...inputs, max_new_tokens: 64, streamer });
    const length = inputs.input_ids.dims[1];
    expect(ids.tolist()[0].slice(0, length)).toEqual(inputs.input_ids.tolist()[0]);
    expect(tokenizer.decode(ids.tolist()[0].slice(length), { skip_special_tokens: true })).toBe(ANSWER);
    expect(words.join('')).toBe(ANSWER);

    const { sequences, past_key_values } = await model.generate({
      ...inputs,
      past_key_values: null,
      return_dict_in_generate: true,
    });
    expect([sequences.tolist(), past_key_values]).toEqual([ids.tolist(), null]);
    const sampled = { do_sample: true, temperature: 2, seed: 1, num_return_sequences: 3, max_new_tokens: 40 };
    const several = await model.generate({ ...inputs, ...sampled });
    expect(several.dims[0]).toBe(3);
    expect(several.tolist().every((row) => row.length === several.dims[1])).toBe(true);

    // Several prompts of one tensor: what fills a row is no part of its prompt.
    const texts = ['3 + 4 =', 'How many r are in strawberry?'];
    const greedy = { max_new_tokens: 8, do_sample: false };
    const alone = await Promise.all(texts.map(async (text) => (await model.generate({ ...tokenizer(text), ...greedy })).tolist()[0])); // biome-ignore format: one line
    for (const side of ['left', 'right'] as const) {
      tokenizer.padding_side = side;
      const batch = tokenizer(texts, { padding: true });
      const width = batch.input_ids.dims[1];
      const together = (await model.generate({ ...batch, ...greedy })).tolist();
      texts.forEach((text, n) => {
        const answer = alone[n].slice(tokenizer.encode(text).length);
        expect(together[n].slice(0, width)).toEqual(batch.input_ids.tolist()[n]);
        expect(together[n].slice(width, width + answer.length)).toEqual(answer);
      });
    }
    await expect(model.generate({ ...tokenizer(texts, { padding: true }), streamer })).rejects.toThrow(
      /a streamer takes one prompt; 2 rows/,
    );
    const filled = await model.generate({ ...inputs, ...sampled, pad_token_id: 5 });
    expect(filled.tolist().flat()).toContain(5n);

    const refused = (given: object) => expect(model.generate(given)).rejects;
    await refused({ max_new_tokens: 3 }).toThrow(/generate takes the ids of prompts, .*; no input_ids/);
    await refused({ input_ids: new Tensor(new BigInt64Array(2), [2]) }).toThrow(/input_ids of \[2\]/);
    const attention_mask = Tensor.of([[0, 0]]);
    await refused({ input_ids: Tensor.of([[1, 2]]), attention_mask }).toThrow(/row 0 has no token that counts/);
    await refused({ input_ids: Tensor.of([[1]]), attention_mask }).toThrow(/attention_mask of \[1, 2\] for \[1, 1\]/);
    await expect(model.generate({ ...inputs, num_beam: 2 } as object)).rejects.toThrow(/did you mean num_beams\?/);
  });
});

describe('AutoTokenizer', () => {
  test('calls, encodes, decodes, as one round', async () => {
    const auto = await AutoTokenizer.from_pretrained();
    const ids = auto.encode(SUM);
    const { input_ids, attention_mask } = auto(SUM);
    expect(input_ids).toBeInstanceOf(Tensor);
    expect([input_ids.dims, input_ids.type, input_ids.size]).toEqual([[1, ids.length], 'int64', ids.length]);
    expect(input_ids.tolist()).toEqual([ids.map(BigInt)]);
    expect([...attention_mask.data]).toEqual(ids.map(() => 1n));
    expect(auto(SUM, { return_tensor: false })).toEqual({ input_ids: ids, attention_mask: ids.map(() => 1) });
    expect(auto.decode(input_ids, { skip_special_tokens: true })).toBe(SUM);
    expect(auto.batch_decode(input_ids, { skip_special_tokens: true })).toEqual([SUM]);
    expect(auto.tokenize(SUM).join('')).toBe(SUM);
    expect(auto.decode([auto.eos_token_id!])).toBe(auto.eos_token);
    expect(() => auto([])).toThrow(/takes a text, or a list of texts; a list of other things, or an empty one/);
    expect(() => auto([7] as never)).toThrow(/takes a text, or a list of texts; 7/);
    expect(() => auto(SUM, { text_pair: SUM } as object)).toThrow(/takes a text/);
  });

  test('several texts: padded on either side, truncated, or refused where they make no tensor', async () => {
    const auto = await AutoTokenizer.from_pretrained();
    const texts = ['3 + 4 =', 'How many r are in strawberry?'];
    const [short, long] = texts.map((text) => auto.encode(text));
    const pad = auto.pad_token_id!;
    const more = Array(long.length - short.length).fill(pad);
    const rows = (encoding: { input_ids: Tensor }) => encoding.input_ids.tolist().map((row) => row.map(Number));
    expect(auto.decode([pad])).toBe(auto.pad_token);
    expect(() => auto(texts)).toThrow(/rows of a tensor are of one length; .* add padding: true, truncation: true/);
    const padded = auto(texts, { padding: true });
    expect([auto.padding_side, rows(padded)]).toEqual(['right', [[...short, ...more], long]]);
    expect(padded.attention_mask.tolist()[0]).toEqual([...short.map(() => 1n), ...more.map(() => 0n)]);
    auto.padding_side = 'left';
    expect(rows(auto(texts, { padding: true }))).toEqual([[...more, ...short], long]);
    expect(rows(auto(texts, { truncation: true, max_length: 3 }))).toEqual([short.slice(0, 3), long.slice(0, 3)]);
    expect(rows(auto(texts, { max_length: 3 }))).toEqual([short.slice(0, 3), long.slice(0, 3)]);
    expect(rows(auto(texts, { padding: true, max_length: 3 }))).toEqual([[...more, ...short], long]); // as there: without a word on truncation
    expect(rows(auto(texts, { padding: true, truncation: true, max_length: 3 }))[1]).toEqual(long.slice(0, 3));
    expect(auto(SUM, { padding: 'max_length', max_length: 40 }).input_ids.dims).toEqual([1, 40]);
    auto.model_max_length = 4;
    expect(auto(texts, { padding: 'max_length', truncation: true }).input_ids.dims).toEqual([2, 4]);
    auto.model_max_length = Infinity;
    expect(auto(texts, { return_tensor: false })).toEqual({
      input_ids: [short, long],
      attention_mask: [short.map(() => 1), long.map(() => 1)],
    });
    expect(
      auto(SUM, { return_token_type_ids: true })
        .token_type_ids!.tolist()[0]
        .every((id) => id === 0n),
    ).toBe(true);
    expect(() => auto(SUM, { padding: 'max_length' })).toThrow(/neither max_length nor model_max_length is known/);
    expect(() => auto(SUM, { max_length: 0 })).toThrow(/max_length is a whole number/);
    expect(() => auto(SUM, { padding: 'longest' as 'max_length' })).toThrow(/padding is true, false or 'max_length'/);
    auto.pad_token_id = undefined;
    expect(() => auto(texts, { padding: true })).toThrow(/set tokenizer\.pad_token_id/);
  });

  test('chat templates: text, ids, tensors', () => {
    const text = tokenizer.apply_chat_template(CHAT, { tokenize: false, add_generation_prompt: true });
    expect(text).toContain(SUM);
    const ids = tokenizer.apply_chat_template(CHAT, {
      add_generation_prompt: true,
      return_dict: false,
      return_tensor: false,
    });
    expect(tokenizer.decode(ids)).toBe(text);
    expect(tokenizer.apply_chat_template(CHAT, { add_generation_prompt: true }).input_ids.tolist()).toEqual([
      ids.map(BigInt),
    ]);
    expect(tokenizer.apply_chat_template(CHAT, { tokenize: false }).length).toBeLessThan(text.length);
    const tools = [{ type: 'function' as const, function: { name: 'get_weather' } }];
    expect(tokenizer.apply_chat_template(CHAT, { tokenize: false, tools })).toContain('get_weather');
    const cut = tokenizer.apply_chat_template(CHAT, { add_generation_prompt: true, max_length: 3, truncation: true });
    expect(cut.input_ids.tolist()).toEqual([ids.slice(0, 3).map(BigInt)]);
    const own = {
      tokenize: false,
      chat_template: '{{ greeting }} {{ messages[0].content }}',
      greeting: 'Dear,',
    } as const;
    expect(tokenizer.apply_chat_template(CHAT, own)).toBe(`Dear, ${SUM}`);
    expect(() => tokenizer.apply_chat_template(CHAT, { ...own, greetings: 'x' })).toThrow(
      /apply_chat_template has no option greetings/,
    );
    expect(() => tokenizer.apply_chat_template(CHAT, { add_generation_promt: true })).toThrow(
      /did you mean add_generation_prompt\?/,
    );
  });
});

test('a streamer of ones own', async () => {
  const seen: bigint[][] = [];
  class Ids extends BaseStreamer {
    override put(value: readonly (readonly bigint[])[]) {
      seen.push([...value[0]]);
    }
    override end() {
      seen.push([]);
    }
  }
  await generator(SUM, { max_new_tokens: 2, streamer: new Ids() });
  expect(seen.map((ids) => ids.length)).toEqual([tokenizer.encode(SUM).length, 1, 1, 0]);
  class Half extends BaseStreamer {}
  await expect(generator(SUM, { max_new_tokens: 2, streamer: new Half() })).rejects.toThrow('a streamer overrides put');
});

test('a streamer holds code points back until they are whole', () => {
  const words: string[] = [];
  const bytes = new TextEncoder().encode('a é 你好 b\n🙂!');
  const decode = (ids: readonly bigint[]) => new TextDecoder().decode(Uint8Array.from(ids, Number));
  const streamer = new TextStreamer({ decode }, { callback_function: (text) => words.push(text) });
  streamer.next_tokens_are_prompt = false;
  for (const byte of bytes) streamer.put([[BigInt(byte)]]);
  streamer.end();
  expect(words.join('')).toBe('a é 你好 b\n🙂!');
  expect(words).toEqual(['a ', 'é ', '你', '好', ' ', 'b\n', '🙂!']);
  expect(() => streamer.put([[1n], [2n]])).toThrow(/takes one sequence/);
});

describe('a model of a hub', () => {
  let hub: MockHub;
  let root: string;
  beforeAll(async () => {
    hub = await MockHub.start();
    hub.add('org/jug', { 'jug-Q8_0.gguf': readFileSync(new URL('../models/jug/jug-Q8_0.gguf', import.meta.url)) });
    root = await mkdtemp(join(tmpdir(), 'tandem-transformers-'));
  });
  afterAll(async () => {
    await hub.close();
    await rm(root, { recursive: true });
    Object.assign(env, {
      allowRemoteModels: true,
      allowLocalModels: true,
      localModelPath: null,
      cacheDir: null,
      remoteHost: null,
    });
  });

  test('is downloaded once, with progress; not where that is forbidden', async () => {
    Object.assign(env, { remoteHost: hub.endpoint, cacheDir: root, allowRemoteModels: false });
    env.backends.onnx.wasm.numThreads = 1; // as code written for browsers begins
    await expect(AutoTokenizer.from_pretrained('org/jug')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    env.allowRemoteModels = true;
    await expect(AutoTokenizer.from_pretrained('org/jug', { local_files_only: true })).rejects.toThrow(
      /not in the cache/,
    );
    const told: ProgressInfo[] = [];
    const auto = await AutoTokenizer.from_pretrained('org/jug', { progress_callback: (info) => told.push(info) });
    expect(auto.encode(SUM)).toEqual(tokenizer.encode(SUM));
    expect([told[0].status, told[1].status, told.at(-1)?.status]).toEqual(['initiate', 'download', 'done']);
    expect(told.at(-2)).toMatchObject({ status: 'progress', name: 'org/jug', progress: 100 });
    hub.reset();
    await AutoTokenizer.from_pretrained('org/jug');
    expect(hub.log).toEqual([]);
    await expect(AutoTokenizer.from_pretrained('org/jug', { revision: 'v9' })).rejects.toThrow(
      /no branch, tag or commit v9/,
    );
  });

  test('local folders: looked into first, or not at all', async () => {
    const path = fileURLToPath(new URL('../models/jug', import.meta.url));
    Object.assign(env, { allowRemoteModels: false, cacheDir: join(root, 'empty'), localModelPath: dirname(path) });
    expect((await AutoTokenizer.from_pretrained('jug/jug-Q8_0.gguf')).encode(SUM)).toEqual(tokenizer.encode(SUM));
    env.allowLocalModels = false;
    await expect(AutoTokenizer.from_pretrained(join(path, 'jug-Q8_0.gguf'))).rejects.toThrow(
      /with env\.allowLocalModels = false a model is organization\/model/,
    );
    await expect(AutoTokenizer.from_pretrained('org/jug')).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
  });
});
