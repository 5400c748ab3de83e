/** Measures this machine for predictions: how fast it reads, multiplies and runs its kernels. At most some ten seconds. */
import { randomFillSync } from 'node:crypto';
import { mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { NativeBinding } from '../../backend/native/binding.ts';
import { measureGpu } from '../../backend/native/gpus.ts';
import { loadNative } from '../../backend/native/load.ts';
import { machineFacts } from '../../engine/this-machine.ts';
import type { FormatName } from '../../formats/dtype.ts';
import type { GpuProfile, MachineProfile } from '../../placement/profile.ts';
import { readBandwidth } from './ceiling.ts';
import { probeKernels } from './probe-kernels.ts';
import { describeMachine } from './report.ts';

type Peaks = ReturnType<NativeBinding['peaks']>;

/** The profile, and what it was made of: the first reading of memory by all threads, and the peaks of their units. */
export interface Probed {
  readonly profile: MachineProfile;
  readonly reading: ReturnType<typeof readBandwidth>;
  readonly peaks: Peaks;
}

/** NATIVE_UNAVAILABLE where there is no native core. */
export async function probeMachine(formats: readonly FormatName[]): Promise<Probed> {
  const facts = machineFacts();
  const machine = describeMachine();
  const reading = readBandwidth(0, machine);
  const kernels = await probeKernels({ formats, lastLevelCacheBytes: machine.lastLevelCacheBytes });
  // Neighbours come and go: the better one counts.
  const bandwidth = Math.max(reading.bytesPerSecond, readBandwidth(0, machine).bytesPerSecond);
  const disk = await probeDisk();
  const peaks = loadNative().peaks(0);
  const profile = {
    cpu: facts.cpu,
    memory: { ...facts.memory, bandwidth, measured: true },
    peaks: peaksOf(peaks),
    kernels,
    gpus: facts.gpus.map(measured),
    ...(disk && { disk }),
    container: facts.container,
  };
  return { profile, reading, peaks };
}

/** A card with what its copies reach, instead of its data sheet. */
function measured(gpu: GpuProfile): GpuProfile {
  const rates = gpu.refused === undefined ? measureGpu(gpu.device) : undefined;
  if (rates === undefined) return gpu;
  return { ...gpu, bandwidth: rates.copy, pcie: rates.pinned, pageable: rates.pageable, measured: true };
}

/** The best of each kind of operands. */
function peaksOf(peaks: Peaks): MachineProfile['peaks'] {
  const best = (kind: string) =>
    Math.max(0, ...peaks.filter(({ name }) => name.endsWith(`_${kind}`)).map((peak) => peak.operationsPerSecond));
  const found = { int8: best('int8'), bf16: best('bf16'), f32: best('f32') };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value > 0));
}

const DISK_BYTES = 96 << 20;
const DISK_READ = 4 << 20;
const DISK_READERS = 8;

/** Reads of a temporary file that the page cache has forgotten; undefined where there is no disk to write to. */
async function probeDisk(): Promise<MachineProfile['disk']> {
  const folder = await mkdtemp(join(tmpdir(), 'tandem-disk-')).catch(() => undefined);
  if (folder === undefined) return undefined;
  const path = join(folder, 'disk.bin');
  try {
    const { bavail, bsize } = await statfs(folder);
    const free = bavail * bsize;
    if (free < 4 * DISK_BYTES) return undefined;
    const written = await open(path, 'wx');
    const block = randomFillSync(Buffer.alloc(DISK_READ));
    for (let at = 0; at < DISK_BYTES; at += DISK_READ) await written.write(block, 0, DISK_READ, at);
    await written.sync();
    await written.close();
    loadNative().dropCache(path);
    const handle = await open(path, 'r');
    const started = performance.now();
    let next = 0;
    const read = async () => {
      const buffer = Buffer.alloc(DISK_READ);
      for (let at = next; at < DISK_BYTES; at = next) {
        next += DISK_READ;
        await handle.read(buffer, 0, DISK_READ, at);
      }
    };
    await Promise.all(Array.from({ length: DISK_READERS }, read));
    const seconds = (performance.now() - started) / 1000;
    await handle.close();
    return { bandwidth: DISK_BYTES / seconds, free };
  } catch {
    return undefined; // full, read-only: plans do without load times
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
