/**
 * The GPU kernels, compiled for the host over an emulation of the thread grid (native/cuda/emulation), against the definitions
 * of the ops. Needs a C++20 compiler, neither a GPU nor nvcc.
 */
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const compiler = process.env.CXX ?? 'c++';
const hasCompiler = spawnSync(compiler, ['--version']).status === 0;
const native = fileURLToPath(new URL('../../native/', import.meta.url));
const FLAGS = ['-std=c++20', '-O1', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror', '-Wno-unused-function'];
const SOURCES = [
  'cuda/emulation/table.cc',
  'test/cuda_kernels_emulation.cc',
  'test/cuda_kernels_codes.cc',
  'test/cuda_kernels_linear.cc',
  'test/cuda_kernels_tiles.cc',
  'test/cuda_kernels_steps.cc',
  'test/cuda_kernels_attention.cc',
  'test/cuda_kernels_mla.cc',
  'test/cuda_kernels_sample.cc',
  'test/main.cc',
  'quant/grids.cc',
];

async function compile(args: string[]): Promise<void> {
  const child = spawn(compiler, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  const ended = once(child, 'close');
  expect(await text(child.stderr)).toBe('');
  expect((await ended)[0]).toBe(0);
}

describe.skipIf(!hasCompiler)(`GPU kernels${hasCompiler ? '' : ` (skipped: no C++ compiler "${compiler}")`}`, () => {
  let folder = '';
  let program = '';
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-cuda-'));
    program = join(folder, 'cuda_tests');
    const objects = SOURCES.map((source) => join(folder, `${basename(source)}.o`));
    await Promise.all(
      SOURCES.map((source, i) => compile([...FLAGS, '-I', native, '-c', native + source, '-o', objects[i]])),
    );
    await compile([...objects, '-o', program]);
  }, 300_000); // a busy machine compiles slowly
  afterAll(() => rmSync(folder, { recursive: true }));

  it('compute what their ops say, whatever the order of their threads', () => {
    const run = spawnSync(program, ['cuda_'], { encoding: 'utf8' });
    expect(run.stdout).toMatch(/\b[1-9]\d* tests, 0 failures/);
    expect(run.status).toBe(0);
  }, 300_000); // a busy machine runs slowly too
});
