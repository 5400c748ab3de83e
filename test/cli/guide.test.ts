/** The command line and its page of the guide say the same: every option is described, every flag described exists. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { describe, expect, test } from 'vitest';
import { addBench } from '../../src/commands/bench.ts';
import { addChat } from '../../src/commands/chat.ts';
import { addCompare } from '../../src/commands/compare.ts';
import { addDoctor } from '../../src/commands/doctor.ts';
import { addExplain } from '../../src/commands/explain.ts';
import { familiarWords } from '../../src/commands/familiar.ts';
import { addInspect } from '../../src/commands/inspect.ts';
import { addList } from '../../src/commands/list.ts';
import { addLogits } from '../../src/commands/logits.ts';
import { addPerplexity } from '../../src/commands/perplexity.ts';
import { addPlan } from '../../src/commands/plan.ts';
import { addPull } from '../../src/commands/pull.ts';
import { addRemove } from '../../src/commands/rm.ts';
import { addRun } from '../../src/commands/run.ts';
import { addServe } from '../../src/commands/serve.ts';
import { addSynth } from '../../src/commands/synth.ts';
import { addVerify } from '../../src/commands/verify.ts';

const guide = (page: string) => readFileSync(new URL(`../../docs/guide/${page}`, import.meta.url), 'utf8');
const PAGE = guide('cli.md');

const cli = new Command('tandem');
for (const add of [addRun, addChat, addPull, addList, addRemove, addInspect, addExplain, addCompare, addVerify, addDoctor, addPlan, addLogits, addPerplexity, addSynth, addBench]) add(cli); // biome-ignore format: one list
addServe(cli, '0.0.0');

/** `run` → its section; a heading may name several. */
const sections = new Map(
  PAGE.split(/^## /m).flatMap((text) => {
    const names = /^([a-z]+(?:, [a-z]+)*): /.exec(text)?.[1].split(', ') ?? [];
    return names.map((name) => [name, text] as const);
  }),
);

/** The page's beginning, the section of a command, the options of `run` that it shares, and the pages of the guide that it points to. */
function described(name: string): string {
  const own = sections.get(name) ?? '';
  const pages = [...own.matchAll(/\]\((\w+\.md)/g)].map(([, page]) => guide(page));
  const text = [PAGE.slice(0, PAGE.indexOf('\n## ')), own, ...pages].join('\n');
  return /options of `run`|as above/.test(text) ? text + sections.get('run') : text;
}

const flagsIn = (text: string) => new Set(text.match(/(?<![\w-])--[a-z][a-z0-9-]*/g));
const all = (command: Command): Command[] => [command, ...command.commands.flatMap(all)];

describe('docs/guide/cli.md', () => {
  test.each(cli.commands.map((command) => [command.name(), command] as const))(
    'has every option of %s',
    (name, command) => {
      // biome-ignore format: one line
      const found = flagsIn(described(name));
      const options = all(command).flatMap(({ options }) => options.filter(({ hidden }) => !hidden));
      expect(options.map(({ long }) => long).filter((long) => !found.has(long!))).toEqual([]);
    },
  );

  test('names no flag that there is not', () => {
    const known = new Set(all(cli).flatMap(({ options }) => options.map(({ long }) => long)));
    const isKnown = (flag: string) =>
      known.has(flag) || flag === '--help' || familiarWords(['node', 'tandem', 'run', flag])[3] !== flag;
    expect([...flagsIn(PAGE)].filter((flag) => !isKnown(flag))).toEqual([]);
  });
});

const PAGES = ['start.md', 'cli.md', 'plan.md', 'models.md', 'rules.md', 'serve.md', 'bench.md', '../../README.md'];

/** `tandem plan x --json | jq` → command and words; comments, pipes and what stands in quotes taken off. */
function commandsIn(text: string): string[][] {
  const blocks = [...text.matchAll(/^```\n([\s\S]*?)^```/gm)].map(([, block]) => block).join('\n');
  const inline = [...text.matchAll(/`((?:npx )?tandem [^`]+)`/g)].map(([, words]) => words);
  return [...blocks.split('\n'), ...inline].flatMap((line) => {
    const [, words] = /^(?:npx )?tandem (.+)$/.exec(line.trim().replace(/"[^"]*"|'[^']*'/g, 'TEXT')) ?? [];
    return words === undefined ? [] : [words.split(/ #| \\?\| | > | {3,}/)[0].split(/ +/)];
  });
}

describe.each(PAGES)('commands of %s', (page) => {
  const commands = commandsIn(guide(page)).filter(([name]) => /^[a-z]+$/.test(name));
  test('are there, with their flags', () => {
    expect(commands.length).toBeGreaterThan(0);
    const wrong = commands.filter((words) => {
      const line = familiarWords(['node', 'tandem', ...words.map((word) => word.replace(/^(--[a-z_]+)/, (flag) => flag.replaceAll('_', '-')))]).slice(2); // biome-ignore format: one thought a line
      let command = cli;
      for (const word of line) command = command.commands.find((each) => each.name() === word) ?? command;
      const flags = line.filter((word) => /^--?[a-z]/.test(word)).map((word) => word.split('=')[0]);
      const known = new Set(['--help', ...command.options.flatMap(({ long, short }) => [long, short])]);
      return command === cli || flags.some((flag) => !known.has(flag));
    });
    expect(wrong.map((words) => words.join(' '))).toEqual([]);
  });
});
