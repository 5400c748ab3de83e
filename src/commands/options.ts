/**
 * Options that several commands share, declared once: the model, how it is loaded, how it is sampled.
 * Values are checked here only for being numbers; ranges are the engine's business and its messages.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { TandemError } from '../errors.ts';
import { type ChatOptions, defaultModelPath, type LoadOptions, type SamplingOptions } from '../index.ts';
import type { SharingWish } from '../placement/expert-sharing.ts';
import type { KvType } from '../program/program.ts';

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

/** Parses `auto`, `off` or an integer ≥ 1. */
function wish(text: string): SharingWish {
  return text === 'auto' || text === 'off' ? text : positive(text);
}

/** Parses an integer ≥ 1. */
export function positive(text: string): number {
  const value = number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('It must be a whole number, 1 or more.');
  return value;
}

/** Parses a number of threads; 0: the default. */
export function threadCount(text: string): number {
  const value = count(text);
  if (value > MOST_THREADS) throw new InvalidArgumentError(`It must be at most ${MOST_THREADS}.`);
  return value;
}

/** What native takes. */
const MOST_THREADS = 65536;

/** Parses `0,5,6`. */
export function tokenIds(text: string): number[] {
  const ids = text.split(',').map((part) => part.trim());
  if (ids.some((id) => !/^\d+$/.test(id))) throw new InvalidArgumentError('It must be token ids with commas: 0,5,6.');
  return ids.map(Number);
}

/** Milliseconds of `90`, `90s`, `5m`, `2h`; without a unit they are seconds. */
export function duration(text: string): number {
  const match = /^(\d+(?:\.\d+)?)(s|m|h)?$/.exec(text.trim());
  if (match === null) throw new InvalidArgumentError('It must be a time like 90, 90s, 5m or 2h.');
  return Math.round(Number(match[1]) * ({ s: 1000, m: 60_000, h: 3_600_000 }[match[2] ?? 's'] ?? 1000));
}

/** Sizes of memory: `8GB`, `512MB`, `1.5GiB`, or bytes. */
export function memorySize(text: string): number {
  const size = sizeOrNone(text);
  if (size === 0) throw new InvalidArgumentError('It must be a size like 8GB or 512MiB.');
  return size;
}

/** The same, or 0. */
function sizeOrNone(text: string): number {
  const match = /^([\d.]+)\s*([kmgt]?)(i?)b?$/i.exec(text.trim());
  if (!match || !Number.isFinite(Number(match[1])))
    throw new InvalidArgumentError('It must be a size like 8GB or 512MiB.');
  const power = ['', 'k', 'm', 'g', 't'].indexOf(match[2].toLowerCase());
  return Math.floor(Number(match[1]) * (match[3] ? 1024 : 1000) ** power);
}

export const MODEL =
  'GGUF file, any file of a split set, Hugging Face folder, or organization/model[:QUANT] that was pulled (default: the model that ships)';

/** Adds `--model`, for commands that read headers only or load in their own way. */
export function withModelPath(command: Command): Command {
  return command.option('-m, --model <path>', MODEL);
}

export const EXACT =
  'the same bits whatever the batch and the chunks: no fast ways (panels, bf16 tiles) for long prompts';

/** Other engines' names for `--threads`. */
const THREAD_ALIASES = ['cpu-infer', 'cpu_infer'];

/** Adds `--threads`, `--isa` and `--exact`. */
export function withCpu(command: Command): Command {
  for (const name of THREAD_ALIASES) {
    const alias = new Option(`--${name} <n>`, 'the same as --threads').argParser(threadCount);
    command.addOption(name === THREAD_ALIASES[0] ? alias : alias.hideHelp());
    command.on(`option:${name}`, (text: string) => command.setOptionValue('threads', threadCount(text)));
  }
  return command
    .option(
      '-t, --threads <n>',
      'worker threads (default: physical cores, less one where there are 8 or more)',
      threadCount,
    )
    .addOption(
      new Option('--isa <name>', 'instruction set of the kernels (default: the best there is, or TANDEM_ISA)').choices([
        'scalar',
        'avx2',
        'avx512',
        'amx',
      ]),
    )
    .option('--exact', EXACT);
}

/** Adds `--rules`. */
export function withRules(command: Command): Command {
  return command.option(
    '--rules <file>',
    'what runs where and how: a rule file, or the name of one that ships (one-gpu)',
  );
}

/** Adds `--model` and the options of loading. */
export function withModel(command: Command): Command {
  return withLoading(withModelPath(command));
}

/** Adds the options of loading. */
export function withLoading(command: Command): Command {
  const backend = new Option('--backend <name>', 'what computes; reference is plain TypeScript, slow, the definition');
  const loading = withSharing(
    withRules(withBudget(withCpu(command.addOption(backend.choices(['native', 'reference']).default('native'))))),
  )
    .option('-c, --context <tokens>', "context length (default: the model's, if memory allows)", positive)
    .option('--kv-budget <size>', 'memory for the KV cache, e.g. 2GB (default: by what is free)', memorySize)
    .addOption(
      new Option(
        '--kv-type <type>',
        'element type of the KV cache; e4m3 on GPUs alone (default: bf16; f32 on reference)',
      ).choices(['bf16', 'e4m3', 'f32']),
    )
    .addOption(
      new Option(
        '--activations <how>',
        'rounded to int8 for speed, or f32 for judging a model (default: rounded; f32 on reference)',
      ).choices(['rounded', 'f32']),
    )
    .addOption(
      new Option('--load <how>', 'weights mapped from the file or read into huge pages')
        .choices(['auto', 'mmap', 'pages'])
        .default('auto'),
    );
  return withDeferral(loading);
}

/** Adds `--defer-experts`. */
export function withDeferral(command: Command): Command {
  return command.option(
    '--defer-experts <n>',
    'so many experts of a token come one layer late: faster beside a GPU, lossy',
    count,
  );
}

/** Adds what GPUs compute of experts on the CPU. */
export function withSharing(command: Command): Command {
  return withHotExperts(command).option(
    '--stream-prefill <rows>',
    'prompts of so many rows and more send all experts through the GPU: auto, off or a number (default: auto)',
    wish,
  );
}

/** Adds `--hot-experts`. */
export function withHotExperts(command: Command): Command {
  return command.option(
    '--hot-experts <n>',
    "experts of each layer that a GPU holds beside the CPU's: auto, off or a number (default: auto, what there is room for)",
    wish,
  );
}

/** Adds `--ram` (or `--memory`) and `--vram`. */
export function withBudget(command: Command): Command {
  return command
    .option('--ram <size>', 'most memory to take, e.g. 16GB (default: what is free)', memorySize)
    .option('--vram <size>', 'most memory of the GPUs to take, 0 for none (default: what is free)', sizeOrNone)
    .addOption(new Option('--memory <size>', 'the same as --ram').argParser(memorySize).hideHelp())
    .on('option:ram', (text: string) => command.setOptionValue('memory', memorySize(text)));
}

export interface ModelFlags {
  model?: string;
  backend: 'native' | 'reference';
  threads?: number;
  isa?: string;
  exact?: boolean;
  rules?: string;
  context?: number;
  kvBudget?: number;
  kvType?: KvType;
  activations?: 'rounded' | 'f32';
  load: 'auto' | 'mmap' | 'pages';
  memory?: number;
  vram?: number;
  deferExperts?: number;
  hotExperts?: SharingWish;
  streamPrefill?: SharingWish;
}

/**
 * The model of `tandem COMMAND MODEL` or `tandem COMMAND --model MODEL` as it was written, the path of the one that ships
 * where neither is given. `localPath` makes a path of names.
 */
export function modelPath(flags: { readonly model?: string }, argument?: string): string {
  const given = argument ?? flags.model;
  if (given === '')
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'the model is a file or a folder',
      given: 'the name is empty (an unset shell variable?)',
      fix: 'leave it out for the model that ships',
    });
  if (argument !== undefined && flags.model !== undefined && argument !== flags.model)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'one model is named',
      given: `${argument} and --model ${flags.model}`,
      fix: 'leave one of them out',
    });
  return given ?? defaultModelPath();
}

export function loadOptions(flags: ModelFlags): LoadOptions {
  return {
    backend: flags.backend,
    threads: flags.threads,
    isa: flags.isa,
    exact: flags.exact,
    rules: flags.rules,
    contextLength: flags.context,
    kvBytes: flags.kvBudget,
    kvType: flags.kvType,
    activations: flags.activations,
    load: flags.load,
    memory: flags.memory,
    vram: flags.vram,
    deferExperts: flags.deferExperts,
    hotExperts: flags.hotExperts,
    streamPrefill: flags.streamPrefill,
  };
}

/** Adds the choice between a running server and this process. */
export function withServer(command: Command): Command {
  return command
    .option('--server <url>', 'ask a running server (default: the one on this machine, where it has the model)')
    .option('--no-server', 'load the model in this process');
}

/** Adds the options of sampling. */
export function withSampling(command: Command): Command {
  return command
    .option('-n, --max-tokens <n>', 'longest answer, in tokens (default: what the context allows)', positive)
    .option('--temperature <x>', "0 takes the likeliest token (default: the model's own, else 0)", number)
    .option('--top-k <n>', 'keep the n likeliest tokens; 0 keeps all', count)
    .option('--top-p <x>', 'keep the likeliest tokens that make up this probability', number)
    .option('--min-p <x>', 'drop tokens less likely than this share of the likeliest', number)
    .option('--repetition-penalty <x>', 'divide the logits of tokens seen before by this; 1 is off', number)
    .option('--presence-penalty <x>', 'subtract this once from tokens already generated', number)
    .option('--frequency-penalty <x>', 'subtract this from tokens for each time they were generated', number)
    .option('--seed <n>', 'same seed, same text (default: drawn, and told at the end)', count)
    .option(
      '--stop <text>',
      'end the answer before this text; may be given several times',
      (text, all: string[] = []) => [...all, text],
    );
}

/** Adds the options of answering a conversation. */
export function withChat(command: Command): Command {
  return command
    .option('-s, --system <text>', 'system message')
    .addOption(
      new Option('--think <how>', "ask a model that can choose to think, or not to (default: the model's)").choices([
        'on',
        'off',
      ]),
    )
    .option('--hide-thinking', 'do not print the reasoning');
}

export interface ChatFlags {
  system?: string;
  think?: 'on' | 'off';
  hideThinking?: boolean;
}

export function chatOptions(flags: ChatFlags & SamplingFlags): ChatOptions {
  return { ...samplingOptions(flags), thinking: flags.think === undefined ? undefined : flags.think === 'on' };
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

/** Characters of a prompt from stdin, far more than any context holds. */
const PROMPT_LIMIT = 1 << 22;

/**
 * The words of the command line as one text, `-` among them replaced by what stdin holds; without words all of stdin
 * where it is piped. Undefined where there is nothing.
 */
export async function readPrompt(words: readonly string[]): Promise<string | undefined> {
  const wanted = words.includes('-');
  if (words.length === 0 ? process.stdin.isTTY : !wanted) return words.length === 0 ? undefined : words.join(' ');
  const input = await readStdin();
  return words.length === 0 ? input : words.map((word) => (word === '-' ? input : word)).join(' ');
}

async function readStdin(): Promise<string> {
  let text = '';
  process.stdin.setEncoding('utf8');
  for await (const piece of process.stdin) {
    text += piece;
    if (text.length > PROMPT_LIMIT)
      throw new TandemError('REQUEST_INVALID', {
        room: 'cli',
        rule: `a prompt has at most ${PROMPT_LIMIT} characters`,
        given: 'stdin has more',
        fix: 'pipe less text into it',
      });
  }
  return text;
}
