#!/usr/bin/env node
/** The `tandem` command: registers the commands and turns every error into one line and an exit code. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addBench } from './commands/bench.ts';
import { addChat } from './commands/chat.ts';
import { addCompare } from './commands/compare.ts';
import { addDoctor } from './commands/doctor.ts';
import { addExplain } from './commands/explain.ts';
import { familiarWords } from './commands/familiar.ts';
import { addInspect } from './commands/inspect.ts';
import { addList } from './commands/list.ts';
import { addLogits } from './commands/logits.ts';
import { addPerplexity } from './commands/perplexity.ts';
import { addPlan } from './commands/plan.ts';
import { addPull } from './commands/pull.ts';
import { addRemove } from './commands/rm.ts';
import { addRun } from './commands/run.ts';
import { addServe } from './commands/serve.ts';
import { addSynth } from './commands/synth.ts';
import { paint } from './commands/terminal.ts';
import { inFlags, usageError } from './commands/usage.ts';
import { addVerify } from './commands/verify.ts';
import { isAbort } from './errors.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

for (const stream of [process.stdout, process.stderr]) {
  stream.on('error', (error: NodeJS.ErrnoException) => {
    // The reader of a pipe has gone: nobody is left to tell. Other failures of stdout are told on stderr.
    if (error.code === 'EPIPE') process.exit(0);
    if (stream === process.stdout)
      tell(`[cli] the output can be written; ${error.message}; make room, or write elsewhere`);
    process.exit(1);
  });
}

function tell(message: string): void {
  process.stderr.write(`${paint('red', message, process.stderr)}\n`);
}

const cli = new Command('tandem')
  .description('Giant mixture-of-experts language models on one ordinary machine.')
  .version(version, '-V, --version', 'print the version')
  .helpOption('-h, --help', 'print this help')
  .helpCommand('help [command]', 'print the help of a command')
  .configureOutput({ outputError: (text) => tell(usageError(text, process.argv.slice(2), cli)) })
  .addHelpText(
    'after',
    `
Examples:
  tandem run "What is 3 + 4?"                       ask the model that ships
  tandem run -m DeepSeek-R1-Q4_K_M-00001-of-00009.gguf "Why is the sky blue?"
  tandem chat ./Qwen3-30B-A3B                       a Hugging Face folder works as it is
  tandem inspect model.gguf                         what is in this file?
  tandem pull Qwen/Qwen3-0.6B                       a model of the hub, for: tandem chat Qwen/Qwen3-0.6B
  tandem run --json - < question.txt                the prompt from stdin, the answer as JSON

Answers go to stdout, figures and messages to stderr. Exit code 0: done, 1: an error, 130: stopped by Ctrl-C.
TANDEM_ISA=avx2 forces an instruction set, TANDEM_DEBUG=1 adds stack traces, NO_COLOR=1 turns colours off.`,
  );

for (const add of [
  addRun,
  addChat,
  addPull,
  addList,
  addRemove,
  addInspect,
  addExplain,
  addCompare,
  addVerify,
  addDoctor,
  addPlan,
  addLogits,
  addPerplexity,
  addSynth,
  addBench,
])
  add(cli);
addServe(cli, version);

// Commander answers this with the whole help, as if nothing were wrong.
const [asked, subject] = process.argv.slice(2);
if (asked === 'help' && subject !== undefined && !named(subject)) cli.error(`error: unknown command '${subject}'`);

try {
  await cli.parseAsync(familiarWords(dashed(process.argv)));
} catch (error) {
  if (isAbort(error)) process.exitCode = 130;
  else {
    tell(inFlags(error, cli));
    if (process.env.TANDEM_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  }
}

function named(word: string): boolean {
  return (
    word.startsWith('-') ||
    word === 'help' ||
    cli.commands.some((one) => one.name() === word || one.aliases().includes(word))
  );
}

/** Flags of the old world are written with underscores: `--max_new_tokens` is `--max-new-tokens`. */
function dashed(argv: readonly string[]): string[] {
  const end = argv.indexOf('--');
  return argv.map((word, i) =>
    end >= 0 && i >= end ? word : word.replace(/^--[a-z]+(?:_[a-z]+)+(?==|$)/, (flag) => flag.replaceAll('_', '-')),
  );
}
