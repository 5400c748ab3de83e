/** `tandem bench machine`: how fast memory can be read here, the ceiling of decode. */
import type { Command } from 'commander';
import { loadNative } from '../../backend/native/load.ts';
import { formatBytes, formatRate, table } from '../terminal.ts';
import { describeMachine, type ReportFlags, readBandwidth, report, withReport } from './report.ts';

export function addBenchMachine(bench: Command): void {
  withReport(bench.command('machine').description('what this machine is, and how fast it reads memory'))
    .addHelpText('after', '\nExamples:\n  tandem bench machine\n  tandem bench machine --json --record')
    .action(benchMachine);
}

async function benchMachine(flags: ReportFlags): Promise<void> {
  const machine = describeMachine();
  const { usableCores, features } = loadNative().machine();
  const readings = [...new Set([1, usableCores])].map((wanted) => {
    const { threads, bytesPerSecond } = readBandwidth(wanted, machine);
    return { threads, gigabytesPerSecond: bytesPerSecond / 1e9 };
  });
  const rows = [
    ['cpu', machine.cpu],
    ['cores', `${machine.physicalCores} physical, ${machine.logicalCores} logical, ${usableCores} usable here`],
    ['instruction set', `${machine.isa} (${features.join(' ')})`],
    ['NUMA nodes', String(machine.numaNodes)],
    ['memory', formatBytes(machine.memoryBytes)],
    ['last-level cache', formatBytes(machine.lastLevelCacheBytes)],
    ['load average', machine.loadAverage.toFixed(1)],
    ...readings.map(({ threads, gigabytesPerSecond }) => [
      `reads, ${threads} ${threads === 1 ? 'thread' : 'threads'}`,
      `${formatRate(gigabytesPerSecond)} GB/s`,
    ]),
  ];
  await report(flags, {
    name: 'machine',
    machine,
    json: { readBandwidth: readings, features },
    text: `${table(rows)}\n`,
  });
}
