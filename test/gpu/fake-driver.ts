/**
 * The fake driver of native/cuda/fake with Tandem's kernels over the emulation of the thread grid: whole models run, on machines
 * without a GPU. It is built once, beside the addon, and again when its sources change.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readdirSync, renameSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { nativeProblem, ROOT } from '../../src/backend/native/load.ts';
import { tryLock } from '../lock.ts';

const native = join(ROOT, 'native');
const folder = join(ROOT, 'build', 'fake-cuda');
const library = join(folder, 'libcuda.so.1');
const compiler = process.env.CXX ?? 'c++';
const SOURCES = ['cuda/fake/driver.cc', 'cuda/emulation/table.cc', 'quant/grids.cc'];
const FLAGS = ['-std=c++20', '-O1', '-fPIC', '-ffp-contract=off', '-pthread', '-I', native];

/** Why there is none here; undefined where there is one. */
export function fakeDriverProblem(): string | undefined {
  if (nativeProblem() !== undefined) return 'the native core is not built';
  return spawnSync(compiler, ['--version']).status === 0 ? undefined : `no C++ compiler "${compiler}"`;
}

/**
 * Builds it and makes this process use it; before anything asks for GPUs. `machine` as in native/cuda/fake/fake.h:
 * "gpus=2;memory=1000000000". Models are not checked as they are on a card (src/engine/gpu-check.ts): emulated kernels take their time, and
 * what they compute is looked at here anyway.
 */
export async function useFakeDriver(machine: string): Promise<void> {
  if (!isBuilt()) await buildAlone();
  const kernels = join(folder, 'kernels');
  writeFileSync(kernels, '');
  process.env.TANDEM_CUDA_LIBRARY = library;
  process.env.TANDEM_CUDA_KERNELS = kernels;
  process.env.TANDEM_FAKE_CUDA = machine;
  process.env.TANDEM_CUDA_CHECK ??= '0';
}

function isBuilt(): boolean {
  return existsSync(library) && statSync(library).mtimeMs >= newest();
}

function newest(): number {
  const files = ['cuda/fake', 'cuda/emulation', 'cuda/kernels', 'quant'].flatMap((path) =>
    readdirSync(join(native, path)).map((file) => join(native, path, file)),
  );
  return Math.max(...files.map((file) => statSync(file).mtimeMs));
}

/** Of the test files that run at once one builds it. */
async function buildAlone(): Promise<void> {
  let release = tryLock('fake-driver', 600_000);
  while (release === undefined) {
    await sleep(200);
    release = tryLock('fake-driver', 600_000);
  }
  try {
    if (!isBuilt()) await build();
  } finally {
    release();
  }
}

async function build(): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const own = join(folder, String(process.pid));
  const objects = SOURCES.map((_, i) => `${own}.${i}.o`);
  await Promise.all(SOURCES.map((source, i) => compile(['-c', join(native, source), '-o', objects[i]])));
  await compile(['-shared', ...objects, '-o', `${own}.so`]);
  renameSync(`${own}.so`, library);
}

async function compile(args: readonly string[]): Promise<void> {
  const child = spawn(compiler, [...FLAGS, ...args], { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'close');
  const errors = await text(child.stderr);
  if ((await ended)[0] !== 0) throw new Error(errors);
}

/** Options of models that are compared: one kind of arithmetic on both sides, floats that nothing rounds. */
export const UNROUNDED = {
  exact: true,
  activations: 'f32',
  contextLength: 256,
  maxBatchRows: 32,
  threads: 2,
  kvType: 'f32',
} as const;

/** All steps that have kernels on the first GPU. */
export const ALL_ON_GPU = [
  { match: { op: ['embed', 'sample'] }, place: { device: 'cpu' } },
  { place: { device: 'cuda:0' } },
];
