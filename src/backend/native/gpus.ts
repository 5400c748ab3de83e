/** The NVIDIA GPUs of this machine, and where their kernels are: `build/` of a checkout, else the optional package. */
import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { GpuList, GpuRates, NativeBinding } from './binding.ts';
import { loadNative, packageVersion, ROOT } from './load.ts';
import { CUDA_FILES, CUDA_PACKAGE } from './platform.ts';

/** Compiled kernels; `path` '' where there are none, with a `problem` where some are there that do not fit. */
export interface KernelFile {
  readonly path: string;
  /** CUDA that compiled them, 13000 = 13.0; 0: not known. */
  readonly version: number;
  readonly problem?: string;
}

/** Kernels below `root`, else of the package as `resolve` finds it (undefined: not installed). */
export function findKernels(root: string, version: string, resolve: (name: string) => string | undefined): KernelFile {
  const built = join(root, 'build');
  if (existsSync(join(built, CUDA_FILES.kernels))) return kernelsIn(built);
  const manifest = resolve(`${CUDA_PACKAGE}/package.json`);
  if (manifest === undefined) return { path: '', version: 0 };
  const installed = String(json(manifest)?.version);
  if (installed === version) return kernelsIn(dirname(manifest));
  const problem = `${CUDA_PACKAGE} is of version ${installed}, tandem of ${version}: npm install ${CUDA_PACKAGE}@${version}`;
  return { path: '', version: 0, problem };
}

function kernelsIn(folder: string): KernelFile {
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(String(json(join(folder, CUDA_FILES.facts))?.cuda)) ?? [];
  const version = major === undefined ? 0 : Number(major) * 1000 + Number(minor) * 10;
  return { path: join(folder, CUDA_FILES.kernels), version };
}

function json(path: string): Readonly<Record<string, unknown>> | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8'));
  } catch {
    return undefined;
  }
}

function installed(name: string): string | undefined {
  try {
    return createRequire(import.meta.url).resolve(name);
  } catch {
    return undefined;
  }
}

/**
 * All of them, also those that cannot be used (`refused`). A machine without driver has none. NATIVE_UNAVAILABLE where there is
 * no native core.
 */
export function listGpus({ free = false }: { readonly free?: boolean } = {}): GpuList {
  const binding: Partial<Pick<NativeBinding, 'gpus'>> = loadNative();
  // A checkout whose native core was built before it knew of GPUs goes on without.
  if (binding.gpus === undefined) return { cuda: '', problem: '', gpus: [] };
  const { path, version, problem } = gpuKernels();
  const found = binding.gpus(path, version, free);
  if (problem === undefined) return found;
  return { ...found, gpus: found.gpus.map((gpu) => ({ ...gpu, refused: problem })) };
}

/** How fast bytes move to a GPU and on it, measured now; undefined: it cannot be used, or does not say. */
export function measureGpu(device: string): GpuRates | undefined {
  const binding: Partial<Pick<NativeBinding, 'gpuRates'>> = loadNative();
  const { path, version, problem } = gpuKernels();
  const ordinal = Number(/^cuda:(\d+)$/.exec(device)?.[1] ?? Number.NaN);
  if (binding.gpuRates === undefined || problem !== undefined || Number.isNaN(ordinal)) return undefined;
  try {
    return binding.gpuRates(path, version, ordinal);
  } catch {
    return undefined; // full, lost, held by others: its data sheet will do
  }
}

/** The kernels that go with this version; TANDEM_CUDA_KERNELS names another file (as TANDEM_CUDA_LIBRARY does another driver). */
export function gpuKernels(): KernelFile {
  const named = process.env.TANDEM_CUDA_KERNELS;
  return named ? { path: named, version: 0 } : findKernels(ROOT, packageVersion(), installed);
}

let found: GpuList | undefined;

/** As `listGpus`, looked for once: what is free is not asked. */
export function knownGpus(): GpuList {
  found ??= listGpus();
  return found;
}
