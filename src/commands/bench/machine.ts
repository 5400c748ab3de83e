/**
 * `tandem bench machine`: how fast memory can be read here, the ceiling of decode, how fast each unit multiplies, that of
 * prefill, and what the kernels reach. The profile that comes of it is kept for `tandem plan`, here and elsewhere.
 */
import { type Command, InvalidArgumentError } from 'commander';
import { loadNative } from '../../backend/native/load.ts';
import { keepProfile, machineBusy } from '../../engine/this-machine.ts';
import { FORMAT_NAMES, type FormatName } from '../../formats/dtype.ts';
import { quantFormat } from '../../formats/quants/index.ts';
import type { GpuProfile, KernelCosts } from '../../placement/profile.ts';
import { formatBytes, formatRate, table } from '../terminal.ts';
import { readBandwidth } from './ceiling.ts';
import { probeMachine } from './probe.ts';
import { USUAL_FORMATS } from './probe-kernels.ts';
import { describeMachine, type ReportFlags, report, withReport } from './report.ts';

interface Flags extends ReportFlags {
  formats: readonly FormatName[];
}

export function addBenchMachine(bench: Command): void {
  withReport(bench.command('machine').description('what this machine is, how fast it reads memory and multiplies'))
    .option('--formats <list>', 'weight formats whose kernels are timed', formatList, USUAL_FORMATS)
    .addHelpText(
      'after',
      `
Examples:
  tandem bench machine
  tandem bench machine --json > server.json         for tandem plan --machine server.json elsewhere
  tandem bench machine --formats q4_k,iq2_xxs --record`,
    )
    .action(benchMachine);
}

function formatList(text: string): FormatName[] {
  const formats = text.split(',').map((name) => FORMAT_NAMES.find((known) => known === name.trim().toLowerCase()));
  if (formats.every((format) => format !== undefined)) return formats;
  throw new InvalidArgumentError(`It must be weight formats with commas, of ${FORMAT_NAMES.join(', ')}.`);
}

async function benchMachine(flags: Flags): Promise<void> {
  const busy = machineBusy();
  const machine = describeMachine();
  const { usableCores, features } = loadNative().machine();
  const alone = { reading: readBandwidth(1, machine), peaks: loadNative().peaks(1) };
  const { profile, ...together } = await probeMachine(flags.formats);
  await keepProfile(profile, busy);
  const all = together.reading.threads > 1 ? [alone, together] : [alone];
  const readings = all.map(({ reading: { threads, bytesPerSecond, nodes } }) => {
    const each = nodes.map(({ bytesPerSecond: bytes, ...node }) => ({ ...node, gigabytesPerSecond: bytes / 1e9 }));
    return { threads, gigabytesPerSecond: bytesPerSecond / 1e9, nodes: each };
  });
  const peaks = all.flatMap((each) =>
    each.peaks.map(({ name, threads, operationsPerSecond }) => ({ name, threads, tflops: operationsPerSecond / 1e12 })),
  );
  const rows = [
    ['cpu', machine.cpu],
    ['cores', `${machine.physicalCores} physical, ${machine.logicalCores} logical, ${usableCores} usable here`],
    ['instruction set', `${machine.isa} (${features.join(' ')})`],
    ['NUMA nodes', String(machine.numaNodes)],
    ['memory', formatBytes(machine.memoryBytes)],
    ['last-level cache', formatBytes(machine.lastLevelCacheBytes)],
    ['load average', machine.loadAverage.toFixed(1)],
    ['tiles', machine.tiles || 'none'],
    ...readings.flatMap(({ threads, gigabytesPerSecond, nodes }) => [
      [`reads, ${threadsOf(threads)}`, `${formatRate(gigabytesPerSecond)} GB/s`],
      ...nodes.map((node) => [
        `  node ${node.node}, ${threadsOf(node.threads)}`,
        `${formatRate(node.gigabytesPerSecond)} GB/s`,
      ]),
    ]),
    ...peaks.map(({ name, threads, tflops }) => [`${name}, ${threadsOf(threads)}`, `${tflops.toFixed(3)} TFLOPS`]),
    ...profile.gpus.map((gpu) => [gpu.device, gpuLine(gpu)]),
    ...(profile.disk ? [['disk', `${formatRate(profile.disk.bandwidth / 1e9)} GB/s`]] : []),
  ];
  const head = ['kernel', 'one row, GB/s', 'many rows, TFLOPS'];
  const kernels = table([head, ...kernelRows(profile.kernels!)], 'lrr');
  await report(flags, {
    name: 'machine',
    machine,
    json: { readBandwidth: readings, peaks, features, profile },
    text: `${table(rows)}\n\n${kernels}\n`,
  });
}

/** `RTX 4090 24.0 GB: copies 940 GB/s, uploads 24.1 GB/s (pinned), 11.8 GB/s (other memory); bf16 165 TFLOPS by its data sheet`. */
function gpuLine({ name, memoryBytes, bandwidth, pcie, pageable, bf16, measured, refused }: GpuProfile): string {
  const card = `${name} ${formatBytes(memoryBytes)}`;
  if (refused !== undefined) return `${card}: not used: ${refused}`;
  const rate = (bytes: number) => `${formatRate(bytes / 1e9)} GB/s`;
  const sheet = `bf16 ${formatRate(bf16 / 1e12)} TFLOPS by its data sheet`;
  if (!measured || pageable === undefined) return `${card}: ${rate(bandwidth)} by its data sheet, ${sheet}`;
  return `${card}: copies ${rate(bandwidth)}, uploads ${rate(pcie)} (pinned), ${rate(pageable)} (other memory); ${sheet}`;
}

/** What the kernels reach of memory with one row and of the units with the most rows that were timed. */
function kernelRows({ matrices }: KernelCosts): string[][] {
  return matrices.map(({ op, format, costs }) => {
    const { blockBytes, blockSize } = quantFormat(format);
    const [rows, seconds] = costs[costs.length - 1];
    const read = blockBytes / blockSize / costs[0][1] / 1e9;
    return [`${op}, ${format}`, formatRate(read), ((2 * rows) / seconds / 1e12).toFixed(3)];
  });
}

function threadsOf(count: number): string {
  return `${count} ${count === 1 ? 'thread' : 'threads'}`;
}
