/**
 * Everything a user can get wrong meets one clear error: `[room] rule; what was given; what to do`, at once, and without
 * taking memory for what a broken file claims.
 */
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { nativeProblem } from '../../src/backend/native/load.ts';
import { type Engine, type ErrorCode, type LoadOptions, load, TandemError } from '../../src/index.ts';
import { dataStart, findTensor, patched, tinyGguf } from './broken-gguf.ts';

const JUG = fileURLToPath(new URL('../../models/jug/hf/', import.meta.url));
const BACKENDS: LoadOptions['backend'][] = nativeProblem() ? ['reference'] : ['reference', 'native'];

let root: string;
let whole: Uint8Array;
let peakBefore: number;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'tandem-bad-'));
  whole = (await tinyGguf())['tiny.gguf'];
  await (await load(await place('warm.gguf', whole), { backend: BACKENDS.at(-1) })).dispose();
  peakBefore = process.resourceUsage().maxRSS;
});
afterAll(() => rm(root, { recursive: true }));

async function place(name: string, bytes: Uint8Array | string): Promise<string> {
  const path = join(root, name);
  await writeFile(path, bytes);
  return path;
}

async function useOnce(engine: Engine): Promise<void> {
  try {
    await engine.generate([5], { maxTokens: 1 });
  } finally {
    await engine.dispose();
  }
}

/** The error of loading `path`; its message has the house's form on one line. */
async function refusal(path: string, options: LoadOptions = {}): Promise<TandemError> {
  return formed(
    await load(path, { backend: 'reference', ...options }).then(
      async (engine) => void (await engine.dispose()),
      (error: unknown) => error,
    ),
  );
}

function formed(error: unknown): TandemError {
  expect(error).toBeInstanceOf(TandemError);
  expect((error as Error).message).toMatch(/^\[\w+\] [^\n;]+; [^\n]+$/);
  return error as TandemError;
}

interface Broken {
  readonly what: string;
  readonly make: () => Uint8Array | string | Promise<Uint8Array>;
  readonly code: ErrorCode;
  readonly says: RegExp;
}

const DAMAGED: Broken[] = [
  {
    what: 'a file cut short in its data',
    make: () => whole.slice(0, whole.length - 5000),
    code: 'FORMAT_INVALID',
    says: /^\[formats\] .* tensor [\w.]+ .*\d+ to \d+/,
  },
  {
    what: 'a file cut short in its header',
    make: () => whole.slice(0, 4000),
    code: 'FORMAT_INVALID',
    says: /^\[formats\] .*; .*cut-short-in-its-header.*\d/,
  },
  { what: 'an empty file', make: () => '', code: 'FORMAT_INVALID', says: /^\[formats\] .*\b0\b/ },
  {
    what: 'a wrong magic (a PNG)',
    make: () => Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10, ...new Array(64).fill(0)),
    code: 'FORMAT_INVALID',
    says: /47 47 55 46; .* 89 50 4e 47;/,
  },
  { what: 'a JSON file', make: () => '{"model_type": "llama"}', code: 'FORMAT_INVALID', says: /7b 22/ },
  {
    what: 'a version of the future',
    make: () => patched(whole, (view) => view.setUint32(4, 9, true)),
    code: 'FORMAT_UNSUPPORTED',
    says: /2 and 3.* 9;/,
  },
  {
    what: '2^60 tensors',
    make: () => patched(whole, (view) => view.setBigUint64(8, 2n ** 60n, true)),
    code: 'FORMAT_INVALID',
    says: /1152921504606846976|claims/,
  },
  {
    what: '2^60 metadata keys',
    make: () => patched(whole, (view) => view.setBigUint64(16, 2n ** 60n, true)),
    code: 'FORMAT_INVALID',
    says: /1152921504606846976|claims/,
  },
  {
    what: 'a dimension of 2^60',
    make: () =>
      patched(whole, (view) => view.setBigUint64(findTensor(whole, 'token_embd.weight').dimensions, 2n ** 60n, true)),
    code: 'FORMAT_INVALID',
    says: /token_embd\.weight/,
  },
  {
    what: '2^32 - 1 dimensions',
    make: () =>
      patched(whole, (view) =>
        view.setUint32(findTensor(whole, 'token_embd.weight').dimensions - 4, 2 ** 32 - 1, true),
      ),
    code: 'FORMAT_INVALID',
    says: / 4 .*token_embd\.weight" .*4294967295/,
  },
  {
    what: 'an unknown quant type',
    make: () => patched(whole, (view) => view.setUint32(findTensor(whole, 'token_embd.weight').type, 199, true)),
    code: 'FORMAT_UNSUPPORTED',
    says: /; .*token_embd\.weight" .*199; /,
  },
  {
    what: 'a tensor past the end',
    make: () =>
      patched(whole, (view) => view.setBigUint64(findTensor(whole, 'token_embd.weight').offset, 2n ** 40n, true)),
    code: 'FORMAT_INVALID',
    says: /token_embd\.weight .*10995\d+/,
  },
  {
    what: 'a misaligned tensor',
    make: () => patched(whole, (view) => view.setBigUint64(findTensor(whole, 'blk.0.attn_q.weight').offset, 8n, true)),
    code: 'FORMAT_INVALID',
    says: / 32; .*attn_q\.weight" .*8/,
  },
  {
    what: 'overlapping tensors',
    make: () =>
      patched(whole, (view) => {
        const offset = view.getBigUint64(findTensor(whole, 'blk.0.attn_q.weight').offset, true);
        view.setBigUint64(findTensor(whole, 'blk.0.attn_k.weight').offset, offset + 32n, true);
      }),
    code: 'FORMAT_INVALID',
    says: /; .*attn_[qk]\.weight .* \d+, blk\.0\.attn_[qk]\.weight .* \d+; /,
  },
];

describe('a damaged file', () => {
  test.each(DAMAGED)('$what', async ({ what, make, code, says }) => {
    const error = await refusal(await place(`${what.replaceAll(/\W/g, '-')}.gguf`, await make()));
    expect(error.code).toBe(code);
    expect(error.message).toMatch(says);
  });

  test.each(BACKENDS)('NaN weights (%s)', async (backend) => {
    const start = await dataStart(whole, 'blk.0.attn_q.weight');
    const path = await place(
      'nan.gguf',
      patched(whole, (view) => view.setFloat32(start + 400, Number.NaN, true)),
    );
    // The reference reads a weight when a step first needs it.
    const error = formed(
      await load(path, { backend })
        .then(useOnce)
        .catch((error: unknown) => error),
    );
    expect(error.code).toBe('MODEL_INVALID');
    expect(error.message).toMatch(/blk\.0\.attn_q\.weight/);
  });

  test('a missing shard, and one that is a folder', async () => {
    const shards = Object.entries(await tinyGguf(60_000));
    expect(shards.length).toBeGreaterThan(1);
    await mkdir(join(root, 'split'));
    for (const [name, bytes] of shards.slice(0, -1)) await place(join('split', name), bytes);
    const [lost] = shards[shards.length - 1];
    const first = join(root, 'split', shards[0][0]);
    const missing = await refusal(first);
    expect(missing.code).toBe('FILE_NOT_FOUND');
    expect(missing.message).toContain(lost);
    await mkdir(join(root, 'split', lost));
    expect((await refusal(first)).message).toContain(lost);
  });

  test('no gigabyte was taken for any of them', () => {
    expect(process.resourceUsage().maxRSS - peakBefore).toBeLessThan(200_000); // kB
  });
});

describe('what is no model', () => {
  test.each([
    ['nothing there', () => join(root, 'nope.gguf'), 'FILE_NOT_FOUND', /nope\.gguf/],
    [
      'an empty folder',
      () => mkdir(join(root, 'x.gguf')).then(() => join(root, 'x.gguf')),
      'FILE_NOT_FOUND',
      /x\.gguf/,
    ],
    ['a device', () => '/dev/zero', 'FILE_IO', /\/dev\/zero/],
    ['one file of a Hugging Face model', () => join(JUG, 'config.json'), 'FORMAT_INVALID', /config\.json.*; .*jug/],
    ['the empty name', () => '', 'REQUEST_INVALID', /^\[engine\] /],
  ])('%s', async (_, path, code, says) => {
    const error = await refusal(await path());
    expect(error.code).toBe(code);
    expect(error.message).toMatch(says);
  });
});

test.skipIf(process.platform === 'win32')('a pipe without a writer is not waited for', async () => {
  const path = join(root, 'pipe.gguf');
  execFileSync('mkfifo', [path]);
  expect((await refusal(path)).message).toContain('pipe.gguf');
});

describe('a Hugging Face folder', () => {
  /** The model that ships with some of its files replaced, or left out. */
  async function folder(name: string, files: Readonly<Record<string, string | undefined>>): Promise<string> {
    const path = join(root, name);
    await mkdir(path);
    for (const file of ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'generation_config.json'])
      if (!(file in files)) await copyFile(join(JUG, file), join(path, file));
    await symlink(join(JUG, 'model.safetensors'), join(path, 'model.safetensors'));
    for (const [file, text] of Object.entries(files)) if (text !== undefined) await writeFile(join(path, file), text);
    return path;
  }
  const changed = async (file: string, change: object) =>
    JSON.stringify({ ...JSON.parse(await readFile(join(JUG, file), 'utf8')), ...change });

  test.each<[string, string | object, ErrorCode, RegExp]>([
    ['a list', '[1, 2]', 'FORMAT_INVALID', /config\.json/],
    ['no JSON', '{"model_type": ', 'FORMAT_INVALID', /config\.json/],
    ['layers as text', { num_hidden_layers: 'five' }, 'MODEL_INVALID', /num_hidden_layers .*"five"/],
    ['2^60 layers', { num_hidden_layers: 2 ** 60 }, 'MODEL_INVALID', /num_hidden_layers/],
    ['2^40 experts', { n_routed_experts: 2 ** 40 }, 'MODEL_INVALID', /n_routed_experts/],
    ['an object as size', { hidden_size: {} }, 'MODEL_INVALID', /hidden_size/],
    ['another width', { hidden_size: 512 }, 'MODEL_INVALID', /512/],
    ['an unknown architecture', { model_type: 'mamba' }, 'MODEL_UNSUPPORTED', /deepseek_v3.*mamba/],
    ['no architecture', { model_type: undefined }, 'MODEL_INVALID', /model_type/],
  ])('config.json: %s', async (name, change, code, says) => {
    const text = typeof change === 'string' ? change : await changed('config.json', change);
    const error = await refusal(await folder(`config ${name}`, { 'config.json': text }));
    expect([error.code, error.message]).toEqual([code, expect.stringMatching(says)]);
  });

  test.each<[string, string | undefined, RegExp]>([
    ['missing', undefined, /tokenizer\.json or tiktoken\.model/],
    ['no JSON', '{', /tokenizer\.json/],
    ['empty', '{}', /tokenizer/],
    ['words as numbers', '{"model": {"type": "BPE", "vocab": {"a": "x"}, "merges": [1, 2]}}', /token/],
  ])('tokenizer.json: %s', async (name, text, says) => {
    const error = await refusal(await folder(`tokenizer ${name}`, { 'tokenizer.json': text }));
    expect(['TOKENIZER_INVALID', 'FORMAT_INVALID']).toContain(error.code);
    expect(error.message).toMatch(says);
  });

  test('a broken chat template breaks chat alone', async () => {
    const path = await folder('template', {
      'tokenizer_config.json': await changed('tokenizer_config.json', { chat_template: '{% for m in messages %}{{ m' }),
    });
    await using engine = await load(path, { backend: BACKENDS.at(-1), contextLength: 64 });
    const error = formed(await engine.chat([{ role: 'user', content: 'hi' }]).then(String, (error: unknown) => error));
    expect(error.code).toBe('TEMPLATE_INVALID');
    expect((await engine.generate('What', { maxTokens: 1 })).tokens).toHaveLength(1);
  });
});

describe('options out of range', () => {
  test.each<[object, RegExp]>([
    [{ threads: -1 }, /threads is an integer in \[0, 65536\]; got -1/],
    [{ threads: Number.NaN }, /threads is an integer .* got NaN/],
    [{ threads: 1.5 }, /threads is an integer .* got 1.5/],
    [{ threads: '2' }, /threads is an integer .* got "2"/],
    [{ isa: 'sse' }, /isa is one of scalar, avx2, avx512, amx; got "sse"/],
    [{ load: 'disk' }, /load is auto, mmap or pages; got "disk"/],
    [{ backend: 'cuda' }, /backend is native or reference; got "cuda"/],
    [{ kvType: 'q8_0' }, /kvType is bf16, e4m3 or f32; got "q8_0"/],
    [{ kvBytes: 1000 }, /one sequence of 512 tokens fits the memory; a KV budget of 1000 B: .*; raise the KV budget/],
    [{ kvBytes: Number.NaN }, /kvBytes is a number .* got NaN/],
    [{ contextLength: 0 }, /a context of 1 to 512 tokens; 0 were asked for/],
    [{ contextLength: 2 ** 60 }, /a context of 1 to 512 tokens/],
    [{ maxBatchRows: 1e9 }, /maxBatchRows is an integer in \[2, 65536\]/],
    [{ onProgress: 5 }, /onProgress is a function; got 5/],
    [{ signal: 5 }, /signal is an AbortSignal; got 5/],
    [{ contextLenght: 5 }, /no option contextLenght; did you mean contextLength\?/],
  ])('load %o', async (options, says) => {
    expect((await refusal(join(root, 'warm.gguf'), options)).message).toMatch(says);
  });

  test('requests: each names its field, and the engine goes on', async () => {
    await using engine = await load(join(root, 'warm.gguf'), { backend: BACKENDS.at(-1), contextLength: 64 });
    const wrong: [number[] | string, object, RegExp][] = [
      ['', {}, /prompt has at least one token; it is empty; give some text/],
      [[], {}, /prompt has at least one token/],
      [
        new Array(64).fill(5),
        {},
        /prompt has at most 63 tokens in a context of 64; it has 64; shorten it, or load with/,
      ],
      [[1, 272], {}, /token 1 of the prompt is an integer in \[0, 272\); got 272/],
      [[-1], {}, /token 0 of the prompt .* got -1/],
      [[5], { maxTokens: 0 }, /maxTokens is an integer in \[1, .* got 0/],
      [[5], { temperature: -1 }, /temperature is a number in \[0, 100\]; got -1/],
      [[5], { temperature: Number.NaN }, /temperature is .* got NaN/],
      [[5], { topP: 2 }, /topP is a number in \(0, 1\]; got 2/],
      [[5], { topK: 1.5 }, /topK is an integer/],
      [[5], { seed: -1 }, /seed/],
      [[5], { tempratur: 1 }, /no option tempratur; did you mean temperature\?/],
    ];
    for (const [prompt, options, says] of wrong) {
      const error = formed(await engine.generate(prompt, options).then(String, (error: unknown) => error));
      expect(error.message).toMatch(says);
    }
    expect(formed(await engine.logits([272]).then(String, (error: unknown) => error)).message).toMatch(
      /token 0 of ids/,
    );
    expect((await engine.generate([5], { maxTokens: 1e15, ignoreEos: true })).tokens).toHaveLength(63);
  });
});
