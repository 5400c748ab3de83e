/** `tandem bench machine`: how fast memory can be read here, the ceiling of decode, and how fast each unit multiplies, that of prefill. */
import type { Command } from 'commander';
import { loadNative } from '../../backend/native/load.ts';
import { formatBytes, formatRate, table } from '../terminal.ts';
import { readBandwidth } from './ceiling.ts';
import { describeMachine, type ReportFlags, report, withReport } from './report.ts';

export function addBenchMachine(bench: Command): void {
  withReport(bench.command('machine').description('what this machine is, how fast it reads memory and multiplies'))
    .addHelpText('after', '\nExamples:\n  tandem bench machine\n  tandem bench machine --json --record')
    .action(benchMachine);
}

async function benchMachine(flags: ReportFlags): Promise<void> {
  const machine = describeMachine();
  const { usableCores, features } = loadNative().machine();
  const readings = [...new Set([1, usableCores])].map((wanted) => {
    const { threads, bytesPerSecond, nodes } = readBandwidth(wanted, machine);
    const each = nodes.map(({ bytesPerSecond: bytes, ...node }) => ({ ...node, gigabytesPerSecond: bytes / 1e9 }));
    return { threads, gigabytesPerSecond: bytesPerSecond / 1e9, nodes: each };
  });
  const peaks = [...new Set([1, usableCores])].flatMap((wanted) =>
    loadNative()
      .peaks(wanted)
      .map(({ name, threads, operationsPerSecond }) => ({
        name,
        threads,
        tflops: operationsPerSecond / 1e12,
      })),
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
  ];
  await report(flags, {
    name: 'machine',
    machine,
    json: { readBandwidth: readings, peaks, features },
    text: `${table(rows)}\n`,
  });
}

function threadsOf(count: number): string {
  return `${count} ${count === 1 ? 'thread' : 'threads'}`;
}
