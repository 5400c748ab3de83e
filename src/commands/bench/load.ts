/**
 * `tandem bench load`: from the file to the first token, for each way of loading, from a warm file or (`--cold`) from one that the
 * page cache was told to forget.
 */
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { type Command, Option } from 'commander';
import { loadNative } from '../../backend/native/load.ts';
import { openCheckpoint } from '../../formats/open.ts';
import { load } from '../../index.ts';
import { localPath } from '../model-name.ts';
import { MODEL, memorySize, positive, withCpu, withModelPath } from '../options.ts';
import { formatBytes, formatRate, table } from '../terminal.ts';
import { describeMachine, type ReportFlags, report, withReport } from './report.ts';
import { modulusFor, tokenIds } from './token-ids.ts';

interface Flags extends ReportFlags {
  model?: string;
  threads?: number;
  isa?: string;
  exact?: boolean;
  context?: number;
  memory?: number;
  load?: Way;
  cold?: boolean;
}

const WAYS = ['auto', 'mmap', 'pages'] as const;
type Way = (typeof WAYS)[number];

interface LoadResult {
  /** As asked; what came of it is `way`. */
  readonly load: Way;
  readonly way: string | number;
  /** In one sentence. */
  readonly loaded: string | number;
  readonly cold: boolean;
  /** Until the engine is ready, of that until the weights are, and until the first token from the very beginning. */
  readonly seconds: number;
  readonly weightSeconds: number;
  readonly firstTokenSeconds: number;
  readonly weightBytes: number;
  readonly bytesFromCache: number;
  readonly bytesFromDisk: number;
  readonly hugePageBytes: number;
  /** Of what was read. */
  readonly gigabytesPerSecond: number;
  /** Memory of the process after the first token: all of it, and what of it are pages of mapped files. */
  readonly residentBytes: number;
  readonly residentFileBytes: number;
}

export function addBenchLoad(bench: Command): void {
  const command = bench
    .command('load')
    .description('time until a model is ready and until its first token')
    .argument('[model]', MODEL)
    .addOption(new Option('--load <how>', 'only this way (default: all)').choices(WAYS))
    .option('--cold', 'the page cache forgets the file before each load')
    .option('-c, --context <tokens>', "context length (default: the model's, if memory allows)", positive)
    .option('--memory <size>', 'most memory to take, e.g. 16GB (default: what is free)', memorySize);
  withReport(withCpu(withModelPath(command)))
    .addHelpText(
      'after',
      `
Examples:
  tandem bench load model.gguf
  tandem bench load model.gguf --cold --json
  tandem bench load model.gguf --memory 6GB      experts stay mapped where this is less than the file`,
    )
    .action(benchLoad);
}

async function benchLoad(model: string | undefined, flags: Flags): Promise<void> {
  const path = await localPath(flags, model);
  const machine = describeMachine(flags.isa);
  const results: LoadResult[] = [];
  for (const way of flags.load === undefined ? WAYS : [flags.load]) results.push(await once(path, way, flags));
  const rows = results.map(({ load, seconds, gigabytesPerSecond, firstTokenSeconds, residentBytes, loaded }) => [
    load,
    seconds.toFixed(2),
    formatRate(gigabytesPerSecond),
    firstTokenSeconds.toFixed(2),
    formatBytes(residentBytes),
    String(loaded),
  ]);
  const head = ['load', 'ready, s', 'GB/s', 'first token, s', 'resident', ''];
  await report(flags, {
    name: `load-${basename(path, '.gguf')}${flags.cold ? '-cold' : ''}`,
    machine,
    json: results,
    text: `${basename(path)}, ${formatBytes(results[0].weightBytes)}\n\n${table([head, ...rows], 'lrrrrl')}\n`,
  });
}

async function once(
  path: string,
  way: Way,
  { threads, isa, exact, context, memory, cold }: Flags,
): Promise<LoadResult> {
  if (cold) for (const file of await filesOf(path)) loadNative().dropCache(file);
  const started = performance.now();
  await using engine = await load(path, { load: way, threads, isa, exact, memory, contextLength: context });
  const seconds = (performance.now() - started) / 1000;
  const ids = tokenIds(1, modulusFor(engine.info.vocabSize));
  const { timings } = await engine.generate(ids, { temperature: 0, maxTokens: 1, ignoreEos: true });
  const { execution } = engine.info;
  const [fromCache, fromDisk, weightSeconds, huge] = [
    'bytes from cache',
    'bytes from disk',
    'load seconds',
    'huge page bytes',
  ].map((key) => Number(execution[key]));
  return {
    load: way,
    way: execution.load,
    loaded: execution.loaded,
    cold: cold ?? false,
    seconds,
    weightSeconds,
    firstTokenSeconds: seconds + timings.timeToFirstTokenMs / 1000,
    weightBytes: engine.info.weights,
    bytesFromCache: fromCache,
    bytesFromDisk: fromDisk,
    hugePageBytes: huge,
    gigabytesPerSecond: (fromCache + fromDisk) / weightSeconds / 1e9,
    residentBytes: resident('VmRSS'),
    residentFileBytes: resident('RssFile'),
  };
}

async function filesOf(path: string): Promise<string[]> {
  const checkpoint = await openCheckpoint(path);
  await checkpoint.close();
  return checkpoint.files.flatMap((file) => file.path ?? []);
}

/** Of this process, in bytes. */
function resident(name: 'VmRSS' | 'RssFile'): number {
  const kilobytes = new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(readFileSync('/proc/self/status', 'utf8'))?.[1];
  return Number(kilobytes) * 1024;
}
