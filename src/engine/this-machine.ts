/**
 * The machine that this process runs on: its limits now, and the profile that was measured here, which is kept in
 * `$XDG_CACHE_HOME/tandem/machine.json`. Measuring itself is the business of a command.
 */
import { readFileSync } from 'node:fs';
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { availableParallelism, freemem, loadavg, totalmem } from 'node:os';
import { dirname, join } from 'node:path';
import { listGpus } from '../backend/native/gpus.ts';
import { loadNative } from '../backend/native/load.ts';
import { userHome } from '../hub/settings.ts';
import { containerLimits, memoryAvailable, type ReadText } from '../placement/container.ts';
import { type KernelCosts, type MachineProfile, parseProfile } from '../placement/profile.ts';
import { tileUnit } from '../placement/tiles.ts';

/** The text of a file of the system, or undefined. */
const readSystem: ReadText = (path) => {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
};

/** Bytes this process may still take: the control group's limit where there is one, else the machine's. */
export function availableMemory(): number {
  return memoryAvailable(readSystem) ?? process.availableMemory?.() ?? freemem();
}

/** Bytes there are: the control group's limit where there is one, else the machine's. */
export function totalMemory(): number {
  return Math.min(totalmem(), containerLimits(readSystem).memory ?? Infinity);
}

/** What a profile says that is known without measuring. */
export type MachineFacts = Pick<MachineProfile, 'cpu' | 'gpus' | 'container'> & {
  readonly memory: Omit<MachineProfile['memory'], 'bandwidth' | 'measured'>;
};

/** NATIVE_UNAVAILABLE where there is no native core. */
export function machineFacts(isa?: string): MachineFacts {
  const info = loadNative().machine();
  const { cpus, memory } = containerLimits(readSystem);
  return {
    cpu: {
      model: info.model,
      isa: (isa as MachineProfile['cpu']['isa'] | undefined) ?? info.isa,
      tiles: tileUnit(info, isa),
      cores: info.usableCores,
      threads: info.defaultThreads,
    },
    memory: { bytes: totalmem(), available: availableMemory(), nodes: info.numaNodes },
    gpus: gpuFacts(),
    container: { ...(cpus !== undefined && { cpus }), ...(memory !== undefined && { memory }) },
  };
}

/** By their data sheets. */
function gpuFacts(): MachineProfile['gpus'] {
  return listGpus().gpus.flatMap(({ device, name, memoryBytes, bandwidth, bf16, refused }) => {
    // Cards of which the driver tells no clocks cannot be planned for.
    if (!(memoryBytes > 0 && bandwidth > 0 && bf16 > 0)) return [];
    return [{ device, name, memoryBytes, bandwidth, pcie: PCIE, measured: false, bf16, ...(refused && { refused }) }];
  });
}

/** Bytes per second of a bus nobody measured: sixteen lanes of PCIe 4. */
const PCIE = 25e9;

/** The same card in the same place keeps what was measured on it. */
export function withMeasuredGpus(now: MachineProfile['gpus'], before: MachineProfile['gpus']): MachineProfile['gpus'] {
  return now.map((gpu) => {
    const same = before.find(({ device, name, memoryBytes, measured }) => measured && device === gpu.device && name === gpu.name && memoryBytes === gpu.memoryBytes); // biome-ignore format: one thought a line
    if (same === undefined) return gpu;
    const { bandwidth, pcie, pageable } = same;
    return { ...gpu, bandwidth, pcie, pageable, measured: true };
  });
}

/** What was measured, and of which machine: the rest of a profile is looked up anew. */
interface Kept {
  readonly key: string;
  readonly profile: MachineProfile;
  /** The machine had other work then: its figures are too low. */
  readonly busy?: boolean;
}

/** Whether other work took most of a processor, or a quarter of all, in the last minute: what is measured then is too little. */
export function machineBusy([lastMinute] = loadavg(), processors = availableParallelism()): boolean {
  return lastMinute > Math.max(0.8, processors / 4);
}

/** Where the measured profile lies. */
export function profilePath(env: Readonly<Record<string, string | undefined>> = process.env): string {
  return join(env.XDG_CACHE_HOME || join(userHome(), '.cache'), 'tandem', 'machine.json');
}

/** Measured on this machine before, with its limits as they are now; undefined where that was another machine or version. */
export async function keptProfile(): Promise<MachineProfile | undefined> {
  return (await keptMeasurement())?.profile;
}

/** The kept profile, and whether the machine was busy when it was measured. */
export async function keptMeasurement(): Promise<{ profile: MachineProfile; busy: boolean } | undefined> {
  const text = await readFile(profilePath(), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  try {
    const { key, profile: measured, busy = false } = JSON.parse(text) as Partial<Kept>;
    const facts = machineFacts();
    if (key !== keyOf(facts)) return undefined;
    const profile = parseProfile(measured, profilePath());
    const gpus = withMeasuredGpus(facts.gpus, profile.gpus);
    return { profile: { ...profile, ...facts, gpus, memory: { ...profile.memory, ...facts.memory } }, busy };
  } catch {
    return undefined; // damaged: measured anew
  }
}

/** Bytes per second of two channels of DDR4: of memory that nobody measured. */
const SOME_BANDWIDTH = 40e9;

/** As it was measured before, else with what is known without measuring. Kernels were measured with the machine's own instruction set. */
export async function likelyProfile(isa?: string): Promise<MachineProfile> {
  const kept = isa === undefined ? await keptProfile() : undefined;
  if (kept !== undefined) return kept;
  const facts = machineFacts(isa);
  return parseProfile({ ...facts, memory: { ...facts.memory, bandwidth: SOME_BANDWIDTH } }, 'this machine');
}

/** Keeps it for later commands; a folder that cannot be written is no reason to fail. `busy`: measured beside other work. */
export async function keepProfile(profile: MachineProfile, busy = false): Promise<void> {
  const path = profilePath();
  const part = `${path}.${process.pid}`;
  try {
    await mkdir(dirname(path), { recursive: true });
    await writeFile(
      part,
      `${JSON.stringify({ key: keyOf(profile), profile, ...(busy && { busy }) } satisfies Kept, null, 2)}\n`,
    );
    await rename(part, path);
  } catch {
    await rm(part, { force: true }).catch(() => {});
  }
}

/** Matrices of both, those of `now` before; all else as it was. */
export function withKernels(profile: MachineProfile, now: KernelCosts): MachineProfile {
  const before = profile.kernels;
  if (!before) return { ...profile, kernels: now };
  const fresh = new Set(now.matrices.map(({ op, format }) => `${op} ${format}`));
  const kept = before.matrices.filter(({ op, format }) => !fresh.has(`${op} ${format}`));
  return { ...profile, kernels: { ...before, matrices: [...now.matrices, ...kept] } };
}

/** Another processor, number of cores or threads, memory or build measures anew. */
function keyOf({ cpu, memory }: MachineFacts | MachineProfile): string {
  return JSON.stringify([loadNative().version, cpu.model, cpu.isa, cpu.tiles, cpu.cores, cpu.threads, memory.bytes]);
}
