/** `tandem perplexity FILE --text FILE`: how well a model predicts a text, and how far it is from another one. */
import { readFile } from 'node:fs/promises';
import type { Command } from 'commander';
import { fileError } from '../formats/file-source.ts';
import type { Divergence, Engine, LoadOptions, Perplexity } from '../index.ts';
import { loadModel } from './load-model.ts';
import { localPath } from './model-name.ts';
import { count, loadOptions, MODEL, type ModelFlags, positive, withModel } from './options.ts';
import { ProgressBar, table } from './terminal.ts';

interface Flags extends ModelFlags {
  text: string;
  window?: number;
  skip?: number;
  klAgainst?: string;
  json?: boolean;
}

export function addPerplexity(cli: Command): void {
  const command = cli
    .command('perplexity')
    .description('how well a model predicts a text, and how far its distributions are from another one')
    .argument('[model]', MODEL);
  withModel(command)
    .requiredOption('--text <file>', 'the text, UTF-8')
    .option(
      '--window <n>',
      'tokens of a window; windows do not see each other (default: 512, or the context)',
      positive,
    )
    .option('--skip <n>', 'tokens of a window that only give context (default: half of it)', count)
    .option(
      '--kl-against <model>',
      'divergence from `reference` (this file, unrounded, in plain TypeScript), `exact` (this file in exact mode), `undeferred` (this file without --defer-experts) or a file',
    )
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  tandem perplexity model.gguf --text wiki.txt
  tandem perplexity model-Q4_K_M.gguf --text wiki.txt --kl-against model-BF16.gguf     what did quantizing cost?
  tandem perplexity --text short.txt --kl-against reference                            what does rounding cost?
  tandem perplexity model.gguf --text wiki.txt --kl-against exact                      what do tiles cost?
  tandem perplexity model.gguf --text wiki.txt --defer-experts 2 --kl-against undeferred     what does deferral cost?`,
    )
    .action(perplexity);
}

async function perplexity(model: string | undefined, flags: Flags): Promise<void> {
  const path = await localPath(flags, model);
  const text = await readText(flags.text);
  const interrupt = new AbortController();
  process.once('SIGINT', () => interrupt.abort());
  const { signal } = interrupt;
  const options = loadOptions(flags);
  await using engine = await loadModel(path, options, signal);
  const bar = new ProgressBar('computing');
  const measuring = {
    window: flags.window,
    skip: flags.skip,
    signal,
    onProgress: ({ done, total }: { done: number; total: number }) => bar.update(done, total, 'tokens'),
  };
  try {
    if (flags.klAgainst === undefined) {
      const result = await engine.perplexity(text, measuring);
      bar.end();
      process.stdout.write(flags.json ? `${JSON.stringify(result)}\n` : renderPerplexity(result));
      return;
    }
    await using reference = await loadReference(path, flags.klAgainst, options, signal);
    const result = await engine.divergence(reference, text, measuring);
    bar.end();
    process.stdout.write(flags.json ? `${JSON.stringify(result)}\n` : renderDivergence(result));
  } finally {
    bar.end();
  }
}

/**
 * What is compared with, never with late experts: words for this very file, or another one. A file of such a name is
 * ./reference, ./exact.
 */
function loadReference(path: string, against: string, given: LoadOptions, signal: AbortSignal): Promise<Engine> {
  const options = { ...given, deferExperts: undefined };
  if (against === 'undeferred') return loadModel(path, options, signal);
  if (against === 'reference')
    return loadModel(path, { backend: 'reference', contextLength: options.contextLength }, signal);
  return against === 'exact'
    ? loadModel(path, { ...options, exact: true }, signal)
    : loadModel(against, options, signal);
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8');
  } catch (cause) {
    throw fileError('read', path, cause);
  }
}

function renderPerplexity({ perplexity, standardError, tokens, windows, window, skip }: Perplexity): string {
  const extent = `${tokens} tokens in ${windows} windows of ${window}, the first ${skip} of each only context`;
  return `perplexity ${perplexity.toFixed(4)} ± ${standardError.toFixed(4)}\n${extent}\n`;
}

function renderDivergence(result: Divergence): string {
  const { mean, standardError, median, p99, maximum, sameTop, model, reference } = result;
  const rows = [
    ['perplexity of the reference', `${reference.perplexity.toFixed(4)} ± ${reference.standardError.toFixed(4)}`],
    ['perplexity of the model', `${model.perplexity.toFixed(4)} ± ${model.standardError.toFixed(4)}`],
    ['KL(reference ‖ model), mean', `${mean.toExponential(3)} ± ${standardError.toExponential(1)} nats`],
    ['median, 99 %, maximum', [median, p99, maximum].map((value) => value.toExponential(3)).join(', ')],
    ['same likeliest token', `${(sameTop * 100).toFixed(2)} %`],
    ['tokens', `${model.tokens} in ${model.windows} windows of ${model.window}, ${model.skip} of each only context`],
  ];
  return `${table(rows)}\n`;
}
