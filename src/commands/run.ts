/** `tandem run PROMPT`: one question, one answer, streamed; the line of figures goes to stderr. */
import { existsSync } from 'node:fs';
import { type Command, Option } from 'commander';
import { isAbort, TandemError } from '../errors.ts';
import type { Generation, GenerationResult } from '../index.ts';
import { figures, showAnswer } from './answer.ts';
import { openAnswerer, type ServerFlags, withKey } from './answerer.ts';
import { type FamiliarFlags, promptOf, withFamiliar } from './familiar.ts';
import {
  type ChatFlags,
  chatOptions,
  type ModelFlags,
  readPrompt,
  type SamplingFlags,
  samplingOptions,
  withChat,
  withModel,
  withSampling,
  withServer,
} from './options.ts';
import type { Answerer } from './remote.ts';
import { paint } from './terminal.ts';

interface Flags extends ModelFlags, SamplingFlags, ChatFlags, ServerFlags, FamiliarFlags {
  prompt?: string;
  file?: string;
  raw?: boolean;
  json?: boolean;
}

export function addRun(cli: Command): void {
  const command = cli
    .command('run')
    .description('answer one prompt and end')
    .argument('[prompt...]', 'the prompt; "-" stands for what stdin holds, as does no prompt at all');
  withFamiliar(withKey(withServer(withChat(withSampling(withModel(command))))))
    .addOption(new Option('-p, --prompt <text>', 'the prompt').hideHelp())
    .addOption(new Option('-f, --file <file>', 'a file with the prompt').hideHelp())
    .option('--raw', 'complete the prompt as it is, without the chat template')
    .option('--json', 'print one JSON object when the answer is complete')
    .addHelpText(
      'after',
      `
Examples:
  tandem run "What is 3 + 4?"
  tandem run -m model.gguf --temperature 0.7 --seed 1 "Tell me a story"
  tandem run -m model.gguf "Summarize this text:" - < notes.txt
  tandem run --raw -n 20 "Once upon a time"
  tandem run --json "What is 3 + 4?" | jq -r .text
  tandem run --server http://192.168.1.7:11435 --api-key KEY "What is 3 + 4?"`,
    )
    .action(run);
}

async function run(words: string[], flags: Flags): Promise<void> {
  refuseModelAsPrompt(words, flags);
  const prompt = (await promptOf(flags, words)) ?? (await readPrompt(words));
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
  await using model = await openAnswerer(flags, undefined, interrupt.signal);
  const generation = answer(model, prompt, flags, interrupt.signal);
  const result = await (flags.json
    ? wholeAnswer(generation)
    : showAnswer(generation, { thinking: !flags.hideThinking }));
  if (result.finishReason === 'abort') process.exitCode = 130;
  if (flags.json) process.stdout.write(`${JSON.stringify(result, jsonValue)}\n`);
  else {
    process.stderr.write(`${paint('dim', `\n${figures(result)}`, process.stderr)}\n`);
  }
}

function answer(model: Answerer, prompt: string, flags: Flags, signal: AbortSignal): Generation {
  if (flags.raw) return model.generate(prompt, { ...samplingOptions(flags), signal });
  const system = flags.system ? [{ role: 'system' as const, content: flags.system }] : [];
  return model.chat([...system, { role: 'user', content: prompt }], { ...chatOptions(flags), signal });
}

/** The result, also of an answer that was stopped. */
async function wholeAnswer(generation: Generation): Promise<GenerationResult> {
  try {
    return await generation;
  } catch (error) {
    if (isAbort(error) && generation.partial) return generation.partial;
    throw error;
  }
}

/** `tandem run model.gguf "hello"` would ask the model that ships about a file name. */
function refuseModelAsPrompt(words: readonly string[], flags: Flags): void {
  const [first = ''] = words;
  if (flags.model !== undefined || !(first.endsWith('.gguf') || existsSync(`${first}/config.json`)) || first === '')
    return;
  throw new TandemError('REQUEST_INVALID', {
    room: 'cli',
    rule: 'run takes its model with --model',
    given: `the prompt begins with ${first}`,
    fix: `tandem run --model ${first} "your question"`,
  });
}

/** 64-bit seeds do not fit a JSON number. */
function jsonValue(_key: string, value: unknown): unknown {
  return typeof value === 'bigint' ? value.toString() : value;
}
