/**
 * What the command line says about wrong usage: commander's complaints as one line in the house's form, and the engine's
 * complaints with the flags a user typed instead of the names a program uses.
 */
import type { Command } from 'commander';

/** Flags of other programs, and what they are here. */
const ELSEWHERE: Readonly<Record<string, string>> = {
  '-v': '-V prints the version, TANDEM_DEBUG=1 tells more of errors',
  '--verbose': 'TANDEM_DEBUG=1 tells more of errors',
  '-p': 'the prompt is written without a flag',
  '--prompt': 'the prompt is written without a flag',
  '-f': 'a prompt from a file: tandem run - < FILE',
  '--file': 'a prompt from a file: tandem run - < FILE',
  '--temp': 'use --temperature',
  '--ctx-size': 'use --context',
  '--ctx': 'use --context',
  '--num-ctx': 'use --context',
  '--n-predict': 'use --max-tokens',
  '--num-predict': 'use --max-tokens',
  '--repeat-penalty': 'use --repetition-penalty',
  '--system-prompt': 'use --system',
  '--hidethinking': 'use --hide-thinking',
  '--no-thinking': 'use --hide-thinking, or --think off',
  '--format': 'use --json',
  '--no-mmap': 'use --load pages',
  '--mmap': 'use --load mmap',
  '--cache-type-k': 'use --kv-type',
  '--optimize-config-path': 'use --rules (docs/guide/rules.md has a table)',
};

/** Options of `load` whose flag has another name. */
const RENAMED: Readonly<Record<string, string>> = {
  contextLength: '--context',
  kvBytes: '--kv-budget',
  maxBatchRows: '--ubatch-size',
};

/** Commander's `error: rule` with its guesses in further lines → `[cli] rule; guess; where to read more`. */
export function usageError(text: string, args: readonly string[], cli: Command): string {
  const [first, ...guesses] = text.trim().split('\n');
  const rule = first
    .replace(/^error: /, '')
    .replace(/\.$/, '')
    .replace(/\. ([A-Z])/g, (_, letter: string) => `; ${letter.toLowerCase()}`);
  const unknown = /^unknown option '(.*)'$/s.exec(rule)?.[1];
  const known = unknown === undefined ? undefined : ELSEWHERE[unknown.split('=')[0]];
  const guess = guesses.map((line) => line.replace(/^\((.*)\)$/, '$1').replace(/^Did/, 'did')).join(' ');
  const more = `${['tandem', ...path(args, cli)].join(' ')} --help tells more`;
  const fix = unknown?.includes(' ') ? `text that begins with a dash comes after --: tandem run -- "${unknown}"` : more;
  return ['[cli] '.concat(rule), known ?? guess, fix].filter((part) => part !== '').join('; ');
}

/** The command that is meant, and of `bench experts` both words. */
function path([first, second]: readonly string[], cli: Command): string[] {
  const of = (command: Command | undefined, name: string | undefined) =>
    command?.commands.find((one) => one.name() === name || (name !== undefined && one.aliases().includes(name)));
  const command = of(cli, first);
  return [command, of(command, second)].flatMap((one) => one?.name() ?? []);
}

/** The message of an error; option names of the API (`maxTokens`) become the flags of the command line. */
export function inFlags(error: unknown, cli: Command): string {
  const message = error instanceof Error ? error.message : String(error);
  if ((error as { code?: string }).code === undefined) return message;
  const flags = new Map(Object.entries(RENAMED));
  for (const { options } of cli.commands)
    for (const option of options) if (option.long) flags.set(option.attributeName(), option.long);
  // Only names like no word of a sentence, and those that a rule begins with.
  const named = message.replace(/^(\[engine\] )([a-z]+)(?= is )/, (all, room: string, name: string) =>
    flags.has(name) ? room + flags.get(name) : all,
  );
  return named.replace(/(?<![\w./-])[a-z]+(?:[A-Z][a-z]*)+(?![\w./-])/g, (name) => flags.get(name) ?? name);
}
