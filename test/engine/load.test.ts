/** `load` end to end on the model that ships, with the backend that needs no compiler. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { defaultModelPath, type Engine, type LoadOptions, load } from '../../src/index.ts';

const reference = { backend: 'reference' } as const;

describe('a loaded engine', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await load(undefined, { ...reference, contextLength: 192 });
  });
  afterAll(() => engine.dispose());

  test('says what it is', () => {
    expect(engine.info).toMatchObject({
      model: expect.stringContaining('jug-Q8_0.gguf'),
      architecture: 'deepseek-v3',
      backend: 'reference',
      contextLength: 192,
      contextLimit: 'option',
      kvType: 'f32',
    });
    expect(engine.info.kv).toBe(8 * 3 * 64 * 5 * 160 * 4);
  });

  test('imitates an f16 cache where asked: close, not equal; native does not', async () => {
    await using imitating = await load(undefined, { ...reference, contextLength: 192, imitateF16Cache: true });
    const [plain, rounded] = [await engine.logits([0, 5, 6, 7]), await imitating.logits([0, 5, 6, 7])];
    expect(rounded).not.toEqual(plain);
    rounded.forEach((logit, i) => {
      expect(Math.abs(logit - plain[i])).toBeLessThan(0.05);
    });
    await expect(load(undefined, { imitateF16Cache: true })).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
  });

  test('answers a sum', async () => {
    const result = await engine.chat([{ role: 'user', content: 'What is 9 + 0?' }]);
    expect(result).toMatchObject({ reasoning: '9 + 0, so 9.', text: '9 + 0 = 9', finishReason: 'stop' });
  });

  test('an abort in the middle of the prompt ends the pass early and gives the pages back', async () => {
    const controller = new AbortController();
    const long = engine.generate(new Array(150).fill(60), { signal: controller.signal });
    setTimeout(() => controller.abort(), 100);
    await expect(long).rejects.toMatchObject({ code: 'ABORTED' });
    expect(long.partial!.tokens).toEqual([]);
    const after = await engine.generate([60], { maxTokens: 1 });
    expect(after.tokens).toHaveLength(1);
    expect(engine.stats()).toMatchObject({ freePages: engine.stats().totalPages, running: 0 });
  });

  test('a prompt longer than the context says which limit it met', async () => {
    await expect(engine.generate(new Array(192).fill(60))).rejects.toThrow(
      /\[engine\] the prompt has at most 191 tokens in a context of 192; it has 192; shorten it, or load with a larger contextLength/,
    );
  });
});

describe('refusals', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tandem-load-'));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test.each<[string, LoadOptions, string, RegExp]>([
    ['a context the model does not have', { contextLength: 5000 }, 'REQUEST_INVALID', /1 to 2048 tokens; 5000/],
    ['a KV budget of nothing', { kvBytes: 100 }, 'PLACEMENT_IMPOSSIBLE', /KV budget of 100 B/],
    [
      'a KV budget too small for the context asked',
      { kvBytes: 200_000, contextLength: 2048 },
      'PLACEMENT_IMPOSSIBLE',
      /2048 tokens/,
    ],
    ['one row a pass', { maxBatchRows: 1 }, 'REQUEST_INVALID', /maxBatchRows is an integer in \[2, 65536\]; got 1/],
    [
      'a backend of another kind',
      { backend: 'gpu' as never },
      'REQUEST_INVALID',
      /backend is native or reference; got "gpu"/,
    ],
    ['a cache of another type', { kvType: 'q8' as never }, 'REQUEST_INVALID', /kvType is bf16, e4m3 or f32/],
    ['a misspelt option', { contextlength: 5 } as never, 'REQUEST_INVALID', /did you mean contextLength\?/],
    ['a signal that fired', { signal: AbortSignal.abort() }, 'ABORTED', /loading was cancelled/],
  ])('%s', async (_, options, code, message) => {
    const loading = load(undefined, { ...reference, ...options });
    await expect(loading).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
  });

  test('a path that leads nowhere, an empty one, and a file that is no model', async () => {
    await expect(load(join(folder, 'none.gguf'), reference)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    await expect(load('', reference)).rejects.toMatchObject({ code: 'REQUEST_INVALID' });
    await writeFile(join(folder, 'poem.gguf'), 'Roses are red, and this is no model.');
    await expect(load(join(folder, 'poem.gguf'), reference)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
  });

  test('a folder opens too: with one GGUF file, and in the layout of Hugging Face', async () => {
    for (const path of [dirname(defaultModelPath()), join(dirname(defaultModelPath()), 'hf')]) {
      await using engine = await load(path, reference);
      expect(engine.info.architecture).toBe('deepseek-v3');
    }
  });
});
