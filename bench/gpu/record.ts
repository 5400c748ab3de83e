/**
 * Models for a card without Node: their Programs as encoded for every split, their files, and the passes that are run. The first split of
 * a model is the CPU alone; bench/gpu/replay.cc holds the others against it.
 *
 *     tape    u32 magic, u32 version, u32 models, models
 *     model   text name, u32 files, files, u32 pages, rows, outputs, u32 passes, passes, u32 splits, splits
 *     file    u32 kind (0 bytes, 1 path below the checkout), bytes
 *     pass    u32 decode (every sequence has one row), bytes (`encodeBatch`)
 *     split   text name, f32 tolerance, u32 GPUs, bytes (`encodeProgram`)
 *
 * text and bytes: u32 length, then so many bytes, then up to a multiple of four.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, relative } from 'node:path';
import { nativeBackend } from '../../src/backend/native/backend.ts';
import type { NativeModelOptions } from '../../src/backend/native/binding.ts';
import { loadNative } from '../../src/backend/native/load.ts';
import type { Checkpoint } from '../../src/formats/checkpoint.ts';
import { openGguf } from '../../src/formats/gguf.ts';
import { writeGguf } from '../../src/formats/gguf-writer.ts';
import { memoryFolder } from '../../src/formats/memory-source.ts';
import { openCheckpoint } from '../../src/formats/open.ts';
import { buildProgram } from '../../src/models/index.ts';
import { PUBLIC_CONFIGS, type PublicModel } from '../../src/models/public-configs.ts';
import { synthesize } from '../../src/models/synthesize.ts';
import type { FolderFormat } from '../../src/models/synthesize-folder.ts';
import { lower } from '../../src/placement/lower.ts';
import { parseRules, type RuleDescription } from '../../src/placement/rules-file.ts';
import type { Batch } from '../../src/program/batch.ts';
import { encodeBatch } from '../../src/program/encode.ts';
import type { Program } from '../../src/program/program.ts';
import { batchOf } from '../../test/conformance/tiny-batches.ts';
import { TINY_VOCABULARY, type TinyOptions, tinyProgram } from '../../test/conformance/tiny-program.ts';
import { folderCheckpoint } from '../../test/golden/folders.ts';
import { MemorySink } from '../../test/golden/make-tiny.ts';

const MAGIC = 0x55504754; // 'TGPU'
const VERSION = 1;
const LIMITS = { pages: 24, maxRows: 320, maxOutputs: 320 } as const;

const SAMPLE: RuleDescription = { match: { op: 'sample' }, place: { device: 'cpu' } };
/** The first is what the others are held against. */
const SPLITS: Readonly<Record<string, { readonly gpus: number; readonly rules: readonly RuleDescription[] }>> = {
  'all CPU': { gpus: 0, rules: [{ place: { device: 'cpu' } }] },
  'all GPU': { gpus: 1, rules: [SAMPLE, { place: { device: 'cuda:0' } }] },
  hybrid: {
    gpus: 1,
    rules: [SAMPLE, { match: { op: ['experts', 'embed'] }, place: { device: 'cpu' } }, { place: { device: 'cuda:0' } }],
  },
  'two GPUs': { gpus: 2, rules: [SAMPLE, { place: { device: 'cuda:{layer * gpus / layers}' } }] },
};

class Tape {
  readonly #parts: Uint8Array[] = [];
  u32(...values: number[]): void {
    this.#parts.push(new Uint8Array(Uint32Array.from(values).buffer));
  }
  f32(value: number): void {
    this.#parts.push(new Uint8Array(Float32Array.of(value).buffer));
  }
  bytes(data: Uint8Array): void {
    this.u32(data.length);
    this.#parts.push(data, new Uint8Array((4 - (data.length % 4)) % 4));
  }
  text(text: string): void {
    this.bytes(new TextEncoder().encode(text));
  }
  whole(): Uint8Array {
    return Buffer.concat(this.#parts);
  }
}

class Recorded extends Error {}

/** What the native core would be given. */
async function optionsOf(program: Program, checkpoint: Checkpoint): Promise<NativeModelOptions> {
  let given: NativeModelOptions | undefined;
  const backend = nativeBackend({
    ...loadNative(),
    createModel: async (options) => {
      given = options;
      throw new Recorded();
    },
  });
  await backend.prepare(program, checkpoint, LIMITS).catch((error: unknown) => {
    if (!(error instanceof Recorded)) throw error;
  });
  return given!;
}

interface Model {
  readonly name: string;
  readonly program: Program;
  readonly checkpoint: Checkpoint;
  readonly batches: readonly Batch[];
  /** f32 throughout and one order of sums; else tiles of bf16 on both sides. */
  readonly exact: boolean;
}

async function writeModel(tape: Tape, model: Model, root: string): Promise<void> {
  const { name, program, checkpoint, batches, exact } = model;
  tape.text(`${name}${exact ? '' : ', fast'}`);
  const machine = { device: 'cpu', devices: ['cpu', 'cuda:0', 'cuda:1'].map((device) => ({ name: device })) } as const;
  const placed = Object.values(SPLITS).map(({ rules }) =>
    // Fast mode is for prompts: on the CPU activations stay as they are, so that both sides have one kind of number.
    lower(program, machine, { ...(exact ? { exact, activations: 'f32' } : {}), rules: parseRules(rules) }),
  );
  const given: NativeModelOptions[] = [];
  for (const each of placed) given.push(await optionsOf(each, checkpoint));
  tape.u32(given[0].files.length);
  for (const file of given[0].files) {
    const path = typeof file === 'string';
    tape.u32(path ? 1 : 0);
    if (path) tape.text(relative(root, file));
    else tape.bytes(file);
  }
  tape.u32(LIMITS.pages, LIMITS.maxRows, LIMITS.maxOutputs, batches.length);
  for (const batch of batches) {
    tape.u32(batch.sequences.every(({ rows }) => rows === 1) ? 1 : 0);
    tape.bytes(encodeBatch(batch));
  }
  tape.u32(given.length);
  Object.entries(SPLITS).forEach(([split, { gpus }], i) => {
    tape.text(split);
    tape.f32(exact ? 1e-3 : 5e-2);
    tape.u32(gpus);
    tape.bytes(given[i].program);
  });
}

const tokens = (count: number, vocabulary: number, seed: number) =>
  Array.from({ length: count }, (_, i) => (i * i * 7 + 11 * i + seed) % vocabulary);

/** A prompt over several pages, a mixed pass, and tokens that are generated by one and by two sequences. */
function passes(vocabulary: number, long: number): Batch[] {
  const pages = [5, 2, 9, 11, 7, 0];
  return [
    batchOf([{ tokens: tokens(long, vocabulary, 1), pages, outputs: 'last' }]),
    batchOf([
      { tokens: tokens(3, vocabulary, 2), firstPosition: long, pages },
      { tokens: tokens(5, vocabulary, 3), pages: [1] },
    ]),
    ...[0, 1, 2].map((i) =>
      batchOf([
        { tokens: tokens(1, vocabulary, 4 + i), firstPosition: long + 3 + i, pages },
        { tokens: tokens(1, vocabulary, 9 + i), firstPosition: 5 + i, pages: [1] },
      ]),
    ),
    batchOf([{ tokens: tokens(1, vocabulary, 7), firstPosition: long + 6, pages }]),
  ];
}

const TINY: readonly TinyOptions[] = [
  { seed: 1 },
  { seed: 2, format: 'q8_0', layers: [['mla-split', 'experts']], kvType: 'bf16' },
  { seed: 3, format: 'q4_k', layers: [['mla', 'experts'], ['gqa', 'dense']], split: true, score: 'softmax' }, // biome-ignore format: a case a line
  { seed: 4, format: 'f8_e4m3', layers: [['gqa', 'experts'], ['mla', 'dense']], kvType: 'bf16' }, // biome-ignore format: a case a line
  { seed: 5, format: 'mxfp4', layers: [['gqa', 'experts'], ['mla', 'experts']] }, // biome-ignore format: a case a line
];

/** The shapes' habits in small (test/golden/synthetic.test.ts). */
const SMALL = {
  vocab_size: 320,
  hidden_size: 256,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  intermediate_size: 256,
  moe_intermediate_size: 96,
  q_lora_rank: 256,
  n_routed_experts: 4,
  n_group: 1,
  topk_group: 1,
  num_experts: 4,
  num_experts_per_tok: 2,
  num_local_experts: 4,
  max_position_embeddings: 1024,
};
const ARCHITECTURES: readonly PublicModel[] = [
  'deepseek-v2-lite',
  'deepseek-v3',
  'kimi-k2',
  'glm-4.5-air',
  'gpt-oss-20b',
  'qwen3-30b-a3b',
  'qwen3-0.6b',
  'mixtral-8x7b',
  'llama-3.1-8b',
];
/** As they are published. */
const FOLDERS: readonly (readonly [PublicModel, FolderFormat])[] = [
  ['deepseek-v3', 'f8_e4m3'],
  ['qwen3-30b-a3b', 'f8_e4m3'],
  ['kimi-k2-thinking', 'int4_g32'],
  ['gpt-oss-20b', 'bf16'],
];

/** With prompts of so many tokens. */
async function modelOf(name: string, checkpoint: Checkpoint, prompt: number): Promise<Model> {
  const { program } = await buildProgram(checkpoint, { kvType: 'f32' });
  return { name, program, checkpoint, batches: passes(program.vocabSize, prompt), exact: true };
}

/** Writes the tape. `root`: the checkout. */
export async function record(out: string, root: string): Promise<void> {
  const tape = new Tape();
  const models: Model[] = [];
  for (const options of TINY) {
    const { program, checkpoint } = tinyProgram(options);
    const name = `tiny ${options.format ?? 'f32'}`;
    models.push({ name, program, checkpoint, batches: passes(TINY_VOCABULARY, 70), exact: true });
  }
  for (const name of ARCHITECTURES) {
    const sink = new MemorySink();
    const config = { ...PUBLIC_CONFIGS[name], ...SMALL };
    await writeGguf(sink, 'model.gguf', await synthesize(config, { name, mix: 'q4_k_m', seed: 2 }));
    const checkpoint = await openGguf(memoryFolder(sink.files), 'model.gguf');
    models.push(await modelOf(name, checkpoint, 200));
  }
  for (const [name, format] of FOLDERS) {
    const checkpoint = await folderCheckpoint(name, format);
    models.push(await modelOf(`${name} ${format}`, checkpoint, 200));
  }
  const jug = await openCheckpoint(`${root}models/jug/jug-Q8_0.gguf`);
  const exact = await modelOf('jug', jug, 290);
  models.push(exact, { ...exact, exact: false });
  tape.u32(MAGIC, VERSION, models.length);
  for (const model of models) await writeModel(tape, model, root);
  await jug.close();
  mkdirSync(dirname(out), { recursive: true });
  writeFileSync(out, tape.whole());
  console.error(`[gpu] ${out}: ${models.length} models, ${(tape.whole().length / 1e6).toFixed(1)} MB`);
}
