/**
 * Flags of llama.cpp on `run`, `chat` and `serve`: words that are Tandem's own under another name, and the placement of
 * layers, experts and tensors on GPUs, which becomes rules. What cannot have an effect says so.
 */
import { readFile } from 'node:fs/promises';
import { type Command, Option } from 'commander';
import { readRules } from '../engine/rules.ts';
import { TandemError } from '../errors.ts';
import { fileError } from '../formats/file-source.ts';
import { openCheckpoint } from '../formats/open.ts';
import { buildProgram } from '../models/index.ts';
import { deviceNames } from '../placement/lower.ts';
import { nativeMachine } from '../placement/machine.ts';
import type { Rule } from '../placement/rule.ts';
import type { Program } from '../program/program.ts';
import { count, positive } from './options.ts';
import { paint } from './terminal.ts';

const COMMANDS = ['run', 'chat', 'serve'];

/** Word → what it is here. Several letters behind one dash are flags of one letter to a parser, so they go first. */
const WORDS: Readonly<Record<string, string>> = {
  '-ngl': '--n-gpu-layers',
  '--gpu-layers': '--n-gpu-layers',
  '-ot': '--override-tensor',
  '-cmoe': '--cpu-moe',
  '-ncmoe': '--n-cpu-moe',
  '-ub': '--ubatch-size',
  '-hf': '--model',
  '-hfr': '--model',
  '--hf-repo': '--model',
  '-sys': '--system',
  '--system-prompt': '--system',
  '--ctx-size': '--context',
  '--predict': '--max-tokens',
  '--n-predict': '--max-tokens',
  '--temp': '--temperature',
  '--repeat-penalty': '--repetition-penalty',
  '-ctk': '--kv-type',
  '--cache-type-k': '--kv-type',
  '-np': '--parallel',
};

/** Without a value. */
const SWITCHES: Readonly<Record<string, readonly string[]>> = {
  '--no-mmap': ['--load', 'pages'],
  '--mmap': ['--load', 'mmap'],
  '-fa': ['--flash-attn'],
  ...nothing('-cnv --conversation -no-cnv --no-conversation -st --single-turn --jinja --mlock --warmup --no-warmup'),
  ...nothing('-cb --cont-batching --no-context-shift --metrics --slots --no-display-prompt -co --color'),
};

/** With a value that says nothing here: threads read prompts and answers alike, memory is laid out by itself. */
const VALUED = ['-tb', '--threads-batch', '--numa', '-ctv', '--cache-type-v', '--poll', '--prio'];

/** What `serve` calls otherwise. */
const SERVED: Readonly<Record<string, string>> = {
  '-n': '--max-new-tokens',
  '--max-tokens': '--max-new-tokens',
  '-a': '--alias',
};

/** Ways of `--reasoning-format` that set thinking apart. */
const APART = ['auto', 'deepseek', 'deepseek-legacy'];

function nothing(words: string): Record<string, readonly string[]> {
  return Object.fromEntries(words.split(' ').map((word) => [word, []]));
}

/** A value there that means "as the model has it", which is said here by leaving the flag away. */
const UNSET: Readonly<Record<string, string>> = {
  '--context': '0',
  '-c': '0',
  '--max-tokens': '-1',
  '-n': '-1',
  '--max-new-tokens': '-1',
};

/** The command line with those words replaced; other commands and what comes after `--` stay. */
export function familiarWords(argv: readonly string[]): string[] {
  const start = argv.findIndex((word) => COMMANDS.includes(word));
  const end = argv.indexOf('--');
  if (start !== 2) return [...argv]; // node, script, command
  const out: string[] = argv.slice(0, start + 1);
  for (let i = start + 1; i < argv.length; i++) {
    if (end >= 0 && i >= end) return [...out, ...argv.slice(i)];
    const word = argv[i];
    const at = word.indexOf('=');
    const [name, rest] = at < 0 ? [word, ''] : [word.slice(0, at), word.slice(at)];
    if (Object.hasOwn(SWITCHES, name)) {
      // `-fa on` and `-fa` are both written.
      if (name === '-fa' && /^(on|off|auto|0|1)$/.test(argv[i + 1] ?? '')) i++;
      out.push(...SWITCHES[name]);
      continue;
    }
    if (VALUED.includes(name)) {
      if (at < 0) i++;
      continue;
    }
    const known = nameOf(name, argv[start]);
    const value = at < 0 ? argv[i + 1] : rest.slice(1);
    if (known === '--reasoning-format' && APART.includes(value)) {
      out.push(known, 'separate');
      if (at < 0) i++;
      continue;
    }
    if (!Object.hasOwn(UNSET, known) || UNSET[known] !== value) out.push(known + rest);
    else if (at < 0) i++;
  }
  return out;
}

function nameOf(name: string, command: string): string {
  const known = Object.hasOwn(WORDS, name) ? WORDS[name] : name;
  return command === 'serve' && Object.hasOwn(SERVED, known) ? SERVED[known] : known;
}

export interface FamiliarFlags {
  nGpuLayers?: string;
  nCpuMoe?: number;
  cpuMoe?: boolean;
  overrideTensor?: string[];
  batchSize?: number;
  ubatchSize?: number;
  flashAttn?: boolean;
  expertsPerToken?: number;
}

/** Adds those that have no name of Tandem's own, and `--experts-per-token`. */
export function withFamiliar(command: Command): Command {
  const hidden = (flags: string, parse?: (text: string) => unknown) => {
    const option = new Option(flags).hideHelp();
    command.addOption(parse ? option.argParser(parse) : option);
  };
  command.option(
    '--experts-per-token <n>',
    'fewer routed experts than the model was trained with: faster, lossy',
    positive,
  );
  hidden('--n-gpu-layers <n>');
  hidden('--n-cpu-moe <n>', count);
  hidden('--cpu-moe');
  command.addOption(
    new Option('--override-tensor <rules>')
      .hideHelp()
      .argParser((text: string, all: string[] = []) => [...all, ...text.split(',')]),
  );
  hidden('-b, --batch-size <n>', positive);
  hidden('--ubatch-size <n>', positive);
  hidden('--flash-attn');
  return command.addHelpText(
    'after',
    `
Flags of llama.cpp are understood: -ngl, -ot, --cpu-moe, --n-cpu-moe (rules), -b, -ub, -fa, -hf, --temp and others (docs/guide/cli.md).`,
  );
}

/** `maxBatchRows` and `expertsPerToken`, for `load`. */
export function familiarOptions({ batchSize, ubatchSize, expertsPerToken }: FamiliarFlags) {
  return { maxBatchRows: ubatchSize ?? batchSize, expertsPerToken };
}

/**
 * The rules that placement flags mean for the model at `path`, before those of `--rules`; undefined where there are none
 * of either. Tells on stderr which flags have no effect on this machine.
 */
export async function familiarRules(
  flags: FamiliarFlags & { readonly rules?: string },
  path: string,
): Promise<string | Rule[] | undefined> {
  if (flags.flashAttn) say('-fa: attention is always computed in blocks');
  const { nGpuLayers, nCpuMoe, cpuMoe, overrideTensor = [] } = flags;
  const given = [
    ...(nGpuLayers === undefined ? [] : ['-ngl']),
    ...(nCpuMoe === undefined ? [] : ['--n-cpu-moe']),
    ...(cpuMoe ? ['--cpu-moe'] : []),
    ...(overrideTensor.length === 0 ? [] : ['-ot']),
  ];
  if (given.length === 0) return flags.rules;
  const overrides = overrideTensor.map(parseOverride);
  const layers = nGpuLayers === undefined ? undefined : parseLayers(nGpuLayers);
  const gpus = deviceNames(nativeMachine()).filter((name) => name !== 'cpu');
  if (gpus.length === 0) {
    say(`${given.join(', ')}: this machine has no GPU that is used, all is on the CPU; no effect`);
    return flags.rules;
  }
  const checkpoint = await openCheckpoint(path);
  try {
    const { program } = await buildProgram(checkpoint);
    const own = flags.rules === undefined ? [] : await readRules(flags.rules);
    return [...rulesOf(program, { layers, nCpuMoe, cpuMoe, overrides }, gpus), ...own];
  } finally {
    await checkpoint.close();
  }
}

export interface Override {
  readonly pattern: RegExp;
  readonly device: string;
  readonly text: string;
}

export interface PlacementFlags {
  /** Layers on GPUs, counted from the last; more than there are: the head too. */
  readonly layers?: number;
  readonly nCpuMoe?: number;
  readonly cpuMoe?: boolean;
  readonly overrides?: readonly Override[];
}

/** As llama.cpp reads them: overrides first, then experts kept on the CPU, then the last layers on GPUs. */
export function rulesOf(program: Program, flags: PlacementFlags, gpus: readonly string[]): Rule[] {
  const rules: Rule[] = [];
  for (const { pattern, device, text } of flags.overrides ?? []) {
    const steps = program.steps.filter(({ inputs }) =>
      inputs.some((input) => {
        if (input?.kind !== 'weight') return false;
        const { name, parts } = program.weights[input.weight];
        return [name, ...parts].some((tensor) => pattern.test(tensor));
      }),
    );
    if (steps.length > 0)
      rules.push({ match: { name: oneOf(steps.map(({ name }) => name)) }, place: { device }, origin: `-ot ${text}` });
    else say(`-ot ${text}: no tensor of the model matches; no effect`);
  }
  const last = Math.max(...program.steps.map(({ layer }) => layer));
  if (flags.cpuMoe) rules.push({ match: { op: ['experts'] }, place: { device: 'cpu' }, origin: '--cpu-moe' });
  else if (flags.nCpuMoe)
    rules.push({
      match: { op: ['experts'], layers: [[0, Math.min(flags.nCpuMoe, last + 1) - 1]] },
      place: { device: 'cpu' },
      origin: `--n-cpu-moe ${flags.nCpuMoe}`,
    });
  if (flags.layers === undefined) return rules;
  const origin = `-ngl ${flags.layers}`;
  const device = gpus.length === 1 ? gpus[0] : `${gpus[0].replace(/\d+$/, '')}{layer * gpus / layers}`;
  const first = Math.max(0, last + 1 - flags.layers);
  rules.push({ match: { op: ['embed', 'sample'] }, place: { device: 'cpu' }, origin });
  if (first <= last) rules.push({ match: { layers: [[first, last]] }, place: { device }, origin });
  if (first > 0) rules.push({ match: { layers: [[0, first - 1]] }, place: { device: 'cpu' }, origin });
  rules.push({ match: {}, place: { device: flags.layers > last + 1 ? gpus[gpus.length - 1] : 'cpu' }, origin });
  return rules;
}

/** `REGEX=CPU`, `REGEX=CUDA0`. */
export function parseOverride(text: string): Override {
  const [, source, buffer = ''] = /^(.*)=([^=]*)$/s.exec(text) ?? [];
  const device = /^cpu$/i.test(buffer) ? 'cpu' : /^cuda(\d+)$/i.exec(buffer)?.[1];
  if (source === undefined || device === undefined) throw wrong('-ot', 'takes REGEX=CPU or REGEX=CUDA0', text);
  try {
    return { pattern: new RegExp(source), device: device === 'cpu' ? device : `cuda:${device}`, text };
  } catch (cause) {
    throw wrong('-ot', 'takes a regular expression before the =', `${text} (${(cause as Error).message})`);
  }
}

function parseLayers(text: string): number {
  if (text === 'all' || text === 'auto' || text === '-1') return Number.MAX_SAFE_INTEGER;
  if (/^\d+$/.test(text)) return Number(text);
  throw wrong('-ngl', 'takes a number of layers, or all', text);
}

/** The prompt of `-p` or `-f`; undefined where neither is given. REQUEST_INVALID where there are two. */
export async function promptOf(
  { prompt, file }: { prompt?: string; file?: string },
  words: readonly string[],
): Promise<string | undefined> {
  const given = [
    prompt === undefined ? [] : ['-p'],
    file === undefined ? [] : ['-f'],
    words.length === 0 ? [] : [`"${words[0]}"`],
  ].flat();
  if (given.length > 1 && (prompt !== undefined || file !== undefined))
    throw wrong('run', 'takes one prompt', given.join(' and '));
  if (file === undefined) return prompt;
  return readFile(file, 'utf8').catch((cause) => {
    throw fileError('read', file, cause);
  });
}

function oneOf(names: readonly string[]): RegExp {
  return new RegExp(`^(?:${names.map((name) => name.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')).join('|')})$`);
}

function wrong(flag: string, rule: string, given: string): TandemError {
  return new TandemError('REQUEST_INVALID', { room: 'cli', rule: `${flag} ${rule}`, given });
}

function say(text: string): void {
  process.stderr.write(`${paint('yellow', text, process.stderr)}\n`);
}
