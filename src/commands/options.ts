/**
 * Options that several commands share, declared once: the model, how it is loaded, how it is sampled.
 * Values are checked here only for being numbers; ranges are the engine's business and its messages.
 */
import { existsSync } from 'node:fs';
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { LoadOptions, SamplingOptions } from '../index.ts';

/** Parses a number, or says what was wrong with it. */
export function number(text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isFinite(value)) throw new InvalidArgumentError('It must be a number.');
  return value;
}

/** Parses an integer ≥ 0. */
export function count(text: string): number {
  const value = number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError('It must be a whole number, 0 or more.');
  return value;
}

/** Parses `0,5,6` or a path to a file with such a list. */
export function tokenIds(text: string): number[] {
  const ids = text.split(',').map((part) => part.trim());
  if (ids.some((id) => !/^\d+$/.test(id))) throw new InvalidArgumentError('It must be token ids with commas: 0,5,6.');
  return ids.map(Number);
}

/** Sizes of memory: `8GB`, `512MB`, `1.5GiB`, or bytes. */
export function memorySize(text: string): number {
  const match = /^([\d.]+)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  if (!match || !Number.isFinite(Number(match[1])))
    throw new InvalidArgumentError('It must be a size like 8GB or 512MiB.');
  const power = ['', 'k', 'm', 'g', 't'].indexOf(match[2].toLowerCase());
  return Math.floor(Number(match[1]) * (match[3] ? 1024 : 1000) ** power);
}

const MODEL = 'GGUF file, first file of a split set, or Hugging Face folder';

/** Adds `--model` and the options of loading. */
export function withModel(command: Command): Command {
  return command
    .addOption(new Option('-m, --model <path>', MODEL).default(undefined, 'the model that ships, models/jug'))
    .addOption(new Option('--backend <name>', 'what computes').choices(['native', 'reference']).default('native'))
    .option('-t, --threads <n>', 'worker threads (default: physical cores)', count)
    .addOption(
      new Option('--isa <name>', 'instruction set of the kernels (default: the best there is, or TANDEM_ISA)').choices([
        'scalar',
        'avx2',
        'avx512',
        'amx',
      ]),
    )
    .option('-c, --context <tokens>', "context length (default: the model's, if memory allows)", count)
    .option('--kv-budget <size>', 'memory for the KV cache, e.g. 2GB', memorySize)
    .addOption(
      new Option('--kv-type <type>', 'element type of the KV cache (default: bf16; f32 on reference)').choices([
        'bf16',
        'f32',
      ]),
    )
    .addOption(
      new Option(
        '--activations <how>',
        'rounded to int8 blocks before they meet quantized weights, or not (default: rounded; f32 on reference)',
      ).choices(['rounded', 'f32']),
    )
    .addOption(
      new Option('--load <how>', 'weights mapped from the file or read into huge pages')
        .choices(['auto', 'mmap', 'pages'])
        .default('auto'),
    );
}

export interface ModelFlags {
  model?: string;
  backend: 'native' | 'reference';
  threads?: number;
  isa?: string;
  context?: number;
  kvBudget?: number;
  kvType?: 'bf16' | 'f32';
  activations?: 'rounded' | 'f32';
  load: 'auto' | 'mmap' | 'pages';
}

export function loadOptions(flags: ModelFlags): LoadOptions {
  return {
    backend: flags.backend,
    threads: flags.threads,
    isa: flags.isa,
    contextLength: flags.context,
    kvBytes: flags.kvBudget,
    kvType: flags.kvType,
    activations: flags.activations,
    load: flags.load,
  };
}

/** Adds the options of sampling. */
export function withSampling(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'longest answer, in tokens (default: what the context allows)', count)
    .option('--temperature <x>', "0 takes the likeliest token (default: the model's own, else 0)", number)
    .option('--top-k <n>', 'keep the n likeliest tokens; 0 keeps all', count)
    .option('--top-p <x>', 'keep the likeliest tokens that make up this probability', number)
    .option('--min-p <x>', 'drop tokens less likely than this share of the likeliest', number)
    .option('--repetition-penalty <x>', 'divide the logits of tokens seen before by this; 1 is off', number)
    .option('--presence-penalty <x>', 'subtract this once from tokens already generated', number)
    .option('--frequency-penalty <x>', 'subtract this from tokens for each time they were generated', number)
    .option('--seed <n>', 'same seed, same text (default: drawn, and told at the end)', count)
    .option('--stop <text...>', 'end the answer before this text');
}

export interface SamplingFlags {
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  presencePenalty?: number;
  frequencyPenalty?: number;
  seed?: number;
  stop?: string[];
}

export function samplingOptions(flags: SamplingFlags): SamplingOptions & { maxTokens?: number; stop?: string[] } {
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, seed, stop } =
    flags;
  return {
    maxTokens,
    temperature,
    topK,
    topP,
    minP,
    repetitionPenalty,
    presencePenalty,
    frequencyPenalty,
    seed,
    stop,
  };
}

/** A prompt given as argument, or all of stdin for `-` or when it is piped. Undefined where neither is there. */
export async function readPrompt(words: readonly string[]): Promise<string | undefined> {
  const joined = words.join(' ');
  if (joined !== '' && joined !== '-') return joined;
  if (joined === '' && process.stdin.isTTY) return undefined;
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

/** For messages: is this the path of something? */
export function isPath(text: string): boolean {
  return existsSync(text);
}
