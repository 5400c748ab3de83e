/**
 * The fake driver of native/cuda/fake with Tandem's kernels over the emulation of the thread grid: whole models run, on machines
 * without a GPU. It is built once, beside the addon, and again when its sources change.
 */
import { existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { nativeProblem, ROOT } from '../../src/backend/native/load.ts';
import { compilerProblem, link, objectsOf } from '../native/objects.ts';

const folder = join(ROOT, 'build', 'fake-cuda');
const library = join(folder, 'libcuda.so.1');
const SOURCES = [
  ...readdirSync(join(ROOT, 'native', 'cuda', 'fake'))
    .filter((file) => file.endsWith('.cc'))
    .map((file) => `cuda/fake/${file}`),
  'cuda/emulation/table.cc',
  'quant/grids.cc',
];

/** Why there is none here; undefined where there is one. */
export function fakeDriverProblem(): string | undefined {
  if (nativeProblem() !== undefined) return 'the native core is not built';
  return compilerProblem();
}

/**
 * Builds it and makes this process use it; before anything asks for GPUs. `machine` as in native/cuda/fake/fake.h:
 * "gpus=2;memory=1000000000". Models are not checked as they are on a card (src/engine/gpu-check.ts): emulated kernels take their time, and
 * what they compute is looked at here anyway.
 */
export async function useFakeDriver(machine: string): Promise<void> {
  await build();
  const kernels = join(folder, 'kernels');
  writeFileSync(kernels, '');
  process.env.TANDEM_CUDA_LIBRARY = library;
  process.env.TANDEM_CUDA_KERNELS = kernels;
  process.env.TANDEM_FAKE_CUDA = machine;
  process.env.TANDEM_CUDA_CHECK ??= '0';
}

async function build(): Promise<void> {
  const objects = await objectsOf(SOURCES);
  mkdirSync(folder, { recursive: true });
  const newest = Math.max(...objects.map((object) => statSync(object).ctimeMs));
  if (existsSync(library) && statSync(library).mtimeMs >= newest) return;
  await link(objects, library, '-shared');
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
