/**
 * What every benchmark says beside its figures: the machine, the commit, the command; and where a recorded result goes.
 * Figures are medians over rounds; how fast the machine could be is measured in the same run.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, writeFile } from 'node:fs/promises';
import { loadavg } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import type { TileUnit } from '../../backend/native/binding.ts';
import { loadNative } from '../../backend/native/load.ts';
import { fileError } from '../../formats/file-source.ts';
import { tileUnit } from '../../placement/tiles.ts';

export interface ReportFlags {
  json?: boolean;
  record?: boolean;
}

/** Adds `--json` and `--record`. */
export function withReport(command: Command): Command {
  return command
    .option('--json', 'print JSON')
    .option('--record', 'write the result with machine, commit and command into bench/results/');
}

export interface Machine {
  readonly cpu: string;
  readonly physicalCores: number;
  readonly logicalCores: number;
  readonly numaNodes: number;
  readonly isa: string;
  /** What multiplies on tiles with these kernels; '' where nothing does. */
  readonly tiles: TileUnit | '';
  readonly memoryBytes: number;
  /** As the system reports it; 0 where it does not. */
  readonly lastLevelCacheBytes: number;
  /** Runnable processes before the benchmark, average of a minute: a busy machine measures its neighbours. */
  readonly loadAverage: number;
}

/** NATIVE_UNAVAILABLE where there is no native core. */
export function describeMachine(isa?: string): Machine {
  const info = loadNative().machine();
  const { model, physicalCores, logicalCores, numaNodes, memoryBytes, isa: best } = info;
  return {
    cpu: model,
    physicalCores,
    logicalCores,
    numaNodes,
    isa: isa ?? best,
    tiles: tileUnit(info, isa) ?? '',
    memoryBytes,
    lastLevelCacheBytes: lastLevelCache(),
    loadAverage: loadavg()[0],
  };
}

/** Bytes of the largest cache of processor 0. */
function lastLevelCache(): number {
  let largest = 0;
  for (let index = 0; index < 8; index++) {
    const path = `/sys/devices/system/cpu/cpu0/cache/index${index}/size`;
    if (!existsSync(path)) break;
    const [, digits, unit] = /^(\d+)([KM]?)/.exec(readFileSync(path, 'utf8')) ?? [];
    largest = Math.max(largest, Number(digits ?? 0) * (unit === 'M' ? 1 << 20 : unit === 'K' ? 1 << 10 : 1));
  }
  return largest;
}

/** Median; of an even number the upper one of the middle. */
export function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1];
}

/** The checkout's commit, `-dirty` where files differ from it; undefined where this is no checkout or there is no git. */
function currentCommit(): string | undefined {
  const root = fileURLToPath(new URL('../../../', import.meta.url));
  if (!existsSync(join(root, '.git'))) return undefined;
  try {
    const args = ['describe', '--always', '--dirty', '--exclude', '*'];
    return execFileSync('git', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim();
  } catch {
    return undefined;
  }
}

/** The command as typed, folders left out of paths. */
function typedCommand(): string {
  return ['tandem', ...process.argv.slice(2).map((word) => basename(word))].join(' ');
}

/**
 * Prints the result as asked (JSON objects with `machine` and `commit`, arrays as they are), and records it:
 * `bench/results/NAME.json` in the current folder.
 */
export async function report(
  flags: ReportFlags,
  result: { readonly name: string; readonly machine: Machine; readonly json: object; readonly text: string },
): Promise<void> {
  const { json, machine } = result;
  const commit = currentCommit();
  const printed = Array.isArray(json) ? json : { ...json, machine, commit };
  process.stdout.write(flags.json ? `${JSON.stringify(printed)}\n` : result.text);
  if (!flags.record) return;
  const path = join('bench', 'results', `${result.name}.json`);
  const record = {
    command: typedCommand(),
    date: new Date().toISOString(),
    commit,
    machine,
    result: json,
  };
  try {
    await mkdir(join('bench', 'results'), { recursive: true });
    await writeFile(path, `${JSON.stringify(record, null, 2)}\n`);
  } catch (cause) {
    throw fileError('write', path, cause);
  }
  process.stderr.write(`${path}\n`);
}
