#!/usr/bin/env node
/** The `tandem` command: registers the commands and turns every error into one line and an exit code. */
import { readFileSync } from 'node:fs';
import { Command } from 'commander';
import { addChat } from './commands/chat.ts';
import { addCompare } from './commands/compare.ts';
import { addExplain } from './commands/explain.ts';
import { addInspect } from './commands/inspect.ts';
import { addLogits } from './commands/logits.ts';
import { addRun } from './commands/run.ts';
import { addSynth } from './commands/synth.ts';
import { paint } from './commands/terminal.ts';
import { isAbort } from './errors.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const cli = new Command('tandem')
  .description('Giant mixture-of-experts language models on one ordinary machine.')
  .version(version)
  .showHelpAfterError('(tandem --help, or tandem COMMAND --help, tells more)')
  .configureHelp({ showGlobalOptions: false })
  .addHelpText(
    'after',
    `
Examples:
  tandem run "What is 3 plus 4?"                    ask the model that ships
  tandem run -m DeepSeek-R1-Q4_K_M-00001-of-00009.gguf "Why is the sky blue?"
  tandem chat -m ./Qwen3-30B-A3B                    a Hugging Face folder works as it is
  tandem inspect model.gguf                         what is in this file?
  cat notes.txt | tandem run --json                 the prompt from stdin, the answer as JSON`,
  );

for (const add of [addRun, addChat, addInspect, addExplain, addCompare, addLogits, addSynth]) add(cli);

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The reader of a pipe has gone: nobody is left to tell.
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await cli.parseAsync();
} catch (error) {
  if (isAbort(error)) process.exitCode = 130;
  else {
    const message = error instanceof Error ? error.message : String(error);
    process.stderr.write(`${paint('red', message, process.stderr)}\n`);
    if (process.env.TANDEM_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
    process.exitCode = 1;
  }
}
