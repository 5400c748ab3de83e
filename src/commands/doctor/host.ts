/** What the operating system says about the machine. Text files come through a reader, so the rules run on made-up trees. */
import type { ReadText } from '../../placement/container.ts';

export interface HostFacts {
  /** Of transparent huge pages: `always`, `madvise` or `never`; undefined where the system does not say. */
  readonly hugePages?: string;
  /** Whether the kernel moves pages between NUMA nodes behind the program's back. */
  readonly numaBalancing?: boolean;
  /** Frequency governor of processor 0. */
  readonly governor?: string;
  /** Share of time in which something waited for a processor during the last minute, [0, 1]. */
  readonly cpuPressure?: number;
  /** Bytes in use, of all. */
  readonly swap?: { readonly used: number; readonly total: number };
  /** Version of the NVIDIA driver, and its GPUs by name. */
  readonly nvidia?: { readonly version: string; readonly gpus: readonly string[] };
}

/** `list`: entries of a folder, none where there is no such folder. */
export function hostFacts(read: ReadText, list: (folder: string) => readonly string[]): HostFacts {
  const word = (path: string) => read(path)?.trim();
  const meminfo = read('/proc/meminfo') ?? '';
  const kib = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(meminfo)?.[1] ?? 0) * 1024;
  const pressure = /^some .*avg60=([\d.]+)/m.exec(read('/proc/pressure/cpu') ?? '')?.[1];
  const balancing = word('/proc/sys/kernel/numa_balancing');
  const driver = read('/proc/driver/nvidia/version');
  return {
    hugePages: /\[(\w+)\]/.exec(read('/sys/kernel/mm/transparent_hugepage/enabled') ?? '')?.[1],
    numaBalancing: balancing === undefined ? undefined : balancing !== '0',
    governor: word('/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor'),
    cpuPressure: pressure === undefined ? undefined : Number(pressure) / 100,
    swap: meminfo === '' ? undefined : { used: kib('SwapTotal') - kib('SwapFree'), total: kib('SwapTotal') },
    nvidia: driver === undefined ? undefined : { version: driverVersion(driver), gpus: gpuNames(read, list) },
  };
}

function driverVersion(text: string): string {
  return /\b(\d{3,}\.\d+(?:\.\d+)?)\b/.exec(text)?.[1] ?? 'of unknown version';
}

function gpuNames(read: ReadText, list: (folder: string) => readonly string[]): string[] {
  const folder = '/proc/driver/nvidia/gpus';
  return list(folder).map((name) => /^Model:\s+(.+)$/m.exec(read(`${folder}/${name}/information`) ?? '')?.[1] ?? name);
}
