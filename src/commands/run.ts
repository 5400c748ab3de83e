/** `tandem run PROMPT`: one question, one answer, streamed; the line of figures goes to stderr. */
import type { Command } from 'commander';
import { TandemError } from '../errors.ts';
import { figures, showAnswer } from './answer.ts';
import { loadModel } from './load-model.ts';
import {
  loadOptions,
  type ModelFlags,
  readPrompt,
  type SamplingFlags,
  samplingOptions,
  withModel,
  withSampling,
} from './options.ts';
import { paint } from './terminal.ts';

interface Flags extends ModelFlags, SamplingFlags {
  system?: string;
  raw?: boolean;
  thinking: boolean;
  json?: boolean;
}

export function addRun(cli: Command): void {
  const command = cli
    .command('run')
    .description('answer one prompt and end')
    .argument('[prompt...]', 'the prompt; from stdin where absent or "-"');
  withSampling(withModel(command))
    .option('-s, --system <text>', 'system message')
    .option('--raw', 'complete the prompt as it is, without the chat template')
    .option('--no-thinking', 'do not print the reasoning')
    .option('--json', 'print one JSON object when the answer is complete')
    .action(run);
}

async function run(words: string[], flags: Flags): Promise<void> {
  const prompt = await readPrompt(words);
  if (prompt === undefined || prompt.trim() === '') {
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'run needs a prompt',
      given: 'there is none',
      fix: 'write tandem run "your question", or pipe text into it',
    });
  }
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  await using engine = await loadModel(flags.model, loadOptions(flags), interrupt.signal);
  const options = { ...samplingOptions(flags), signal: interrupt.signal };
  const generation = flags.raw
    ? engine.generate(prompt, options)
    : engine.chat(
        [
          ...(flags.system ? [{ role: 'system' as const, content: flags.system }] : []),
          { role: 'user', content: prompt },
        ],
        options,
      );
  if (flags.json) {
    process.stdout.write(`${JSON.stringify(await generation, jsonValue, 2)}\n`);
    return;
  }
  const result = await showAnswer(generation, { thinking: flags.thinking });
  const seed = flags.seed === undefined && (flags.temperature ?? 0) > 0 ? ` · seed ${result.seed}` : '';
  process.stderr.write(`${paint('dim', `\n${figures(result)}${seed}`, process.stderr)}\n`);
  if (result.finishReason === 'abort') process.exitCode = 130;
}

/** 64-bit seeds do not fit a JSON number. */
function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
