/**
 * The GPU kernels, compiled for the host over an emulation of the thread grid (native/cuda/emulation), against the definitions
 * of the ops. Needs a C++20 compiler, neither a GPU nor nvcc.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const compiler = process.env.CXX ?? 'c++';
const hasCompiler = spawnSync(compiler, ['--version']).status === 0;
const native = fileURLToPath(new URL('../../native/', import.meta.url));
const SUITES = ['linear', 'tiles', 'steps', 'attention'];

describe.skipIf(!hasCompiler)(`GPU kernels${hasCompiler ? '' : ` (skipped: no C++ compiler "${compiler}")`}`, () => {
  let folder = '';
  let program = '';
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'tandem-cuda-'));
    program = join(folder, 'cuda_tests');
    const flags = ['-std=c++20', '-O1', '-ffp-contract=off', '-Wall', '-Wextra', '-Werror', '-Wno-unused-function'];
    const tests = SUITES.map((suite) => `test/cuda_kernels_${suite}.cc`);
    const sources = ['test/main.cc', ...tests, 'cuda/emulation/table.cc', 'quant/grids.cc'].map(
      (file) => native + file,
    );
    const built = spawnSync(compiler, [...flags, '-I', native, ...sources, '-o', program], { encoding: 'utf8' });
    expect(built.stderr).toBe('');
    expect(built.status).toBe(0);
  }, 300_000); // a busy machine compiles slowly
  afterAll(() => rmSync(folder, { recursive: true }));

  it('compute what their ops say, whatever the order of their threads', () => {
    const run = spawnSync(program, ['cuda_'], { encoding: 'utf8' });
    expect(run.stdout).toMatch(/\b[1-9]\d* tests, 0 failures/);
    expect(run.status).toBe(0);
  }, 120_000);
});
