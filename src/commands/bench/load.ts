/**
 * `tandem bench load`: from the file to the first token, for each way of loading. The file is as cold or warm in the
 * system's cache as it happens to be; the first of the ways may pay for the others.
 */
import { basename } from 'node:path';
import type { Command } from 'commander';
import { load } from '../../index.ts';
import { MODEL, modelPath, withCpu, withModelPath } from '../options.ts';
import { formatBytes, formatRate, table } from '../terminal.ts';
import { describeMachine, type ReportFlags, report, withReport } from './report.ts';
import { modulusFor, tokenIds } from './token-ids.ts';

interface Flags extends ReportFlags {
  model?: string;
  threads?: number;
  isa?: string;
  exact?: boolean;
}

interface LoadResult {
  /** As asked. */
  readonly load: 'auto' | 'mmap' | 'pages';
  /** Until the engine is ready, and until it has drawn a token after that. */
  readonly seconds: number;
  readonly firstTokenSeconds: number;
  readonly weightBytes: number;
  readonly gigabytesPerSecond: number;
  /** What the backend says about it. */
  readonly execution: Readonly<Record<string, string | number>>;
}

export function addBenchLoad(bench: Command): void {
  const command = bench
    .command('load')
    .description('time until a model is ready and until its first token')
    .argument('[model]', MODEL);
  withReport(withCpu(withModelPath(command)))
    .addHelpText('after', '\nExamples:\n  tandem bench load model.gguf\n  tandem bench load model.gguf --json')
    .action(benchLoad);
}

async function benchLoad(model: string | undefined, flags: Flags): Promise<void> {
  const path = modelPath(flags, model);
  const machine = describeMachine(flags.isa);
  const results: LoadResult[] = [];
  for (const way of ['auto', 'mmap', 'pages'] as const) results.push(await once(path, way, flags));
  const rows = results.map(({ load, seconds, gigabytesPerSecond, firstTokenSeconds }) => [
    load,
    seconds.toFixed(2),
    formatRate(gigabytesPerSecond),
    firstTokenSeconds.toFixed(2),
  ]);
  await report(flags, {
    name: `load-${basename(path, '.gguf')}`,
    machine,
    json: results,
    text: `${basename(path)}, ${formatBytes(results[0].weightBytes)}\n\n${table([['load', 's', 'GB/s', 'first token after, s'], ...rows], 'lrrr')}\n`,
  });
}

async function once(path: string, way: LoadResult['load'], { threads, isa, exact }: Flags): Promise<LoadResult> {
  const started = performance.now();
  await using engine = await load(path, { load: way, threads, isa, exact });
  const seconds = (performance.now() - started) / 1000;
  const ids = tokenIds(1, modulusFor(engine.info.vocabSize));
  const { timings } = await engine.generate(ids, { temperature: 0, maxTokens: 1, ignoreEos: true });
  return {
    load: way,
    seconds,
    firstTokenSeconds: timings.timeToFirstTokenMs / 1000,
    weightBytes: engine.info.weights,
    gigabytesPerSecond: engine.info.weights / seconds / 1e9,
    execution: engine.info.execution,
  };
}
