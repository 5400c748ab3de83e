/**
 * `tandem bench experts`: one MoE layer at several batch sizes. What is timed is the step `experts` alone (quantizing its
 * input, gate, up, activation, down, the weighted sum), as the backend counts it; routing is not in it.
 */
import { type Command, InvalidArgumentError, Option } from 'commander';
import type { Executable } from '../../backend/backend.ts';
import { type NativeExecutable, nativeBackend } from '../../backend/native/backend.ts';
import type { PeakName } from '../../backend/native/binding.ts';
import { loadNative } from '../../backend/native/load.ts';
import { TandemError } from '../../errors.ts';
import { FORMAT_NAMES, type FormatName } from '../../formats/dtype.ts';
import { nativeMachine } from '../../placement/machine.ts';
import type { Batch } from '../../program/batch.ts';
import { PAGE_TOKENS } from '../../program/program.ts';
import { positive, withCpu } from '../options.ts';
import { formatBytes, formatRate, ProgressBar, table } from '../terminal.ts';
import { type Ceiling, underCeiling, unitOf } from './ceiling.ts';
import { expertBytes, type MoeShape, moeLayers } from './moe-layers.ts';
import { describeMachine, type Machine, median, type ReportFlags, report, withReport } from './report.ts';

interface Flags extends ReportFlags {
  hidden: number;
  intermediate: number;
  experts: number;
  topk: number;
  format: FormatName;
  tokens: number[];
  layers?: number;
  rounds: number;
  threads?: number;
  isa?: string;
  exact?: boolean;
  ceiling: boolean;
}

/** One batch size. Times are medians over the rounds, of one layer. */
export interface ExpertsResult {
  readonly tokens: number;
  readonly milliseconds: number;
  /** 6 · hidden · intermediate · topk · tokens operations / time. */
  readonly tflops: number;
  /** Bytes of the distinct experts that the batch touched / time. */
  readonly gigabytesPerSecond: number;
  /** Mean over layers and rounds. */
  readonly distinctExperts: number;
  /** What multiplied: its peak is the ceiling of many tokens. Absent for scalar kernels. */
  readonly unit?: PeakName;
  /** Of what this machine reads from memory, and of what the unit gives, with as many threads; absent with --no-ceiling. */
  readonly shareOfReadBandwidth?: number;
  readonly shareOfPeak?: number;
}

/** What a single token reads in all layers should be so many times the last-level cache. */
const CACHES = 3;
const MOST_LAYERS = 32;
/** Tokens there are at least, so that the rounds of a small batch go to other experts. */
const LEAST_TOKENS = 256;

export function addBenchExperts(bench: Command): void {
  const command = bench
    .command('experts')
    .description('one MoE layer with random weights, at several batch sizes')
    .option('--hidden <n>', 'columns of the input', positive, 2048)
    .option('--intermediate <n>', 'width of one expert', positive, 768)
    .option('--experts <n>', 'experts of a layer', positive, 128)
    .option('--topk <n>', 'experts of a token', positive, 8)
    .addOption(new Option('--format <name>', 'weight format').choices(FORMAT_NAMES).default('q4_k'))
    .option('--tokens <list>', 'batch sizes', batchSizes, [1, 16, 64, 256, 1024])
    .option('--layers <n>', 'layers to rotate over (default: so many that caches do not hold them)', positive)
    .option('--rounds <n>', 'passes over all layers that are timed, each with other tokens', positive, 5)
    .option('--no-ceiling', 'do not measure the read bandwidth of the machine');
  withReport(withCpu(command))
    .addHelpText(
      'after',
      `
Examples:
  tandem bench experts                                                             Qwen3-30B-A3B's layer
  tandem bench experts --hidden 7168 --intermediate 2048 --experts 16 --topk 8     DeepSeek-V3's width
  tandem bench experts --tokens 1,1024 --threads 1 --isa avx2 --json`,
    )
    .action(benchExperts);
}

function batchSizes(text: string): number[] {
  const list = text.split(',').map(Number);
  if (!list.every((size) => Number.isInteger(size) && size >= 1 && size <= 65536))
    throw new InvalidArgumentError('It must be batch sizes of 1 to 65536 with commas: 1,16,1024.');
  return list;
}

async function benchExperts(flags: Flags): Promise<void> {
  if (flags.topk > flags.experts)
    throw new TandemError('REQUEST_INVALID', {
      room: 'cli',
      rule: 'a token goes to at most as many experts as there are',
      given: `--topk ${flags.topk} of --experts ${flags.experts}`,
    });
  const machine = describeMachine(flags.isa);
  const shape: MoeShape = { ...flags, layers: flags.layers ?? layersFor(flags, machine.lastLevelCacheBytes) };
  const {
    result: { threads, sizes },
    ceiling,
  } = await underCeiling({ wanted: flags.ceiling, threads: flags.threads, machine }, () =>
    measure(shape, flags, machine),
  );
  const results = sizes.map((size) => ({ ...size, ...(ceiling && shares(size, ceiling)) }));
  const { hidden, intermediate, experts, topk, format, layers } = shape;
  const what = `hidden ${hidden}, intermediate ${intermediate}, ${topk} of ${experts} experts, ${format}`;
  const [weights, read] = [experts, topk].map((each) => expertBytes(shape) * each * layers);
  const caches = machine.lastLevelCacheBytes > 0 ? `, ${formatRate(read / machine.lastLevelCacheBytes)} caches` : '';
  const extent = `layers: ${layers} of ${formatBytes(weights / layers)}; a token reads ${formatBytes(read)}${caches}`;
  await report(flags, {
    name: `experts-${hidden}x${intermediate}-e${experts}k${topk}-${format}-t${threads}`,
    machine,
    json: results,
    text: `${what}; threads: ${threads}, ${machine.isa}\n${extent}\n\n${render(results)}\n`,
  });
}

function shares({ gigabytesPerSecond, tflops, unit }: ExpertsResult, { bytesPerSecond, peaks }: Ceiling) {
  const peak = unit && peaks[unit];
  return {
    shareOfReadBandwidth: (gigabytesPerSecond * 1e9) / bytesPerSecond,
    ...(peak && { shareOfPeak: (tflops * 1e12) / peak }),
  };
}

async function measure(
  shape: MoeShape,
  flags: Flags,
  machine: Machine,
): Promise<{ threads: number | string; sizes: ExpertsResult[] }> {
  const rows = Math.max(...flags.tokens);
  const vocabulary = Math.max(rows, LEAST_TOKENS);
  const { program, checkpoint } = await moeLayers(shape, vocabulary, {
    machine: nativeMachine(flags.isa),
    exact: flags.exact,
  });
  const placement = program.steps.find(({ op }) => op === 'experts')!.placement!;
  const sizes: ExpertsResult[] = [];
  const bar = new ProgressBar('measuring');
  try {
    await using executable = await nativeBackend().prepare(program, checkpoint, {
      pages: Math.ceil(rows / PAGE_TOKENS),
      maxRows: rows,
      maxOutputs: 1,
      threads: flags.threads,
      isa: flags.isa,
      load: 'pages',
    });
    for (const tokens of flags.tokens) {
      const batches = Array.from({ length: flags.rounds }, (_, round) => batchOf(tokens, round * tokens, vocabulary));
      const distinct = await distinctExperts(executable, batches); // also warms up
      const milliseconds = await timeExperts(executable, batches, shape.layers);
      const unit = unitOf(placement, (tokens * shape.topk) / distinct, machine);
      const operations = 6 * shape.hidden * shape.intermediate * shape.topk * tokens;
      sizes.push({
        tokens,
        milliseconds,
        tflops: operations / (milliseconds * 1e9),
        gigabytesPerSecond: (distinct * expertBytes(shape)) / (milliseconds * 1e6),
        distinctExperts: distinct,
        ...(unit && { unit }),
      });
      bar.update(sizes.length, flags.tokens.length, 'sizes');
    }
    return { threads: executable.description.threads, sizes };
  } finally {
    bar.end();
    await checkpoint.close();
  }
}

function layersFor(shape: Omit<MoeShape, 'layers'>, cacheBytes: number): number {
  const expert = expertBytes(shape);
  const wanted = Math.ceil((CACHES * cacheBytes) / (expert * shape.topk));
  const fitting = Math.floor(loadNative().machine().availableBytes / 4 / (expert * shape.experts));
  return Math.max(1, Math.min(Math.max(wanted, 2), fitting, MOST_LAYERS));
}

/** Rows of one sequence, each another token from `first` on. Nothing is cached, so the pages hold nothing. */
function batchOf(rows: number, first: number, vocabulary: number): Batch {
  const pages = Int32Array.from({ length: Math.ceil(rows / PAGE_TOKENS) }, (_, page) => page);
  return {
    tokens: Int32Array.from({ length: rows }, (_, row) => (first + row) % vocabulary),
    sequences: [{ slot: 0, firstRow: 0, rows, firstPosition: 0, pages }],
    outputs: [{ row: rows - 1, sampling: null }],
    wantLogits: false,
  };
}

/** How many experts of a layer a batch goes to, on average over batches and layers. */
async function distinctExperts(executable: Executable, batches: readonly Batch[]): Promise<number> {
  const { steps } = executable.program;
  const counts: number[] = [];
  for (const batch of batches) {
    const stepper = await executable.start(batch);
    try {
      for (const [index, step] of steps.entries()) {
        await stepper.step(index);
        if (step.op === 'router') counts.push(new Set(await stepper.read(step.outputs[0])).size);
      }
    } finally {
      await stepper.finish();
    }
  }
  return counts.reduce((sum, count) => sum + count, 0) / counts.length;
}

/** Milliseconds of one `experts` step: of each batch the mean over the layers, of these the median. */
async function timeExperts(executable: NativeExecutable, batches: readonly Batch[], layers: number): Promise<number> {
  const { steps } = executable.program;
  const total = () =>
    executable
      .timings()
      .reduce((sum, { step, microseconds }) => sum + (steps[step].op === 'experts' ? microseconds : 0), 0);
  const times: number[] = [];
  for (const batch of batches) {
    const before = total();
    await executable.run(batch);
    times.push((total() - before) / 1000 / layers);
  }
  return median(times);
}

function render(results: readonly ExpertsResult[]): string {
  const head = ['tokens', 'ms', 'TFLOPS', 'GB/s', 'of read bandwidth', 'of peak', 'unit', 'distinct experts'];
  const rows = results.map(
    ({
      tokens,
      milliseconds,
      tflops,
      gigabytesPerSecond,
      shareOfReadBandwidth,
      shareOfPeak,
      unit,
      distinctExperts,
    }) => [
      String(tokens),
      milliseconds.toFixed(3),
      tflops.toFixed(3),
      formatRate(gigabytesPerSecond),
      percent(shareOfReadBandwidth),
      percent(shareOfPeak),
      unit ?? '–',
      distinctExperts.toFixed(1),
    ],
  );
  return table([head, ...rows], 'rrrrrrlr');
}

function percent(share: number | undefined): string {
  return share === undefined ? '–' : `${(share * 100).toFixed(0)} %`;
}
