/**
 * What the control group of this process allows, versions 1 and 2: processors and memory. A container's limits count, not
 * the machine's. Files come through a reader, so the rules are tested on a made-up tree.
 */

/** The text of a file, or undefined where there is none. Paths are absolute. */
export type ReadText = (path: string) => string | undefined;

export interface ContainerLimits {
  /** Processors' worth of time, may be a fraction; absent: no limit. */
  readonly cpus?: number;
  /** Bytes, the tightest limit on the way to the root; absent: no limit. */
  readonly memory?: number;
  /** Bytes left below the limits; page cache counts as left, it is given up. Absent: no limit. */
  readonly memoryLeft?: number;
}

/** Limits of the group and of all groups above it. */
export function containerLimits(read: ReadText): ContainerLimits {
  const groups = read('/proc/self/cgroup') ?? '';
  const cpus = smallest([
    ...foldersOf(groups, '').map((folder) => quotaV2(read(`${folder}/cpu.max`))),
    ...foldersOf(groups, 'cpu').map((folder) =>
      quota(read(`${folder}/cpu.cfs_quota_us`), read(`${folder}/cpu.cfs_period_us`)),
    ),
  ]);
  const memories = [
    ...foldersOf(groups, '').map((folder) => memoryOf(read, folder, V2)),
    ...foldersOf(groups, 'memory').map((folder) => memoryOf(read, folder, V1)),
  ].filter((memory) => memory !== undefined);
  const memory = smallest(memories.map(({ limit }) => limit));
  const memoryLeft = smallest(memories.map(({ left }) => left));
  return {
    ...(cpus !== undefined && { cpus }),
    ...(memory !== undefined && { memory }),
    ...(memoryLeft !== undefined && { memoryLeft }),
  };
}

/**
 * Bytes that this process may still take: what the system has available (`/proc/meminfo`), less where a control group
 * leaves less. Undefined where the system does not say (not Linux).
 */
export function memoryAvailable(read: ReadText): number | undefined {
  const kib = /^MemAvailable:\s+(\d+) kB/m.exec(read('/proc/meminfo') ?? '')?.[1];
  return kib === undefined ? undefined : Math.min(Number(kib) * 1024, containerLimits(read).memoryLeft ?? Infinity);
}

interface MemoryFiles {
  readonly limit: string;
  readonly used: string;
  /** Pages of files, read once and read again: both are given up, as the system's MemAvailable counts. */
  readonly cached: RegExp;
}
const V2: MemoryFiles = { limit: 'memory.max', used: 'memory.current', cached: /^(?:in)?active_file (\d+)/gm };
const V1: MemoryFiles = {
  limit: 'memory.limit_in_bytes',
  used: 'memory.usage_in_bytes',
  cached: /^total_(?:in)?active_file (\d+)/gm,
};

/** Version 1 writes a number near 2⁶³ for "none". */
const NO_LIMIT = 2 ** 60;

function memoryOf(read: ReadText, folder: string, files: MemoryFiles): { limit: number; left: number } | undefined {
  const limit = wholeNumber(read(`${folder}/${files.limit}`));
  if (limit === undefined || limit <= 0 || limit >= NO_LIMIT) return undefined;
  const used = wholeNumber(read(`${folder}/${files.used}`)) ?? 0;
  const lists = [...(read(`${folder}/memory.stat`) ?? '').matchAll(files.cached)];
  const reclaimable = lists.reduce((sum, [, bytes]) => sum + Number(bytes), 0);
  return { limit, left: Math.max(0, limit - Math.max(0, used - reclaimable)) };
}

/** `150000 100000`, `max 100000`. */
function quotaV2(line: string | undefined): number | undefined {
  const [time, period] = (line ?? '').trim().split(/\s+/);
  return quota(time, period);
}

function quota(time: string | undefined, period: string | undefined): number | undefined {
  const [granted, of] = [wholeNumber(time), wholeNumber(period)];
  return granted !== undefined && of !== undefined && granted > 0 && of > 0 ? granted / of : undefined;
}

/**
 * Folders of the process's group and its parents, innermost first, for a controller ('': the unified tree of version 2).
 * A container often sees its own group mounted as the root: the folder named may not exist, the root always does.
 */
function foldersOf(groups: string, controller: string): string[] {
  let path = '';
  for (const line of groups.split('\n')) {
    const [, names, group] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    if (names !== undefined && (controller === '' ? names === '' : names.split(',').includes(controller))) path = group;
  }
  const root = controller === '' ? '/sys/fs/cgroup' : `/sys/fs/cgroup/${controller}`;
  const parts = path.split('/').filter((part) => part !== '' && part !== '..');
  return Array.from({ length: parts.length + 1 }, (_, i) => [root, ...parts.slice(0, parts.length - i)].join('/'));
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^-?\d+$/.test(text.trim()) ? Number(text) : undefined;
}

function smallest(values: readonly (number | undefined)[]): number | undefined {
  const found = values.filter((value) => value !== undefined);
  return found.length === 0 ? undefined : Math.min(...found);
}
