/** What a wrong command line is told. */
import { Command } from 'commander';
import { expect, test } from 'vitest';
import { TandemError } from '../errors.ts';
import { inFlags, usageError } from './usage.ts';

const cli = new Command('tandem');
cli.command('run').option('--temperature <x>').option('--top-p <x>').option('-c, --context <n>');
cli.command('list').alias('ls');
cli.command('bench').command('experts').option('--format <name>');

test('the help that is pointed to is of the command, also of one beneath another', () => {
  const told = (...args: string[]) => usageError("error: unknown option '--x'\n", args, cli);
  expect(told('--x')).toBe("[cli] unknown option '--x'; tandem --help tells more");
  expect(told('run', '--x')).toBe("[cli] unknown option '--x'; tandem run --help tells more");
  expect(told('ls', '--x')).toBe("[cli] unknown option '--x'; tandem list --help tells more");
  expect(told('bench', 'experts', '--x')).toBe("[cli] unknown option '--x'; tandem bench experts --help tells more");
  expect(told('run', 'experts', '--x')).toMatch(/tandem run --help/);
});

test('options of the API are told as the flags that were typed', () => {
  const told = (rule: string) => inFlags(new TandemError('REQUEST_INVALID', { room: 'engine', rule }), cli);
  expect(told('topP is a number in (0, 1]')).toBe('[engine] --top-p is a number in (0, 1]');
  expect(told('temperature is a number in [0, 100]')).toBe('[engine] --temperature is a number in [0, 100]');
  expect(told('load with a larger contextLength')).toBe('[engine] load with a larger --context');
  expect(told('the temperature is what it is')).toBe('[engine] the temperature is what it is');
});
